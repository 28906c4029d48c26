import re
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, EveryNTimesteps
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_nbsp import P3O, ContinualSAC
from sb3_nbsp.tasks import SequenceCheckpoint, TaskSequence, gymnasium_cycle, latest_checkpoint, load_checkpoint
from sb3_nbsp.tasks.checkpoint import get_position, restore_position, save_checkpoint


def agent(env: Any = "Pendulum-v1") -> SAC:
    return SAC(
        "MlpPolicy",
        env,
        learning_starts=5,
        batch_size=4,
        buffer_size=100,
        policy_kwargs={"net_arch": [4]},
        seed=0,
        device="cpu",
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_only_the_last_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = agent()
    model.learn(70, SequenceCheckpoint(20, tmp_path, verbose=1))
    printed = capsys.readouterr().out
    assert [step for step in range(1, 71) if f"checkpoint_{step}_steps" in printed] == [20, 40, 60]
    assert names(tmp_path) == ["checkpoint_60_steps"]
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint == tmp_path / "checkpoint_60_steps"
    assert names(checkpoint) == ["model.zip", "random_states.pt", "replay_buffer.pkl"]


def test_model_and_buffer_are_of_the_same_step(tmp_path: Path) -> None:
    model = agent()
    model.learn(25, SequenceCheckpoint(25, tmp_path))
    assert latest_checkpoint(tmp_path) is None  # the next rollout, at whose start it is due, does not come
    model.learn(1, SequenceCheckpoint(25, tmp_path), reset_num_timesteps=False)
    assert latest_checkpoint(tmp_path) is None  # 25 steps since training started, not since step 0
    checkpoint = save_checkpoint(model, tmp_path)
    assert checkpoint.name == "checkpoint_26_steps"
    loaded = SAC.load(checkpoint / "model.zip", env=gym.make("Pendulum-v1"), device="cpu")
    loaded.load_replay_buffer(checkpoint / "replay_buffer.pkl")
    assert loaded.num_timesteps == 26
    assert loaded.replay_buffer.size() == 26
    np.testing.assert_array_equal(loaded.replay_buffer.observations, model.replay_buffer.observations)
    for name, value in model.policy.state_dict().items():
        assert th.equal(value, loaded.policy.state_dict()[name]), name


def test_without_a_replay_buffer_and_with_normalization(tmp_path: Path) -> None:
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    env.obs_rms.mean = np.array([1.0, 2.0, 3.0])
    model = PPO("MlpPolicy", env, policy_kwargs={"net_arch": [4]}, device="cpu")
    checkpoint = save_checkpoint(model, tmp_path)
    assert names(checkpoint) == ["model.zip", "random_states.pt", "vecnormalize.pkl"]
    loaded = VecNormalize.load(str(checkpoint / "vecnormalize.pkl"), DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    assert loaded.obs_rms.mean.tolist() == [1, 2, 3]


def test_latest_of_several(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "none" / "here") is None
    for name in ("checkpoint_900_steps", "checkpoint_1000_steps", "checkpoint_99_steps"):
        (tmp_path / name).mkdir()
    # A half-written one, and names that are not ours
    for name in (
        ".checkpoint_5000_steps",
        "checkpoint_best_steps",
        "checkpoint_6000_steps_old",
        "checkpoint_8000_steps_9_steps",
        "old_checkpoint_7000_steps",
    ):
        (tmp_path / name).mkdir()
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint_1000_steps"


def break_off(*_args: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("steps_later", [0, 7])
def test_killed_while_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps_later: int) -> None:
    model = agent()
    model.num_timesteps = 1000
    good = save_checkpoint(model, tmp_path)
    content = (good / "model.zip").read_bytes()
    model.num_timesteps += steps_later
    with monkeypatch.context() as patched:
        patched.setattr(model, "save_replay_buffer", break_off)  # the model is written, the buffer is not
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(model, tmp_path)
    # The one before is whole, and the half one is not taken for the latest
    assert latest_checkpoint(tmp_path) == good
    assert names(good) == ["model.zip", "random_states.pt", "replay_buffer.pkl"]
    assert (good / "model.zip").read_bytes() == content
    # The next one tidies up, whatever its step
    for step in (1000, 2000):
        model.num_timesteps = step
        save_checkpoint(model, tmp_path)
        assert names(tmp_path) == [f"checkpoint_{step}_steps"]


# Continuing


@pytest.fixture(autouse=True, scope="module")
def _short_pendulums() -> Any:
    for name in "AB":
        gym.register(f"Short{name}-v0", entry_point="gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=20)
    yield
    for name in "AB":
        gym.registry.pop(f"Short{name}-v0")


def cycle(tasks: str = "AB", cycles: int = 2) -> TaskSequence:
    return gymnasium_cycle([f"Short{name}-v0" for name in tasks], cycles=cycles, steps_per_task=60)


def small(cls: Any, env: Any, **options: Any) -> Any:
    return cls("MlpPolicy", env, policy_kwargs={"net_arch": [4]}, device="cpu", **options)


AGENTS: dict[type, dict[str, Any]] = {
    PPO: {"n_steps": 10, "batch_size": 10},
    SAC: {"learning_starts": 2000, "buffer_size": 500},
    P3O: {"n_steps": 10, "batch_size": 10, "reset_frequency": 50, "reset_rate": 0.5},
    ContinualSAC: {"learning_starts": 2000, "buffer_size": 500},
}


@pytest.mark.parametrize("cls", AGENTS)
def test_every_agent_continues_where_it_was(tmp_path: Path, cls: Any) -> None:
    small(cls, cycle(), **AGENTS[cls]).learn(151, SequenceCheckpoint(50, tmp_path))
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None and "position.json" in names(checkpoint)
    env = cycle()
    model = load_checkpoint(cls, checkpoint, env)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # SequenceCheckpoint has nothing to complain of
        warnings.filterwarnings("ignore", message=".* learns nothing in this call")  # it is to act at random only
        model.learn(10, SequenceCheckpoint(50, tmp_path), reset_num_timesteps=False)
    # At step 150 two phases of 60 steps and 30 of the third are over; the episode under way begins anew
    assert (env.phase, env.phase_steps) == (2, 40) and model.num_timesteps == 160
    if isinstance(model, SAC):
        assert model.replay_buffer.size() == (160 if cls is SAC else 40)


def test_sb3s_way_to_load_is_warned_about(tmp_path: Path) -> None:
    agent(cycle()).learn(151, SequenceCheckpoint(50, tmp_path))
    loaded = SAC.load(tmp_path / "checkpoint_150_steps" / "model.zip", env=cycle())
    with pytest.warns(UserWarning, match=r"was saved in phase 3 .* is in phase 1\. load_checkpoint\(SAC, "):
        loaded.learn(1, SequenceCheckpoint(50, tmp_path), reset_num_timesteps=False)


def test_a_sequence_that_is_over_stays_over(tmp_path: Path) -> None:
    model = agent(cycle(cycles=1))
    model.learn(120)
    env = cycle(cycles=1)
    load_checkpoint(SAC, save_checkpoint(model, tmp_path), env)
    assert env.sequence_over


@pytest.mark.parametrize("other", [lambda: cycle("BA"), lambda: cycle(cycles=3), lambda: gym.make("Pendulum-v1")])
def test_a_checkpoint_does_not_fit_every_environment(tmp_path: Path, other: Any) -> None:
    with pytest.raises(ValueError, match=r"^env"):
        load_checkpoint(SAC, save_checkpoint(agent(cycle()), tmp_path), other())


def test_each_of_several_environments_is_where_it_was() -> None:
    env = DummyVecEnv([cycle, cycle])
    first, second = get_position(env)["sequence"]
    position = {"sequence": [first, {**second, "phase": 1, "phase_steps": 3}]}
    restore_position(env, position)
    assert get_position(env) == position


def test_an_environment_that_changes_with_its_steps_is_as_old_as_it_was(tmp_path: Path) -> None:
    make = lambda: gym.make("CycleFriction-Hopper-v5", steps_per_friction=15)  # noqa: E731
    model = small(PPO, make(), n_steps=20, batch_size=20)
    model.learn(20)
    env = make()
    load_checkpoint(PPO, save_checkpoint(model, tmp_path), env)
    assert env.get_wrapper_attr("elapsed_steps") == 20 and env.get_wrapper_attr("friction") == 3
    with pytest.raises(ValueError, match="env must change with its steps"):
        load_checkpoint(PPO, tmp_path / "checkpoint_20_steps", gym.make("Hopper-v5"))


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no checkpoint: model\.zip is missing"):
        load_checkpoint(SAC, tmp_path, gym.make("Pendulum-v1"))


def test_what_stands_for_a_checkpoint_and_is_none(tmp_path: Path) -> None:
    nothing: Any = latest_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="there is none yet, so make a new agent"):
        load_checkpoint(SAC, nothing, gym.make("Pendulum-v1"))
    own = save_checkpoint(agent(), tmp_path)
    with pytest.raises(ValueError, match=re.escape(f"did you mean {own}, as latest_checkpoint() returns it?")):
        load_checkpoint(SAC, tmp_path, gym.make("Pendulum-v1"))


@pytest.mark.parametrize("wrapped", [False, True])
def test_normalization_is_restored(tmp_path: Path, wrapped: bool) -> None:
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    model = small(PPO, env, n_steps=10, batch_size=10)
    model.learn(10)
    fresh: Any = gym.make("Pendulum-v1")
    if wrapped:
        fresh = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]), clip_obs=3.0)
    loaded = load_checkpoint(PPO, save_checkpoint(model, tmp_path), fresh).get_vec_normalize_env()
    assert loaded is not None and loaded.clip_obs == (3.0 if wrapped else 10.0)
    np.testing.assert_array_equal(loaded.obs_rms.mean, env.obs_rms.mean)
    assert loaded.obs_rms.count == env.obs_rms.count and loaded.ret_rms.var == env.ret_rms.var


@pytest.mark.parametrize("save_freq", [0, -5])
def test_save_freq_out_of_range(tmp_path: Path, save_freq: int) -> None:
    with pytest.raises(ValueError, match=f"save_freq must be a whole number of at least 1, not {save_freq}"):
        SequenceCheckpoint(save_freq, tmp_path)


def _inside(kind: str, callback: SequenceCheckpoint) -> BaseCallback:
    if kind == "EveryNTimesteps":
        return EveryNTimesteps(20, callback)
    if kind == "a list":
        return EveryNTimesteps(20, CallbackList([callback]))
    return EvalCallback(make_vec_env("CartPole-v1"), n_eval_episodes=1, eval_freq=20, **{kind: callback})


@pytest.mark.parametrize("kind", ["EveryNTimesteps", "a list", "callback_after_eval", "callback_on_new_best"])
def test_inside_another_callback_it_saves_at_the_others_events(kind: str, tmp_path: Path) -> None:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, n_epochs=1, seed=0, device="cpu")
    model.learn(32, _inside(kind, SequenceCheckpoint(1, tmp_path)))
    assert names(tmp_path) == ["checkpoint_20_steps"]
