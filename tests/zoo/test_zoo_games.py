"""Hyperparameters of the discrete agents on sequences of games."""

import gymnasium as gym
import pytest

from sb3_nbsp.benchmark.settings import Settings
from sb3_nbsp.interventions import CompressedReplayBuffer
from sb3_nbsp.tasks.registration import game_sequences
from sb3_nbsp.zoo.algos import algorithm, read_hyperparams

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
        assert found["n_timesteps"] == 2 * len(kwargs["tasks"]) * kwargs["steps_per_task"]
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
