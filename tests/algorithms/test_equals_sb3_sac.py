"""Without a phase boundary, ContinualSAC and NBSPSAC are SB3's SAC."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tagged_tasks import ImageTask, differing, parameters, random_states, tagged_sequence, tiny

from sb3_nbsp import NBSPSAC, ContinualSAC

Method = tuple[type, dict[str, Any]]
CONTINUAL: Method = (ContinualSAC, {})
NBSP: Method = (NBSPSAC, {})
NBSP_WITHOUT_MEMORY: Method = (NBSPSAC, {"replay": False})  # the memory refuses n_steps > 1


def pendulum() -> gym.Env:
    """Of short episodes, so that some end within a few steps."""
    return gym.make("Pendulum-v1", max_episode_steps=25)


def two_pendulums() -> DummyVecEnv:
    return DummyVecEnv([pendulum, pendulum])


def normalized_pendulum() -> VecNormalize:
    return VecNormalize(DummyVecEnv([pendulum]))


def two_normalized_pendulums() -> VecNormalize:
    return VecNormalize(two_pendulums(), norm_reward=False)


def one_task() -> gym.Env:
    return tagged_sequence(["red"], cycles=1, steps_per_task=10_000, mastery_threshold=None)


def hopper() -> gym.Env:
    return gym.make("Hopper-v5")


SHARED = {"net_arch": [8, 8], "share_features_extractor": True}
CNN = {
    "policy": "CnnPolicy",
    "policy_kwargs": {"net_arch": [8], "features_extractor_kwargs": {"features_dim": 16}},
    "buffer_size": 100,
    "batch_size": 4,
}
CNN_SHARED = {**CNN, "policy_kwargs": {**CNN["policy_kwargs"], "share_features_extractor": True}}  # type: ignore[dict-item]
# Name: environment, environment steps, options
CASES: dict[str, tuple[Callable[[], Any], int, dict[str, Any]]] = {
    "default": (pendulum, 60, {}),
    "sequence of one task": (one_task, 60, {}),
    "Hopper": (hopper, 60, {}),
    "two environments": (two_pendulums, 60, {"gradient_steps": 2}),
    "n-step returns": (pendulum, 60, {"n_steps": 3}),
    "gSDE": (pendulum, 60, {"use_sde": True, "sde_sample_freq": 4}),
    "gSDE from the start": (pendulum, 60, {"use_sde": True, "use_sde_at_warmup": True}),
    "fixed entropy coefficient": (pendulum, 60, {"ent_coef": 0.1}),
    "initial entropy coefficient": (pendulum, 60, {"ent_coef": "auto_0.1", "target_entropy": -0.5}),
    "VecNormalize": (normalized_pendulum, 60, {}),
    "VecNormalize, two environments": (two_normalized_pendulums, 60, {"train_freq": 2, "gradient_steps": -1}),
    "target_update_interval": (pendulum, 60, {"target_update_interval": 2, "gradient_steps": 2}),
    "train_freq": (pendulum, 60, {"train_freq": 2, "gradient_steps": 2}),
    "episodes": (pendulum, 60, {"train_freq": (1, "episode"), "gradient_steps": 20}),
    "shared features extractor": (pendulum, 60, {"policy_kwargs": SHARED}),
    "three critics": (pendulum, 60, {"policy_kwargs": {"net_arch": {"pi": [8], "qf": [8, 4]}, "n_critics": 3}}),
    "schedule": (pendulum, 60, {"learning_rate": lambda remaining: 1e-3 * remaining}),
    "memory optimized": (
        pendulum,
        60,
        {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}, "buffer_size": 40},
    ),
    "action noise": (pendulum, 60, {"action_noise": NormalActionNoise(np.zeros(1), 0.1 * np.ones(1))}),
    "wrapped-around buffer": (pendulum, 60, {"buffer_size": 40}),
    "RMSprop": (pendulum, 60, {"policy_kwargs": {"net_arch": [8], "optimizer_class": th.optim.RMSprop}}),
    "images": (ImageTask, 26, CNN),
    "images, shared extractor": (ImageTask, 26, CNN_SHARED),
}


def method_of(name: str) -> Method:
    return NBSP_WITHOUT_MEMORY if name == "n-step returns" else NBSP


def run(method: Method, make_env: Callable[[], Any], steps: int, **kwargs: Any) -> tuple[Any, tuple[Any, ...]]:
    """Train; also return where the global random streams are afterwards."""
    cls, options = method
    agent = tiny(cls, make_env(), **kwargs, **options)
    agent.learn(steps)
    return agent, (*random_states(), random.getstate())


@pytest.mark.parametrize("name", CASES)
def test_bit_for_bit_without_fused_kernels(name: str) -> None:
    make_env, steps, kwargs = CASES[name]
    theirs, random_theirs = run((SAC, {}), make_env, steps, **kwargs)
    assert theirs._n_updates >= {60: 40, 26: 6}[steps]
    for cls, options in (CONTINUAL, method_of(name)):
        ours, random_ours = run((cls, {**options, "fused": False}), make_env, steps, **kwargs)
        assert (ours._n_updates, ours.num_timesteps) == (theirs._n_updates, theirs.num_timesteps)
        assert differing(parameters(theirs), parameters(ours)) == []
        assert random_theirs == random_ours
        np.testing.assert_array_equal(ours.replay_buffer.observations, theirs.replay_buffer.observations)
        np.testing.assert_array_equal(ours.replay_buffer.actions, theirs.replay_buffer.actions)


def test_the_comparison_can_fail() -> None:
    """Another learning rate of the critics is seen in every network."""
    theirs, _ = run((SAC, {}), pendulum, 40)
    ours, _ = run((ContinualSAC, {"fused": False, "qf_learning_rate": 1e-3}), pendulum, 40)
    changed = differing(parameters(theirs), parameters(ours))
    assert any(name.startswith("critic.") for name in changed) and any(name.startswith("actor.") for name in changed)


def test_learning_rate_of_the_critics() -> None:
    """Equal to learning_rate it changes nothing; 0 leaves the critics where they were, and only those."""
    theirs, _ = run((SAC, {}), pendulum, 40)
    same, _ = run((ContinualSAC, {"fused": False, "qf_learning_rate": 3e-3}), pendulum, 40)
    assert differing(parameters(theirs), parameters(same)) == []
    start = parameters(tiny(ContinualSAC, pendulum()))
    still, _ = run((ContinualSAC, {"qf_learning_rate": 0.0}), pendulum, 40)
    changed = differing(start, parameters(still))
    assert changed and not any(name.startswith("critic.") for name in changed)  # (targets: rounding)
    schedule, _ = run((ContinualSAC, {"qf_learning_rate": lambda remaining: 0.5 * remaining}), pendulum, 40)
    rate = schedule.critic.optimizer.param_groups[0]["lr"]
    assert rate == pytest.approx(0.0, abs=0.5 / 40) and schedule.actor.optimizer.param_groups[0]["lr"] == 3e-3


class DoubleExtractor(FlattenExtractor):
    """SB3 hands observations over in single precision."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return super().forward(observations.double())


