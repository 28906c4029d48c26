"""Observations that an agent has been trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_nbsp.batches import ArrayObs, apply, take
from sb3_nbsp.interventions.task_memory import StoredTransitions
from sb3_nbsp.messages import warn

if TYPE_CHECKING:
    from sb3_nbsp.interventions.base import Intervention


def has_observations(agent: BaseAlgorithm) -> bool:
    """
    :param agent: any agent
    :return: whether its buffer has at least one step; it has none before training, when a phase has just begun, and where a
        callback stopped a rollout at its first step
    """
    return _buffer(agent).size() > 0


def training_observations(agent: BaseAlgorithm, n_states: int, seed: int) -> PyTorchObs:
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
        observations = buffer.observations if buffer.full else take(buffer.observations, slice(buffer.pos))
        flat: PyTorchObs = apply(lambda part, shape: buffer.to_torch(part.reshape(-1, *shape)), observations, buffer.obs_shape)
        return flat
    generator = np.random.default_rng(seed)
    rows = generator.integers(buffer.size(), size=n_states)
    envs = generator.integers(buffer.n_envs, size=n_states)
    return as_seen(agent, take(buffer.observations, (rows, envs)))  # type: ignore[arg-type]


def can_sample(buffer: ReplayBuffer) -> bool:
    """
    :param buffer: any replay buffer
    :return: whether it can draw a batch; HER draws from episodes that have ended
    """
    has_ended = not isinstance(buffer, HerReplayBuffer) or bool((buffer.ep_length > 0).any())
    return buffer.size() > 0 and has_ended


def phase_transitions(agent: OffPolicyAlgorithm, n: int, seed: int, window: int | None = None) -> dict[str, Any]:
    """
    Transitions of the phase that the agent is in.

    :param agent: an agent that follows phases
    :param n: how many to draw, without replacement; fewer if there are not as many
    :param seed: seed of the draw
    :param window: draw from so many of the phase's last transitions; None for all
    :return: by name of a field, as the replay buffer holds them, each of shape (transitions, ...) or a dictionary of
        such
    :raises ValueError: if the replay buffer has none of the phase's transitions any more
    """
    buffer = agent.replay_buffer
    assert buffer is not None
    of_phase: int = agent.phase_steps  # type: ignore[attr-defined]
    stored = StoredTransitions(buffer, of_phase if window is None else min(window, of_phase))
    if len(stored) == 0:
        raise ValueError(
            "The replay buffer has no transitions of the phase that is over: it was emptied too early, or the agent was "
            "loaded without it (load_replay_buffer())"
        )
    return stored.take(np.random.default_rng(seed).permutation(len(stored))[:n])


def as_seen(agent: OffPolicyAlgorithm, observations: ArrayObs) -> PyTorchObs:
    """
    :param agent: an agent with a replay buffer
    :param observations: as the buffer holds them, shape (states, ...)
    :return: normalized as in training, on the agent's device
    """
    assert agent.replay_buffer is not None
    buffer = agent.replay_buffer
    seen: PyTorchObs = apply(buffer.to_torch, buffer._normalize_obs(observations, agent.get_vec_normalize_env()))
    return seen


def warn_if_observations_move(intervention: Intervention) -> None:
    """
    Warn if the statistics of a ``VecNormalize`` go on changing.

    :param intervention: one that keeps parameters of earlier tasks, or holds them in place
    """
    normalizer = intervention.agent.get_vec_normalize_env()
    if normalizer is not None and normalizer.norm_obs and normalizer.training:
        warn(
            f"{type(intervention).__name__} holds parameters in place, but VecNormalize keeps changing the observations that "
            "they read: the policy forgets all the same. Use VecNormalize(training=False), or none"
        )


def _buffer(agent: BaseAlgorithm) -> RolloutBuffer | ReplayBuffer:
    if isinstance(agent, OnPolicyAlgorithm):
        return agent.rollout_buffer
    assert isinstance(agent, OffPolicyAlgorithm) and agent.replay_buffer is not None
    return agent.replay_buffer
