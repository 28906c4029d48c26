"""Rollouts in which the actor alone acts, one observation at a time, and the critic looks at all of them afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_nbsp.interventions.mlp_actor_critic import MlpActorCritic, is_mlp_actor_critic

_BATCH = 512


@contextmanager
def deferred_values(policy: ActorCriticPolicy, buffer: RolloutBuffer, n_envs: int) -> Iterator[None]:
    """
    Within this context, ``policy(observations)`` returns actions of the actor, as before, but zeros for values and
    log-probabilities. These are computed in a few large batches and stored in the buffer when it is full, just before
    it computes its returns and advantages.

    So SB3's own loop collects the rollout. A callback that looks at its local variables ``values`` and ``log_probs`` in
    the midst of it sees zeros; when the rollout ends, the buffer is as it would be otherwise, up to rounding.

    :param policy: one of which :func:`~sb3_nbsp.interventions.mlp_actor_critic.is_mlp_actor_critic` is true
    :param buffer: SB3's rollout buffer
    :param n_envs: number of environments
    """
    networks = MlpActorCritic(policy)
    no_values, no_log_probs = th.zeros(n_envs, 1), th.zeros(n_envs)

    def act(observations: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        return networks.act(observations), no_values, no_log_probs

    def compute_returns_and_advantage(last_values: th.Tensor, dones: np.ndarray) -> None:
        evaluate_rollout(networks, buffer)
        RolloutBuffer.compute_returns_and_advantage(buffer, last_values, dones)

    policy.forward = act  # type: ignore[method-assign, assignment]
    buffer.compute_returns_and_advantage = compute_returns_and_advantage  # type: ignore[method-assign]
    try:
        yield
    finally:
        del policy.forward, buffer.compute_returns_and_advantage


@th.no_grad()
def evaluate_rollout(networks: MlpActorCritic, buffer: RolloutBuffer) -> None:
    """
    Store the values and log-probabilities of a rollout in its buffer.

    :param networks: the policy that acted
    :param buffer: SB3's rollout buffer, full; its returns and advantages have not been computed
    """
    observations = buffer.to_torch(buffer.observations.reshape(-1, *buffer.obs_shape), copy=False)
    actions = buffer.to_torch(buffer.actions.reshape(-1, buffer.action_dim), copy=False)
    values, log_probs = [], []
    for some, their_actions in zip(observations.split(_BATCH), actions.split(_BATCH), strict=True):
        inputs = networks.inputs(some)
        values.append(networks.critic.outputs(inputs))
        log_probs.append(networks.distribution.evaluate(networks.actor.outputs(inputs), their_actions)[0])
    for array, tensors in ((buffer.values, values), (buffer.log_probs, log_probs)):
        array[:] = th.cat(tensors).reshape(array.shape).cpu().numpy()


def can_defer_values(policy: ActorCriticPolicy, buffer: RolloutBuffer) -> bool:
    """
    :param policy: any policy
    :param buffer: any rollout buffer
    :return: whether :func:`deferred_values` can be used with them
    """
    return type(buffer) is RolloutBuffer and is_mlp_actor_critic(policy)
