"""The losses of PPO and their gradients for multilayer perceptrons, by hand."""

from __future__ import annotations

import torch as th
from stable_baselines3.common.type_aliases import RolloutBufferSamples

from sb3_nbsp.algorithms.ppo_gradients import PPOGradients, PPOObjective
from sb3_nbsp.interventions.mlp_actor_critic import MlpActorCritic


class MlpPPOGradients(PPOGradients):
    r"""
    For perceptrons, see :func:`~sb3_nbsp.interventions.mlp_actor_critic.is_mlp_actor_critic`. Equal to
    :class:`AutogradPPOGradients` up to rounding. The loss depends on the networks through the log-probabilities, the
    entropy and the values:

    .. math::
        \overline{\log \pi}_i = \begin{cases}
            -\frac{1}{B} A_i r_i & \text{where } A_i r_i \le A_i \mathrm{clip}(r_i) \\ 0 & \text{elsewhere} \end{cases}

    .. math::
        \bar V_i = \begin{cases}
            \frac{2 c_v}{B} (V_i - R_i) & \text{where } V_i \text{ was not clipped} \\ 0 & \text{elsewhere} \end{cases}

    Where r is within its range, the two sides of the minimum are equal, and it is the first that counts. From there on
    it is up to the distribution of actions (:class:`~sb3_nbsp.interventions.mlp_actor_critic.ActionDistribution`) and
    to the networks (:class:`~sb3_nbsp.neurons.perceptron.Perceptron`).

    :param networks: the policy
    :param objective: PPO's options
    """

    def __init__(self, networks: MlpActorCritic, objective: PPOObjective) -> None:
        self._networks, self._objective = networks, objective

    @th.no_grad()
    def losses(self, batch: RolloutBufferSamples) -> dict[str, th.Tensor]:
        """See :class:`PPOGradients`."""
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

    @th.no_grad()
    def backward(self) -> None:
        """See :class:`PPOGradients`."""
        networks = self._networks
        outputs_gradient = networks.distribution.backward(self._log_prob_gradient, self._objective.ent_coef)
        networks.actor.backward(outputs_gradient, self._actor_signals)
        networks.critic.backward(self._value_gradient.unsqueeze(1), self._critic_signals)
