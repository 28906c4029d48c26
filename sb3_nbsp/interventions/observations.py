"""Observations that an agent has been trained on."""

from __future__ import annotations

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm


def training_observations(agent: BaseAlgorithm, n_states: int, seed: int) -> th.Tensor:
    """
    :param agent: an agent that has collected experience
    :param n_states: how many observations to draw from a replay buffer, with replacement; of a rollout, all are taken
    :param seed: of the draw
    :return: observations, normalized as in training, shape (states, ...)
    """
    if isinstance(agent, OnPolicyAlgorithm):
        rollout = agent.rollout_buffer
        return rollout.to_torch(rollout.observations.reshape(-1, *rollout.obs_shape))
    assert isinstance(agent, OffPolicyAlgorithm) and agent.replay_buffer is not None
    buffer, generator = agent.replay_buffer, np.random.default_rng(seed)
    rows = generator.integers(buffer.size(), size=n_states)
    envs = generator.integers(buffer.n_envs, size=n_states)
    observations = buffer._normalize_obs(buffer.observations[rows, envs], agent.get_vec_normalize_env())
    assert isinstance(observations, np.ndarray)
    return buffer.to_torch(observations)
