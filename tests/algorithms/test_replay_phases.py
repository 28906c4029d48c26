"""Buffers with state of their own at a phase start; the entropy coefficient of a file; how often target critics move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC, HerReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv
from tagged_tasks import TaggedTask, differing, parameters, tagged_sequence, tiny

from sb3_nbsp import ContinualSAC, PerfectMemorySAC
from sb3_nbsp.interventions import Intervention
from sb3_nbsp.tasks import TaskSequence


class Goal(gym.Env):
    """Every observation and goal is the tag of the task."""

    box = spaces.Box(-10, 10, (1,), np.float32)
    observation_space = spaces.Dict({"observation": box, "achieved_goal": box, "desired_goal": box})
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, tag: float, horizon: int = 10, render_mode: str | None = None) -> None:
        self.tag, self.horizon, self.render_mode = tag, horizon, render_mode

    def _observe(self) -> dict[str, np.ndarray]:
        return {name: np.full(1, self.tag, np.float32) for name in self.observation_space}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self._observe(), 0.0, False, self.t >= self.horizon, {}


class Goals(TaskSequence):
    def __init__(self, horizon: int = 10) -> None:
        makers = {name: lambda render_mode=None, tag=tag: Goal(tag, horizon) for name, tag in (("a", 1.0), ("b", 2.0))}
        super().__init__(makers, cycles=2, steps_per_task=60)

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> np.ndarray:
        return np.zeros(len(achieved), np.float32)


class OwnBuffer(ReplayBuffer):
    """Remembers its transitions twice, as a prioritized buffer has a tree beside its arrays."""

    def __init__(self, *args: Any, flavour: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.flavour, self.order = flavour, []

    def add(self, obs: np.ndarray, *args: Any) -> None:
        super().add(obs, *args)
        self.order.append(float(obs[0, 0]))


class Watch(Intervention):
    """The tags of all batches, by phase."""

    def attach(self, agent: Any) -> None:
        super().attach(agent)
        self._tags: dict[int, set[float]] = {}
        buffer = agent.replay_buffer
        sample = buffer.sample

        def watched(*args: Any, **kwargs: Any) -> Any:
            batch = sample(*args, **kwargs)
            observations = batch.observations
            tags = observations["observation"] if isinstance(observations, dict) else observations[:, 0]
            self._tags.setdefault(agent.phase.index, set()).update(np.unique(tags.numpy()).tolist())
            return batch

        buffer.sample = watched

    @property
    def tags(self) -> dict[int, set[float]]:
        return self._tags


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("warmup", [0, 15])
def test_hindsight_replay_draws_from_one_task_only(n_envs: int, warmup: int) -> None:
    watch = Watch()
    env = DummyVecEnv([Goals] * n_envs)
    options = {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": {"n_sampled_goal": 2}, "batch_size": 8}
    agent = tiny(ContinualSAC, env, policy="MultiInputPolicy", interventions=[watch], phase_learning_starts=warmup, **options)
    agent.learn(10_000)
    assert watch.tags == {0: {1.0}, 1: {2.0}, 2: {1.0}, 3: {2.0}}
    assert agent.replay_buffer.n_sampled_goal == 2 and agent.num_timesteps == 240 * n_envs


def test_a_buffer_of_the_users_is_made_anew() -> None:
    options = {"replay_buffer_class": OwnBuffer, "replay_buffer_kwargs": {"flavour": "sweet"}}
    agent = tiny(ContinualSAC, tagged_sequence(cycles=1), **options)
    buffer = agent.replay_buffer
    agent.learn(70)
    assert agent.replay_buffer is buffer and buffer.order == [2.0] * 10 and buffer.size() == 10
    assert (buffer.flavour, buffer.buffer_size) == ("sweet", 1000)


# The entropy coefficient


@pytest.mark.parametrize(("saved", "given"), [("auto", 0.1), (0.1, "auto")])
@pytest.mark.parametrize("of", [ContinualSAC, SAC])
def test_another_kind_of_entropy_coefficient_at_loading(tmp_path: Path, of: type, saved: Any, given: Any) -> None:
    tiny(of, TaggedTask(1.0), ent_coef=saved).save(tmp_path / "model")
    kinds = ("learned", "fixed") if saved == "auto" else ("fixed", "learned")
    message = (
        rf"ent_coef: the saved entropy coefficient is {kinds[0]}, that of this agent is {kinds[1]} \(ent_coef={given!r}\)"
    )
    with pytest.raises(ValueError, match=message):
        ContinualSAC.load(tmp_path / "model", ent_coef=given)


# The target critics


def moves_of_targets(cls: type, gradient_steps: int, interval: int, steps: int) -> list[bool]:
    """By gradient step, whether the target critics moved, for calls of train() with so many of them."""
    options = {"target_update_interval": interval, "tau": 1.0, "gradient_steps": gradient_steps, "learning_rate": 1e-3}
    agent: Any = tiny(cls, TaggedTask(1.0), **options)
    agent.learn(20)
    moved = []
    for _ in range(steps // gradient_steps):
        before = parameters(agent)
        agent.train(gradient_steps, 16)
        moved.append(any("target" in name for name in differing(before, parameters(agent))))
    return moved


def test_the_interval_of_the_target_critics_counts_over_the_agents_life() -> None:
    assert moves_of_targets(ContinualSAC, 1, 4, 9) == [True, False, False, False, True, False, False, False, True]
    assert moves_of_targets(SAC, 1, 4, 9) == [True] * 9  # SB3 counts anew in every call
    assert moves_of_targets(ContinualSAC, 2, 5, 12) == [True, False, True, False, False, True]


STORED_ONCE = {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}}


@pytest.mark.parametrize("options", [{"n_steps": 3}, STORED_ONCE], ids=["n-step returns", "observations stored once"])
def test_no_transition_of_a_kept_buffer_goes_on_in_the_next_task(options: dict[str, Any]) -> None:
    """Environments that wait for others store nothing: the last transition of the second one is in the midst of an episode."""
    env = DummyVecEnv([lambda each=each: tagged_sequence(horizon=each) for each in (10, 7)])  # type: ignore[misc]
    agent = tiny(PerfectMemorySAC, env, buffer_size=10_000, **options)
    agent.learn(2 * 100)
    buffer = agent.replay_buffer
    assert set(buffer.observations[: buffer.pos, 1, 0]) == {1.0, 2.0}
    batch = buffer._get_samples(np.repeat(np.arange(buffer.pos), 20))
    crosses = batch.observations[:, 0] != batch.next_observations[:, 0]
    # SB3 keeps no last observation of an episode where each is stored once: such a transition counts as the end
    assert not (crosses & (batch.dones[:, 0] == 0)).any()
    assert crosses.any() == (options is STORED_ONCE)


# Penalties


class Weighted(Intervention):
    def __init__(self, weight: float) -> None:
        self.weight = weight

    def has_penalty(self) -> bool:
        return self.weight > 0

    def penalty(self, network: Any) -> th.Tensor | None:
        return self.weight * sum((p**2).sum() for p in getattr(self.agent, network).parameters())  # type: ignore[attr-defined]


def test_a_penalty_of_weight_zero_leaves_the_gradients_by_hand() -> None:
    agents = [tiny(ContinualSAC, TaggedTask(1.0), interventions=[Weighted(weight)]) for weight in (0.0, 1.0)]
    assert [agent._is_by_hand() for agent in agents] == [True, False]
    for agent in agents:
        agent.learn(30)
    plain = tiny(ContinualSAC, TaggedTask(1.0))
    plain.learn(30)
    assert differing(parameters(plain), parameters(agents[0])) == []
    assert differing(parameters(plain), parameters(agents[1])) != []