@pytest.fixture
def double_precision() -> Iterator[None]:
    before = th.get_default_dtype()
    th.set_default_dtype(th.float64)
    try:
        yield
    finally:
        th.set_default_dtype(before)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", ["default", "two environments", "n-step returns", "gSDE", "fixed entropy coefficient"])
def test_fused_kernels_change_rounding_only(name: str) -> None:
    make_env, _, kwargs = CASES[name]
    kwargs = {**kwargs, "policy_kwargs": {"net_arch": [8, 8], "features_extractor_class": DoubleExtractor}}
    start = parameters(tiny(SAC, make_env(), **kwargs))
    theirs, _ = run((SAC, {}), make_env, 40, **kwargs)
    assert theirs._n_updates >= 20 and not theirs.actor.optimizer.param_groups[0]["fused"]
    expected = parameters(theirs)
    for method in (CONTINUAL, method_of(name)):
        ours, _ = run(method, make_env, 40, **kwargs)
        assert ours._n_updates == theirs._n_updates and ours.actor.optimizer.param_groups[0]["fused"]
        actual = parameters(ours)
        for key, tensor in expected.items():
            assert tensor.dtype == th.float64
            assert (tensor - actual[key]).abs().max() < 1e-9, key
    moved = [(tensor - start[key]).abs().max().item() for key, tensor in expected.items()]
    assert np.median(moved) > 1e-3  # otherwise 1e-9 means nothing
