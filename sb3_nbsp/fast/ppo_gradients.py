"""The losses of PPO and their gradients for multilayer perceptrons, by hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch as th
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from typing_extensions import override

from sb3_nbsp.fast.mlp_actor_critic import MlpActorCritic


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


class MlpPPOGradients(PPOGradients):
    r"""
    For perceptrons, see :func:`~sb3_nbsp.fast.mlp_actor_critic.is_mlp_actor_critic`. Equal to
    :class:`AutogradPPOGradients` up to rounding. The loss depends on the networks through the log-probabilities, the
    entropy and the values:

    .. math::
        \overline{\log \pi}_i = \begin{cases}
            -\frac{1}{B} A_i r_i & \text{where } A_i r_i \le A_i \mathrm{clip}(r_i) \\ 0 & \text{elsewhere} \end{cases}

    .. math::
        \bar V_i = \begin{cases}
            \frac{2 c_v}{B} (V_i - R_i) & \text{where } V_i \text{ was not clipped} \\ 0 & \text{elsewhere} \end{cases}

    Where r is within its range, the two sides of the minimum are equal, and it is the first that counts. From there on
    it is up to the distribution of actions (:class:`~sb3_nbsp.fast.mlp_actor_critic.ActionDistribution`) and
    to the networks (:class:`~sb3_nbsp.fast.perceptron.Perceptron`).

    :param networks: the policy
    :param objective: PPO's options
    """

    def __init__(self, networks: MlpActorCritic, objective: PPOObjective) -> None:
        self._networks, self._objective = networks, objective

    @override
    @th.no_grad()
    def losses(self, batch: RolloutBufferSamples) -> dict[str, th.Tensor]:
        networks, objective, clip_range = self._networks, self._objective, self._objective.clip_range
        networks.prepare()
        inputs = networks.inputs(batch.observations)
        self._actor_signals, self._critic_signals = networks.actor.forward(inputs), networks.critic.forward(inputs)
        log_prob, entropy = networks.distribution.evaluate(self._actor_signals[-1], batch.actions)
        values = self._critic_signals[-1].flatten()

        advantages = objective.advantages(batch)
        log_ratio = log_prob - batch.old_log_prob
        ratio = log_ratio.exp()
        surrogate = advantages * ratio
        smaller = th.min(surrogate, advantages * ratio.clamp(1 - clip_range, 1 + clip_range))
        self._log_prob_gradient = surrogate * (surrogate == smaller) / -len(values)

        clipped_values = objective.clipped_values(values, batch.old_values)
        error = clipped_values - batch.returns
        self._value_gradient = error * (2 * objective.vf_coef / len(values))
        if objective.clip_range_vf is not None:
            self._value_gradient *= (values - batch.old_values).abs() <= objective.clip_range_vf

        policy_loss, value_loss, entropy_loss = -smaller.mean(), error.square().mean(), -entropy.mean()
        change = ratio - 1
        return {
            "policy_gradient_loss": policy_loss,
            "value_loss": value_loss,
            "entropy_loss": entropy_loss,
            "loss": policy_loss + objective.ent_coef * entropy_loss + objective.vf_coef * value_loss,
            "approx_kl": (change - log_ratio).mean(),
            "clip_fraction": (change.abs() > clip_range).float().mean(),
        }

    @override
    @th.no_grad()
    def backward(self) -> None:
        networks = self._networks
        outputs_gradient = networks.distribution.backward(self._log_prob_gradient, self._objective.ent_coef)
        networks.actor.backward(outputs_gradient, self._actor_signals)
        networks.critic.backward(self._value_gradient.unsqueeze(1), self._critic_signals)
