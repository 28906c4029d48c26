"""The losses of PPO and their gradients, with PyTorch's autograd."""

from __future__ import annotations

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from torch.nn import functional as F
from typing_extensions import override

from sb3_nbsp.fast.ppo_gradients import PPOGradients, PPOObjective
from sb3_nbsp.interventions import Interventions


class AutogradPPOGradients(PPOGradients):
    """
    For every policy and with every intervention: the operations of SB3's PPO, in its order.

    :param policy: the policy
    :param objective: PPO's options
    :param interventions: those of the agent, whose penalties are added to the loss
    """

    def __init__(self, policy: ActorCriticPolicy, objective: PPOObjective, interventions: Interventions) -> None:
        self._policy, self._objective, self._interventions = policy, objective, interventions
        self._is_discrete = isinstance(policy.action_space, spaces.Discrete)

    @override
    def losses(self, batch: RolloutBufferSamples) -> dict[str, th.Tensor]:
        # With penalties, these are a part of "loss"
        objective, clip_range = self._objective, self._objective.clip_range
        # Actions of a discrete space are stored as floats
        actions = batch.actions.long().flatten() if self._is_discrete else batch.actions
        values, log_prob, entropy = self._policy.evaluate_actions(batch.observations, actions)
        advantages = objective.advantages(batch)

        log_ratio = log_prob - batch.old_log_prob
        ratio = th.exp(log_ratio)
        clipped = advantages * th.clamp(ratio, 1 - clip_range, 1 + clip_range)
        policy_loss = -th.min(advantages * ratio, clipped).mean()
        value_loss = F.mse_loss(batch.returns, objective.clipped_values(values.flatten(), batch.old_values))
        # Without a closed form of the entropy, an estimate
        entropy_loss = -th.mean(-log_prob) if entropy is None else -th.mean(entropy)
        self._loss = policy_loss + objective.ent_coef * entropy_loss + objective.vf_coef * value_loss
        if self._interventions.have_penalty():
            self._loss = self._loss + self._interventions.penalty("actor") + self._interventions.penalty("critic")

        with th.no_grad():
            approx_kl = th.mean((th.exp(log_ratio) - 1) - log_ratio)
            clip_fraction = th.mean((th.abs(ratio - 1) > clip_range).float())
        losses = {"policy_gradient_loss": policy_loss, "value_loss": value_loss, "entropy_loss": entropy_loss}
        records = {**losses, "loss": self._loss, "approx_kl": approx_kl, "clip_fraction": clip_fraction}
        return {name: value.detach() for name, value in records.items()}

    @override
    def backward(self) -> None:
        self._policy.optimizer.zero_grad()
        self._loss.backward()
