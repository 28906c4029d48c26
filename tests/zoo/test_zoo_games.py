"""Hyperparameters of the discrete agents on sequences of games."""

import gymnasium as gym
import pytest

from sb3_nbsp.benchmark.settings import Settings
from sb3_nbsp.interventions import CompressedReplayBuffer
from sb3_nbsp.tasks.registration import game_sequences
from sb3_nbsp.zoo.algos import algorithm, read_hyperparams
from sb3_nbsp.zoo.options import plays_raw_frames, warn_of_skipped_frames

ALGOS = ["continual_discrete_sac", "nbsp_discrete_sac", "cbp_discrete_sac"]
# NBSP, table 6
TABLE_6 = {"buffer_size": 200_000, "learning_starts": 20_000, "batch_size": 64, "gamma": 0.99, "learning_rate": 1e-4}
TABLE_6 |= {"train_freq": 4, "target_update_interval": 8000, "tau": 1.0, "target_entropy_scale": 0.89}


@pytest.mark.parametrize("algo", ALGOS)
@pytest.mark.parametrize("env_id", game_sequences())
def test_every_sequence_of_games_has_an_entry_of_its_own(algo: str, env_id: str) -> None:
    found, kwargs = read_hyperparams(algo, env_id), gym.spec(env_id).kwargs
    assert "env_wrapper" not in found and "frame_stack" not in found  # they are inside of the tasks
    if kwargs:
        longest_game = 108_000 // 4 if env_id.startswith("Atari") else 5_000
        n_phases = 2 * len(kwargs["tasks"])
        assert found["n_timesteps"] >= n_phases * (kwargs["steps_per_task"] + longest_game)
    if env_id.startswith("Atari"):
        assert {name: found[name] for name in TABLE_6} == TABLE_6


@pytest.mark.parametrize("algo", ALGOS)
def test_an_entry_makes_an_agent(algo: str) -> None:
    pytest.importorskip("ale_py", reason="ale-py is not installed: pip install 'sb3_nbsp[atari]'")
    pytest.importorskip("minatar", reason="MinAtar is not installed: pip install 'sb3_nbsp[minatar]'")
    for env_id, is_compressed in (("Atari-Pong-Bowling-v0", True), ("MinAtar-Asterix-Freeway-v0", False)):
        settings = Settings.resolve(algo, env_id, seed=0, hyperparams={"buffer_size": 100})
        env = settings.make_env()
        model = settings.make_agent(env, device="cpu")
        assert type(model) is algorithm(algo)
        assert isinstance(model.replay_buffer, CompressedReplayBuffer) == is_compressed  # type: ignore[attr-defined]
        env.close()


@pytest.mark.parametrize("env_kwargs", [[], ["frameskip:1", "repeat_action_probability:0.0"]])
def test_frames_that_are_skipped_twice_are_warned_about(env_kwargs: list[str], command, recwarn) -> None:
    """ale-py's ids skip four frames, and so does the wrapper of the zoo's section."""
    pytest.importorskip("ale_py", reason="ale-py is not installed: pip install 'sb3_nbsp[atari]'")
    given = ["--env-kwargs", *env_kwargs] if env_kwargs else []
    params = ["-params", "n_envs:1", "buffer_size:20", "policy_kwargs:dict(net_arch=[8])"]
    command(
        "train", "--algo", "continual_discrete_sac", "--env", "ALE/Pong-v5", *given, "-n", "4", *params, "--eval-freq", "-1"
    )
    said = "ALE/Pong-v5 skips frames itself (frameskip=4), and AtariWrapper those of four of its steps"
    assert any(said in str(each.message) for each in recwarn) == (not env_kwargs)


def test_a_wrapper_that_skips_no_frames_is_not_warned_about(recwarn) -> None:
    pytest.importorskip("ale_py", reason="ale-py is not installed: pip install 'sb3_nbsp[atari]'")
    wrapper = "stable_baselines3.common.atari_wrappers.AtariWrapper"
    for env_id, env_wrapper in (
        ("ALE/Pong-v5", None),
        ("ALE/Pong-v5", {wrapper: {"frame_skip": 1}}),
        ("CartPole-v1", wrapper),
    ):
        warn_of_skipped_frames(env_id, {}, env_wrapper)
    assert not recwarn.list


def test_a_game_that_is_registered_without_arguments_has_those_of_ale(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = gym.envs.registration.EnvSpec("Own-v0", entry_point="ale_py.env:AtariEnv", kwargs={"game": "pong"})
    monkeypatch.setitem(gym.registry, "Own-v0", spec)
    with pytest.warns(UserWarning, match=r"frameskip=4.* the probability 0\.25"):
        warn_of_skipped_frames("Own-v0", {}, "stable_baselines3.common.atari_wrappers.AtariWrapper")


def test_games_as_such_are_told_from_sequences_of_games() -> None:
    pytest.importorskip("ale_py", reason="ale-py is not installed: pip install 'sb3_nbsp[atari]'")
    assert plays_raw_frames("ale_py:ALE/Pong-v5", {}) and plays_raw_frames("PongNoFrameskip-v4", {"obs_type": "grayscale"})
    assert not any(plays_raw_frames(env_id, {}) for env_id in ("AtariCycle-v0", "CartPole-v1", "unknown"))
    assert not plays_raw_frames("ALE/Pong-v5", {"obs_type": "ram"})  # a vector
    with pytest.raises(ValueError, match="ALE/Pong-v5 is a game without preprocessing: compare on a sequence of one game"):
        Settings.resolve("continual_discrete_sac", "ALE/Pong-v5", seed=0).check()
