"""The losses of PPO and their gradients, with PyTorch's autograd."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from torch.nn import functional as F

from sb3_nbsp.interventions import Interventions


@dataclass(frozen=True)
class PPOObjective:
    """
    PPO's options at the time of an update, see :class:`stable_baselines3.PPO`.

    :param clip_range: ε
    :param clip_range_vf: how far a value may move; None for no limit
    :param ent_coef: weight of the entropy loss
    :param vf_coef: weight of the value loss
    :param normalize_advantage: whether advantages are normalized in each minibatch
    """

    clip_range: float
    clip_range_vf: float | None
    ent_coef: float
    vf_coef: float
    normalize_advantage: bool

    def advantages(self, batch: RolloutBufferSamples) -> th.Tensor:
        """
        :param batch: a minibatch of the rollout
        :return: A, normalized if that is wanted, shape (batch,)
        """
        advantages = batch.advantages
        if self.normalize_advantage and len(advantages) > 1:
            return (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        return advantages

    def clipped_values(self, values: th.Tensor, old_values: th.Tensor) -> th.Tensor:
        """
        :param values: values of the critic, shape (batch,)
        :param old_values: values of the critic during the rollout, shape (batch,)
        :return: values no further from the old ones than ``clip_range_vf``, shape (batch,)
        """
        if self.clip_range_vf is None:
            return values
        return old_values + th.clamp(values - old_values, -self.clip_range_vf, self.clip_range_vf)


class PPOGradients(ABC):
    r"""
    The loss of PPO on one minibatch after another: the clipped surrogate objective (P3O, equation 1), the value loss and the
    entropy bonus. With :math:`r = \pi(a \mid s) / \pi_{old}(a \mid s)`,

    .. math::
        L = \underbrace{-\frac{1}{B} \sum_i \min(A_i r_i, A_i \mathrm{clip}(r_i, 1 - \epsilon, 1 + \epsilon))}_{L_\pi}
        + c_v \underbrace{\frac{1}{B} \sum_i (V(s_i) - R_i)^2}_{L_V}
        + c_e \underbrace{\Bigl(-\frac{1}{B} \sum_i \mathcal{H}(\pi(\cdot \mid s_i))\Bigr)}_{L_e}
    """

    @abstractmethod
    def losses(self, batch: RolloutBufferSamples) -> dict[str, th.Tensor]:
        """
        :param batch: a minibatch of the rollout
        :return: what SB3 records, under its names, each without gradient and of shape (): the three losses, their
            weighted sum "loss", "approx_kl" and "clip_fraction"
        """

    @abstractmethod
    def backward(self) -> None:
        """Leave the gradients of the last :meth:`losses` in the parameters."""


class AutogradPPOGradients(PPOGradients):
    """
    For every policy and with every intervention: the operations of SB3's PPO, in its order.

    :param policy: the policy
    :param objective: PPO's options
    :param hooks: interventions, whose penalties are added to the loss
    """

    def __init__(self, policy: ActorCriticPolicy, objective: PPOObjective, hooks: Interventions) -> None:
        self._policy, self._objective, self._hooks = policy, objective, hooks
        self._is_discrete = isinstance(policy.action_space, spaces.Discrete)

    def losses(self, batch: RolloutBufferSamples) -> dict[str, th.Tensor]:
        """See :class:`PPOGradients`. With penalties, these are a part of "loss"."""
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
        if self._hooks.have_penalty():
            self._loss = self._loss + self._hooks.penalty("actor") + self._hooks.penalty("critic")

        with th.no_grad():
            approx_kl = th.mean((th.exp(log_ratio) - 1) - log_ratio)
            clip_fraction = th.mean((th.abs(ratio - 1) > clip_range).float())
        losses = {"policy_gradient_loss": policy_loss, "value_loss": value_loss, "entropy_loss": entropy_loss}
        records = {**losses, "loss": self._loss, "approx_kl": approx_kl, "clip_fraction": clip_fraction}
        return {name: value.detach() for name, value in records.items()}

    def backward(self) -> None:
        """See :class:`PPOGradients`."""
        self._policy.optimizer.zero_grad()
        self._loss.backward()
