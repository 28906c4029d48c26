"""The losses of SAC and their gradients, with PyTorch's autograd."""

from __future__ import annotations

import torch as th
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.sac.policies import Actor, ContinuousCritic
from torch.nn import functional as F
from typing_extensions import override

from sb3_nbsp.fast.sac_gradients import SACGradients
from sb3_nbsp.interventions import Interventions


class AutogradGradients(SACGradients):
    """
    For every policy and with every intervention: the operations of SB3's SAC, in its order.

    :param actor: the policy
    :param critic: the critics
    :param critic_target: the target critics
    :param interventions: those of the agent, whose penalties are added to the losses
    """

    def __init__(
        self, actor: Actor, critic: ContinuousCritic, critic_target: ContinuousCritic, interventions: Interventions
    ) -> None:
        self._actor, self._critic, self._critic_target, self._interventions = actor, critic, critic_target, interventions
        groups = actor.optimizer.param_groups
        self._actor_parameters = [p for group in groups for p in group["params"] if p.requires_grad]

    @override
    def sample_actions(self, data: ReplayBufferSamples) -> th.Tensor:
        self._actions_pi, log_prob = self._actor.action_log_prob(data.observations)
        self._log_prob = log_prob.reshape(-1, 1)
        return self._log_prob

    @override
    def ent_coef_loss(self, log_ent_coef: th.Tensor, log_prob: th.Tensor, target_entropy: float) -> th.Tensor:
        log_ent_coef.grad = None
        loss = -(log_ent_coef * (log_prob + target_entropy).detach()).mean()
        loss.backward()
        return loss.detach()

    @override
    def next_values(self, data: ReplayBufferSamples, ent_coef: th.Tensor) -> th.Tensor:
        with th.no_grad():
            next_actions, next_log_prob = self._actor.action_log_prob(data.next_observations)
            next_q_values = th.cat(self._critic_target(data.next_observations, next_actions), dim=1)
            next_q_values, _ = th.min(next_q_values, dim=1, keepdim=True)
            return next_q_values - ent_coef * next_log_prob.reshape(-1, 1)

    @override
    def critic_loss(self, data: ReplayBufferSamples, target_q_values: th.Tensor) -> th.Tensor:
        current_q_values = self._critic(data.observations, data.actions)
        loss = 0.5 * sum(F.mse_loss(current_q, target_q_values) for current_q in current_q_values)
        loss = loss + self._interventions.penalty("critic")
        assert isinstance(loss, th.Tensor)
        self._critic.optimizer.zero_grad()
        loss.backward()
        return loss.detach()

    @override
    def actor_loss(self, data: ReplayBufferSamples, ent_coef: th.Tensor) -> th.Tensor:
        q_values_pi = th.cat(self._critic(data.observations, self._actions_pi), dim=1)
        min_qf_pi, _ = th.min(q_values_pi, dim=1, keepdim=True)
        loss = (ent_coef * self._log_prob - min_qf_pi).mean() + self._interventions.penalty("actor")
        self._actor.optimizer.zero_grad()
        # Only the actor's gradients: nobody uses those of the critics
        loss.backward(inputs=self._actor_parameters)
        return loss.detach()
