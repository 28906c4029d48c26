"""The losses of SAC for discrete actions and their gradients for multilayer perceptrons, by hand."""

from __future__ import annotations

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch.nn import functional as F
from typing_extensions import override

from sb3_nbsp.fast.matmul_precision import MakeLayers
from sb3_nbsp.fast.perceptron import Perceptron, is_perceptron, is_untouched, layers_of
from sb3_nbsp.fast.sac_gradients import FlatInputs, SACGradients, owns_its_parameters

# Methods that the forward pass goes through
_FORWARD = ("forward", "extract_features", "logits", "head", "features", "heads", "q_values", "_head")


class MlpDiscreteGradients(SACGradients):
    """
    For perceptrons, see :func:`can_use_mlp_discrete_gradients`. Equal to autograd's up to rounding.

    :param actor: the policy
    :param critic: the critics
    :param critic_target: the target critics
    :param scale: factor of the losses of actor and temperature: 1, or 1 / (number of actions) for the mean over the actions
    :param make_layers: makes layers of modules
    """

    def __init__(self, actor: Any, critic: Any, critic_target: Any, scale: float, make_layers: MakeLayers = layers_of) -> None:
        self._actor = Perceptron(make_layers([*actor.latent_pi.children(), actor.action_net]))
        self._critics = [Perceptron(make_layers(net.children())) for net in critic.q_networks]
        self._targets = [Perceptron(make_layers(net.children())) for net in critic_target.q_networks]
        self._scale, self._inputs = scale, FlatInputs(actor)

    @staticmethod
    def _smallest(networks: list[Perceptron], inputs: th.Tensor) -> th.Tensor:
        for network in networks:
            network.prepare()
        return th.stack([network.outputs(inputs) for network in networks]).amin(dim=0)

    @override
    @th.no_grad()
    def sample_actions(self, data: ReplayBufferSamples) -> th.Tensor:
        self._actor.prepare()
        self._observations = self._inputs(data.observations)
        self._signals = self._actor.forward(self._observations)
        self._log_prob = F.log_softmax(self._signals[-1], dim=1)
        self._prob = self._log_prob.exp()
        return self._log_prob

    @override
    @th.no_grad()
    def ent_coef_loss(self, log_ent_coef: th.Tensor, log_prob: th.Tensor, target_entropy: float) -> th.Tensor:
        r"""
        The derivative of α with respect to log α is α, so loss and gradient are the same number:

        .. math:: -\alpha \, \frac{c}{B} \sum_i \sum_a \pi(a \mid s_i) \left[ \log \pi(a \mid s_i) + \bar{\mathcal{H}} \right]
        """
        excess = self._scale * (self._prob * (log_prob + target_entropy)).sum(dim=1).mean()
        log_ent_coef.grad = -(log_ent_coef.exp() * excess).to(log_ent_coef.dtype)
        return log_ent_coef.grad.sum()

    @override
    @th.no_grad()
    def next_values(self, data: ReplayBufferSamples, ent_coef: th.Tensor) -> th.Tensor:
        inputs = self._inputs(data.next_observations)
        log_prob = F.log_softmax(self._actor.outputs(inputs), dim=1)
        return (log_prob.exp() * (self._smallest(self._targets, inputs) - ent_coef * log_prob)).sum(dim=1, keepdim=True)

    @override
    @th.no_grad()
    def critic_loss(self, data: ReplayBufferSamples, target_q_values: th.Tensor) -> th.Tensor:
        r"""
        Of the action taken, :math:`\bar Q_j(s_i)_{a_i} = \frac{2}{B} (Q_j(s_i)_{a_i} - y_i)`; of the others 0.
        """
        actions, losses = data.actions.long(), []
        for critic in self._critics:
            critic.prepare()
            signals = critic.forward(self._observations)
            error = signals[-1].gather(1, actions) - target_q_values.to(self._inputs.dtype)
            critic.backward(th.zeros_like(signals[-1]).scatter_(1, actions, error * (2 / len(error))), signals)
            losses.append(error.square().mean())
        return th.stack(losses).sum()

    @override
    @th.no_grad()
    def actor_loss(self, data: ReplayBufferSamples, ent_coef: th.Tensor) -> th.Tensor:
        r"""
        With :math:`h_a = \alpha \log \pi(a \mid s) - \min_j Q_j(s)_a` and the scale c, for logits z:

        .. math::
            L = \frac{c}{B} \sum_i \sum_a \pi_a h_a, \quad
            \bar z_k = \frac{c}{B} \, \pi_k \left( h_k - \sum_a \pi_a h_a \right)

        as what the logarithm in h adds, :math:`\alpha \sum_a \pi_a \, \partial \log \pi_a / \partial z_k`, is 0.
        """
        costs = ent_coef * self._log_prob - self._smallest(self._critics, self._observations)
        expected = (self._prob * costs).sum(dim=1, keepdim=True)
        gradient = self._prob * (costs - expected) * (self._scale / len(costs))
        self._actor.backward(gradient.to(self._inputs.dtype), self._signals)
        return self._scale * expected.mean()


def can_use_mlp_discrete_gradients(actor: Any, critic: Any, critic_target: Any) -> bool:
    """
    Whether :class:`MlpDiscreteGradients` computes what the modules do: on arrays that are flattened, of linear layers with
    ReLU or tanh, that nobody has changed, hooked into or frozen.

    :param actor: this package's own policy
    :param critic: its critics
    :param critic_target: its target critics
    :return: whether it does
    """
    heads = [*critic.q_networks, *critic_target.q_networks]
    extractors = [actor.features_extractor, *critic.features_extractors, *critic_target.features_extractors]
    networks = [actor, critic, critic_target]
    return (
        isinstance(actor.observation_space, spaces.Box)
        and all(type(each) is FlattenExtractor for each in extractors)
        and is_perceptron(actor.latent_pi, ends_linear=False)
        and all(is_perceptron(net, ends_linear=True) for net in heads)
        and is_untouched([module for net in networks for module in net.modules()], _FORWARD)
        and owns_its_parameters(actor, [*actor.latent_pi, actor.action_net])
        and owns_its_parameters(critic, [module for net in critic.q_networks for module in net.children()])
        and len({next(net.parameters()).dtype for net in networks}) == 1
    )
