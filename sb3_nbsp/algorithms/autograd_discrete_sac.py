"""The losses of SAC for discrete actions and their gradients, with PyTorch's autograd."""

from __future__ import annotations

from typing import Any, Literal

import torch as th
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch.nn import functional as F
from typing_extensions import override

from sb3_nbsp.algorithms.discrete_policies import DiscreteActor, DiscreteCritic
from sb3_nbsp.batches import apply
from sb3_nbsp.fast.sac_gradients import SACGradients
from sb3_nbsp.interventions import Interventions

Reduction = Literal["mean", "sum"]


class DiscreteGradients(SACGradients):
    r"""
    The losses of CleanRL's ``sac_atari.py`` (after Christodoulou, Soft Actor-Critic for Discrete Action Settings, 2019):
    expectations over the actions are computed, not sampled. With a batch of B samples and the actions A,

    .. math:: \pi(\cdot \mid s) = \mathrm{softmax}(z(s)), \quad Q_j(s) \in \mathbb{R}^{|A|}

    :param actor: the policy
    :param critic: the critics
    :param critic_target: the target critics
    :param interventions: those of the agent, whose penalties are added to the losses
    :param reduction: over the actions, in the losses of the actor and of the temperature
    :param channels_last: lay images out with the channels last, which is faster and rounds otherwise
    :param rounds: convolutions and large matrix products with factors in bfloat16; output layers and losses stay in single
        precision
    """

    def __init__(
        self,
        actor: DiscreteActor,
        critic: DiscreteCritic,
        critic_target: DiscreteCritic,
        interventions: Interventions,
        reduction: Reduction,
        channels_last: bool = False,
        rounds: bool = False,
    ) -> None:
        self._actor, self._critic, self._critic_target, self._interventions = actor, critic, critic_target, interventions
        self._reduction, self._channels_last, self._rounds = reduction, channels_last, rounds
        self._dtype = next(actor.parameters()).dtype

    def _reduced(self, values: th.Tensor) -> th.Tensor:
        """Of shape (batch, actions) to shape (): the mean over the batch of the mean or the sum over the actions."""
        return values.mean() if self._reduction == "mean" else values.sum(dim=1).mean()

    def _inputs(self, observations: Any) -> Any:
        """Preprocessed observations: once for all networks that see them."""
        space, divides = self._actor.observation_space, self._actor.normalize_images
        if self._channels_last and divides and is_image_space(space):
            # In one pass, rather than in three
            images = observations.to(th.float32, memory_format=th.channels_last, copy=True)
            return images.div_(255.0).to(self._dtype)
        return apply(lambda part: part.to(self._dtype), preprocess_obs(observations, space, divides))

    def _precision(self) -> th.autocast:
        return th.autocast(self._actor.device.type, th.bfloat16, enabled=self._rounds)

    def _log_probs(self, features: th.Tensor) -> th.Tensor:
        return F.log_softmax(self._actor.head(features), dim=1)

    @override
    def sample_actions(self, data: ReplayBufferSamples) -> th.Tensor:
        """
        The policy of the observations of a batch; nothing is sampled.

        :param data: the batch
        :return: log-probability of every action, shape (batch, actions)
        """
        self._observations = self._inputs(data.observations)
        with self._precision():
            own = self._actor.features_extractor
            # A shared features extractor sees them once, for the actor and for the loss of the critics
            self._features = self._critic.features(self._observations) if self._actor.is_shared else None
            self._log_prob = self._log_probs(own(self._observations) if self._features is None else self._features[0])
        self._prob = self._log_prob.exp()
        return self._log_prob

    @override
    def ent_coef_loss(self, log_ent_coef: th.Tensor, log_prob: th.Tensor, target_entropy: float) -> th.Tensor:
        r"""
        Loss of the temperature, through :math:`\alpha = e^{\log \alpha}`, π being a constant in it:

        .. math:: \frac{1}{B |A|} \sum_i \sum_a \pi(a \mid s_i) \left[ -\alpha \left( \log \pi(a \mid s_i) + \bar{\mathcal{H}}
            \right) \right]

        With ``reduction="sum"`` without :math:`1 / |A|`.
        """
        excess = self._reduced(self._prob.detach() * (log_prob.detach() + target_entropy))
        log_ent_coef.grad = None
        loss = -(log_ent_coef.exp() * excess).sum()
        loss.backward()
        return loss.detach()

    @override
    @th.no_grad()
    def next_values(self, data: ReplayBufferSamples, ent_coef: th.Tensor) -> th.Tensor:
        r"""
        Soft value of the next observations:

        .. math:: V'(s') = \sum_a \pi(a \mid s') \left[ \min_j Q'_j(s')_a - \alpha \log \pi(a \mid s') \right]
        """
        inputs = self._inputs(data.next_observations)
        with self._precision():
            log_prob = self._log_probs(self._actor.features_extractor(inputs))
            q_values = _minimum(self._critic_target.heads(self._critic_target.features(inputs)))
        return (log_prob.exp() * (q_values - ent_coef * log_prob)).sum(dim=1, keepdim=True)

    @override
    def critic_loss(self, data: ReplayBufferSamples, target_q_values: th.Tensor) -> th.Tensor:
        r"""
        Of actions taken :math:`a_i` and targets :math:`y_i`; SB3's SAC has a factor of ½, this one has none:

        .. math:: \sum_j \frac{1}{B} \sum_i \left( Q_j(s_i)_{a_i} - y_i \right)^2
        """
        with self._precision():
            features = self._critic.features(self._observations) if self._features is None else self._features
            current_q_values = [q_values.gather(1, data.actions.long()) for q_values in self._critic.heads(features)]
        loss = th.stack([F.mse_loss(q_values, target_q_values.to(self._dtype)) for q_values in current_q_values]).sum()
        loss = loss + self._interventions.penalty("critic")
        self._critic.optimizer.zero_grad()
        loss.backward()
        return loss.detach()

    @override
    def actor_loss(self, data: ReplayBufferSamples, ent_coef: th.Tensor) -> th.Tensor:
        r"""
        With the critics as they are after their step, as constants:

        .. math:: \frac{1}{B |A|} \sum_i \sum_a \pi(a \mid s_i) \left[ \alpha \log \pi(a \mid s_i) - \min_j Q_j(s_i)_a \right]

        With ``reduction="sum"`` without :math:`1 / |A|`. A penalty is meant for that sum, and has the same factor.
        """
        with th.no_grad(), self._precision():
            q_values = _minimum(self._critic.heads(self._critic.features(self._observations)))
        penalty = self._interventions.penalty("actor")
        if self._reduction == "mean":
            penalty = penalty / q_values.shape[1]
        loss = self._reduced(self._prob * (ent_coef * self._log_prob - q_values)) + penalty
        self._actor.optimizer.zero_grad()
        loss.backward()
        return loss.detach()


def _minimum(q_values: list[th.Tensor]) -> th.Tensor:
    """Over the critics, shape (batch, actions)."""
    return th.stack(q_values).amin(dim=0)
