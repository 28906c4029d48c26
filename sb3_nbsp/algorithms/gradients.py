"""The losses of SAC and their gradients, with PyTorch's autograd."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch as th
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.sac.policies import Actor, ContinuousCritic
from torch.nn import functional as F

from sb3_nbsp.interventions import Interventions


class SACGradients(ABC):
    """The losses of SAC on one batch after another. For each, the methods are called in the order in which they stand here."""

    @abstractmethod
    def sample_actions(self, data: ReplayBufferSamples) -> th.Tensor:
        """
        Let the policy act on the observations of a batch; :meth:`actor_loss` uses these actions.

        :param data: the batch
        :return: log-probability of the actions, shape (batch, 1)
        """

    @abstractmethod
    def ent_coef_loss(self, log_ent_coef: th.Tensor, log_prob: th.Tensor, target_entropy: float) -> th.Tensor:
        r"""
        Loss of the entropy coefficient, whose gradient it leaves in ``log_ent_coef``:

        .. math:: -\log \alpha \, \frac{1}{B} \sum_i \left[ \log \pi(a_i \mid s_i) + \bar{\mathcal{H}} \right]

        :param log_ent_coef: :math:`\log \alpha`, shape (1,)
        :param log_prob: what :meth:`sample_actions` returned, shape (batch, 1)
        :param target_entropy: :math:`\bar{\mathcal{H}}`, in nats
        :return: without gradient, shape ()
        """

    @abstractmethod
    def next_values(self, data: ReplayBufferSamples, ent_coef: th.Tensor) -> th.Tensor:
        r"""
        Soft value of the next observations, with actions of the policy:

        .. math:: \min_j Q'_j(s', a') - \alpha \log \pi(a' \mid s')

        :param data: the batch
        :param ent_coef: :math:`\alpha`, shape (), (1,) or (batch, 1)
        :return: without gradient, shape (batch, 1)
        """

    @abstractmethod
    def critic_loss(self, data: ReplayBufferSamples, target_q_values: th.Tensor) -> th.Tensor:
        """
        Loss of the critics, whose gradient it leaves in the critics' parameters.

        :param data: the batch
        :param target_q_values: shape (batch, 1)
        :return: without gradient, shape ()
        """

    @abstractmethod
    def actor_loss(self, data: ReplayBufferSamples, ent_coef: th.Tensor) -> th.Tensor:
        """
        Loss of the actor, whose gradient it leaves in the actor's parameters; those of the critics stay as they are.

        :param data: the batch
        :param ent_coef: entropy coefficient, shape (), (1,) or (batch, 1)
        :return: without gradient, shape ()
        """


class AutogradGradients(SACGradients):
    """
    For every policy and with every intervention: the operations of SB3's SAC, in its order.

    :param actor: the policy
    :param critic: the critics
    :param critic_target: the target critics
    :param hooks: interventions, whose penalties are added to the losses
    """

    def __init__(self, actor: Actor, critic: ContinuousCritic, critic_target: ContinuousCritic, hooks: Interventions) -> None:
        self._actor, self._critic, self._critic_target, self._hooks = actor, critic, critic_target, hooks
        groups = actor.optimizer.param_groups
        self._actor_parameters = [p for group in groups for p in group["params"] if p.requires_grad]

    def sample_actions(self, data: ReplayBufferSamples) -> th.Tensor:
        """See :class:`SACGradients`."""
        self._actions_pi, log_prob = self._actor.action_log_prob(data.observations)
        self._log_prob = log_prob.reshape(-1, 1)
        return self._log_prob

    def ent_coef_loss(self, log_ent_coef: th.Tensor, log_prob: th.Tensor, target_entropy: float) -> th.Tensor:
        """See :class:`SACGradients`."""
        log_ent_coef.grad = None
        loss = -(log_ent_coef * (log_prob + target_entropy).detach()).mean()
        loss.backward()
        return loss.detach()

    def next_values(self, data: ReplayBufferSamples, ent_coef: th.Tensor) -> th.Tensor:
        """See :class:`SACGradients`."""
        with th.no_grad():
            next_actions, next_log_prob = self._actor.action_log_prob(data.next_observations)
            next_q_values = th.cat(self._critic_target(data.next_observations, next_actions), dim=1)
            next_q_values, _ = th.min(next_q_values, dim=1, keepdim=True)
            return next_q_values - ent_coef * next_log_prob.reshape(-1, 1)

    def critic_loss(self, data: ReplayBufferSamples, target_q_values: th.Tensor) -> th.Tensor:
        """See :class:`SACGradients`."""
        current_q_values = self._critic(data.observations, data.actions)
        loss = 0.5 * sum(F.mse_loss(current_q, target_q_values) for current_q in current_q_values)
        loss = loss + self._hooks.penalty("critic")
        assert isinstance(loss, th.Tensor)
        self._critic.optimizer.zero_grad()
        loss.backward()
        return loss.detach()

    def actor_loss(self, data: ReplayBufferSamples, ent_coef: th.Tensor) -> th.Tensor:
        """See :class:`SACGradients`."""
        q_values_pi = th.cat(self._critic(data.observations, self._actions_pi), dim=1)
        min_qf_pi, _ = th.min(q_values_pi, dim=1, keepdim=True)
        loss = (ent_coef * self._log_prob - min_qf_pi).mean() + self._hooks.penalty("actor")
        self._actor.optimizer.zero_grad()
        # Only the actor's gradients: nobody uses those of the critics
        loss.backward(inputs=self._actor_parameters)
        return loss.detach()
