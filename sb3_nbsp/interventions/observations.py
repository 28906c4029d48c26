"""Observations that an agent has been trained on."""

from __future__ import annotations

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_nbsp.interventions.task_memory import StoredTransitions


def has_observations(agent: BaseAlgorithm) -> bool:
    """
    :param agent: any agent
    :return: whether its buffer has at least one step; it has none before training, when a phase has just begun, and where a
        callback stopped a rollout at its first step
    """
    return _buffer(agent).size() > 0


def training_observations(agent: BaseAlgorithm, n_states: int, seed: int) -> th.Tensor:
    """
    :param agent: an agent that has collected experience
    :param n_states: how many observations to draw from a replay buffer, with replacement; of a rollout, all are taken
        that there are: fewer than usual where a callback stopped it
    :param seed: seed of the draw
    :return: observations, normalized as in training, shape (states, ...)
    :raises ValueError: if there is none
    """
    buffer = _buffer(agent)
    if buffer.size() == 0:
        raise ValueError(f"The buffer of this {type(agent).__name__} is empty: there are no observations to look at")
    if isinstance(buffer, RolloutBuffer):
        # What has not been filled is zeros; a rollout that was trained on is full, and has its environments one after another
        observations = buffer.observations if buffer.full else buffer.observations[: buffer.pos]
        return buffer.to_torch(observations.reshape(-1, *buffer.obs_shape))
    generator = np.random.default_rng(seed)
    rows = generator.integers(buffer.size(), size=n_states)
    envs = generator.integers(buffer.n_envs, size=n_states)
    observations = buffer._normalize_obs(buffer.observations[rows, envs], agent.get_vec_normalize_env())  # type: ignore[assignment]
    return buffer.to_torch(observations)


def phase_states(agent: OffPolicyAlgorithm, n_states: int, window: int, seed: int) -> tuple[th.Tensor, th.Tensor]:
    """
    States of the phase that the agent is in, and what it did in them.

    :param agent: an agent that follows phases
    :param n_states: how many to draw, without replacement; fewer if there are not as many
    :param window: draw from so many of the phase's last transitions
    :param seed: seed of the draw
    :return: observations, normalized as in training, shape (states, ...), and actions as the replay buffer holds them, shape
        (states, actions)
    :raises ValueError: if the replay buffer has none of the phase's transitions any more
    """
    buffer = agent.replay_buffer
    assert buffer is not None
    stored = StoredTransitions(buffer, min(window, agent.phase_steps))  # type: ignore[attr-defined]
    if len(stored) == 0:
        raise ValueError(
            "The replay buffer has no transitions of the phase that is over: it was emptied too early, or the agent was "
            "loaded without it (load_replay_buffer())"
        )
    rows = np.random.default_rng(seed).permutation(len(stored))[:n_states]
    found = stored.take(rows)
    observations = buffer._normalize_obs(found["observations"], agent.get_vec_normalize_env())
    return buffer.to_torch(observations), buffer.to_torch(found["actions"])  # type: ignore[arg-type]


def _buffer(agent: BaseAlgorithm) -> RolloutBuffer | ReplayBuffer:
    if isinstance(agent, OnPolicyAlgorithm):
        return agent.rollout_buffer
    assert isinstance(agent, OffPolicyAlgorithm) and agent.replay_buffer is not None
    return agent.replay_buffer
