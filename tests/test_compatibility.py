"""docs/compatibility.md: every cell that says so runs through a task boundary, or is refused before training begins."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv, FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

import sb3_nbsp
from sb3_nbsp.tasks import TaskSequence

PAGE = Path(__file__).parents[1] / "docs" / "compatibility.md"
STATES = ("✓", "✗", "?", "–")


def vectors(is_discrete: bool, horizon: int) -> gym.Env:
    return gym.make("CartPole-v1" if is_discrete else "Pendulum-v1", max_episode_steps=horizon)


def images(is_discrete: bool, horizon: int) -> gym.Env:
    return TimeLimit(FakeImageEnv(screen_height=36, screen_width=36, discrete=is_discrete), horizon)


def goals(is_discrete: bool, horizon: int) -> gym.Env:
    return BitFlippingEnv(4, continuous=not is_discrete, max_steps=horizon)


def vectors_and_images(is_discrete: bool, horizon: int) -> gym.Env:
    return TimeLimit(SimpleMultiObsEnv(discrete_actions=is_discrete), horizon)


DICTIONARY = {"policy": "MultiInputPolicy"}
# By feature: the tasks, options of the agent, and what an agent that lacks it names
FEATURES: dict[str, tuple[Callable[[bool, int], gym.Env], dict[str, Any], str]] = {
    "vectors": (vectors, {}, ""),
    "images": (images, {"policy": "CnnPolicy"}, "CnnPolicy"),
    "Dict": (goals, DICTIONARY, "MultiInputPolicy"),
    "Dict with images": (vectors_and_images, DICTIONARY, "MultiInputPolicy"),
    "HER": (goals, {**DICTIONARY, "replay_buffer_class": HerReplayBuffer}, "HerReplayBuffer"),
    "Discrete actions": (vectors, {}, "Discrete"),
    "gSDE": (vectors, {"use_sde": True}, "use_sde|gSDE"),
    "VecNormalize": (vectors, {}, "VecNormalize"),
    "several environments": (vectors, {}, "n_envs"),
    "n-step returns": (vectors, {"n_steps": 2}, "n_steps"),
    "recurrent policies": (vectors, {"policy": "MlpLstmPolicy"}, "MlpLstmPolicy"),
}
# So that methods act within a few steps
OPTIONS: dict[str, dict[str, Any]] = {
    "NBSPSAC": {"identification_steps": 20, "replay_interval": 2},
    "NBSPDiscreteSAC": {"identification_steps": 20, "replay_interval": 2},
    "SBPSAC": {"reset_frequency": 8, "reset_rate": 0.5, "distill_states": 16, "max_distill_epochs": 1},
    "SBPDiscreteSAC": {"reset_frequency": 8, "reset_rate": 0.5, "distill_states": 16, "max_distill_epochs": 1},
    "ReDoSAC": {"reset_frequency": 8, "reset_rate": 0.5, "redo_states": 16},
    "P3O": {"reset_frequency": 8, "reset_rate": 0.5, "max_distill_epochs": 1},
    "CBPSAC": {"replacement_rate": 0.1, "maturity_threshold": 2},
    "CBPPPO": {"replacement_rate": 0.1, "maturity_threshold": 2},
    "EWCSAC": {"fisher_states": 8},
    "ANCLSAC": {"fisher_states": 8, "aux_fisher_states": 8},
    "ClonExSAC": {"clone_batch_size": 8, "best_return_exploration": True},
    "NPCSAC": {"npc_clock": "phases"},
    "PackNetSAC": {"retrain_steps": 2},
    "PackNetDiscreteSAC": {"retrain_steps": 2},
    "CoTASPSAC": {"distill_steps": 2, "lasso_weight": 1e-5},
}


def table() -> dict[str, dict[str, str]]:
    """By agent and feature, the cell."""
    lines = [line.strip("| ").split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    (_, *features), _, *rows = lines
    return {name.strip("`"): dict(zip(features, cells, strict=True)) for name, *cells in rows}


CELLS = [(agent, feature, state) for agent, row in table().items() for feature, state in row.items()]


def test_the_table_is_whole() -> None:
    assert all(list(row) == list(FEATURES) for row in table().values())
    assert {state for _, _, state in CELLS} <= set(STATES)
    assert set(OPTIONS) <= set(table())


def make(agent: str, feature: str) -> Any:
    cls = getattr(sb3_nbsp, agent)
    make_task, options, _ = FEATURES[feature]
    is_discrete = feature == "Discrete actions" or issubclass(cls, sb3_nbsp.ContinualDiscreteSAC)
    makers = {f"{horizon} steps": partial(make_task, is_discrete, horizon) for horizon in (6, 7)}

    def sequence() -> TaskSequence:
        with_mode = {name: lambda render_mode=None, make=maker: make() for name, maker in makers.items()}
        return TaskSequence(with_mode, cycles=1, steps_per_task=14, mastery_threshold=None)

    env: VecEnv = DummyVecEnv([sequence] * (2 if feature == "several environments" else 1))
    if feature == "VecNormalize":
        env = VecNormalize(env)
    policy_kwargs: dict[str, Any] = {"net_arch": [16]}
    if feature == "images":
        policy_kwargs["features_extractor_kwargs"] = {"features_dim": 16}
    if feature == "Dict with images":
        policy_kwargs["features_extractor_kwargs"] = {"cnn_output_dim": 16}
    if issubclass(cls, sb3_nbsp.ContinualPPO):
        small: dict[str, Any] = {"n_steps": 8, "batch_size": 8, "n_epochs": 1}
    else:
        small = {"buffer_size": 100, "learning_starts": 8, "batch_size": 4, "train_freq": 2}
    small.update(policy="MlpPolicy", policy_kwargs=policy_kwargs, seed=0, device="cpu")
    return cls(env=env, **{**small, **OPTIONS.get(agent, {}), **options})


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("agent", "feature"), [(agent, feature) for agent, feature, state in CELLS if state == "✓"])
def test_what_is_tested(agent: str, feature: str) -> None:
    model = make(agent, feature).learn(200)
    assert model.n_finished_phases == 2 and model._n_updates > 0
    assert all(tensor.isfinite().all() for tensor in model.policy.state_dict().values())


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("agent", "feature"), [(agent, feature) for agent, feature, state in CELLS if state == "✗"])
def test_what_is_refused(agent: str, feature: str) -> None:
    made: list[Any] = []
    with pytest.raises((ValueError, AssertionError), match=FEATURES[feature][2]):
        made.append(make(agent, feature))
        made[0].learn(200)
    assert not made or made[0].num_timesteps == 0
