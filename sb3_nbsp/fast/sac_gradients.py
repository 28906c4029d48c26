r"""
The losses of SAC and their gradients for multilayer perceptrons, by hand.

Autograd keeps what it may need and computes what may be used. Here the networks are known, and less work does:
of the critics, the actor's loss only needs the gradient with respect to the action. The other gain is the bookkeeping that is
left out.

Notation: a batch has B samples; :math:`\bar x` is the gradient of the loss with respect to x, with x's shape.
Rows are samples, so that a layer is :math:`Y = f(X W^T + b)`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN, Actor, ContinuousCritic
from torch import nn
from typing_extensions import override

from sb3_nbsp.fast.matmul_precision import MakeLayers
from sb3_nbsp.fast.perceptron import Layer, Perceptron, is_free_to_learn, is_perceptron, is_untouched, layers_of

# Methods that the forward pass of SB3's modules goes through
_FORWARD = ("forward", "extract_features", "get_action_dist_params", "action_log_prob")


class SACGradients(ABC):
    """The losses of SAC on one batch after another. For each, the methods are called in the order in which they stand here."""

    @abstractmethod
    def sample_actions(self, data: ReplayBufferSamples) -> th.Tensor:
        """
        Let the policy act on the observations of a batch; :meth:`actor_loss` uses these actions.

        :param data: the batch
        :return: log-probability of the actions, shape (batch, 1); of all discrete actions, shape (batch, actions)
        """

    @abstractmethod
    def ent_coef_loss(self, log_ent_coef: th.Tensor, log_prob: th.Tensor, target_entropy: float) -> th.Tensor:
        r"""
        Loss of the entropy coefficient, whose gradient it leaves in ``log_ent_coef``:

        .. math:: -\log \alpha \, \frac{1}{B} \sum_i \left[ \log \pi(a_i \mid s_i) + \bar{\mathcal{H}} \right]

        :param log_ent_coef: :math:`\log \alpha`, shape (1,)
        :param log_prob: what :meth:`sample_actions` returned
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


@dataclass
class ActorSample:
    """
    Actions of a squashed Gaussian policy, with what the backward pass needs.

    :param signals: signals of the hidden layers, see :meth:`Perceptron.forward`
    :param deviation: standard deviation times noise, shape (batch, actions)
    :param in_range: whether the logarithm of the standard deviation was not clamped, shape (batch, actions)
    :param actions: shape (batch, actions)
    :param log_prob: shape (batch, 1)
    """

    signals: list[th.Tensor]
    deviation: th.Tensor
    in_range: th.Tensor
    actions: th.Tensor
    log_prob: th.Tensor


class SquashedGaussian:
    r"""
    The policy of SAC: with noise :math:`\epsilon \sim N(0, 1)`,

    .. math::
        u = \mu(s) + \sigma(s)\,\epsilon, \quad
        \log \sigma = \mathrm{clamp}(l(s), -20, 2), \quad
        a = \tanh u

    .. math::
        \log \pi(a \mid s) = \sum_k \left[ -\tfrac12 \epsilon_k^2 - \log \sigma_k - \tfrac12 \log 2\pi
        - \log(1 - a_k^2 + \delta) \right]

    :param actor: SB3's actor
    :param make_layers: makes layers of modules
    """

    def __init__(self, actor: Actor, make_layers: MakeLayers = layers_of) -> None:
        distribution: Any = actor.action_dist
        self._hidden = Perceptron(make_layers(actor.latent_pi.children()))
        self._mu, self._log_std = (Layer(cast(nn.Linear, head)) for head in (actor.mu, actor.log_std))
        self._delta: float = distribution.epsilon

    def prepare(self) -> None:
        """Prepare the layers, see :meth:`Perceptron.prepare`."""
        self._hidden.prepare()

    def sample(self, observations: th.Tensor) -> ActorSample:
        """
        :param observations: shape (batch, observations)
        :return: actions, whose noise comes from PyTorch's global generator as SB3 takes it
        """
        signals = self._hidden.forward(observations)
        mu, unclamped = self._mu.forward(signals[-1]), self._log_std.forward(signals[-1])
        log_std = unclamped.clamp(LOG_STD_MIN, LOG_STD_MAX)
        noise = th.empty_like(mu).normal_()
        deviation = log_std.exp().mul_(noise)
        actions = (mu + deviation).tanh_()
        surprisal = (1 - actions.square()).add_(self._delta).log_().add_(log_std).addcmul_(noise, noise, value=0.5)
        log_prob = surprisal.sum(dim=1, keepdim=True).add_(0.5 * math.log(2 * math.pi) * mu.shape[1]).neg_()
        return ActorSample(signals, deviation, log_std == unclamped, actions, log_prob)

    def backward(self, sample: ActorSample, action_gradient: th.Tensor, log_prob_gradient: th.Tensor) -> None:
        r"""
        Gradients of the actor's parameters, into their ``grad``. A loss that depends on a and on log π has

        .. math::
            \bar u = \bar a\,(1 - a^2) + \overline{\log\pi}\,\frac{2 a (1 - a^2)}{1 - a^2 + \delta}, \quad
            \bar \mu = \bar u, \quad
            \overline{\log \sigma} = \bar u\,\sigma \epsilon - \overline{\log\pi}

        because :math:`\partial u / \partial \log\sigma = \sigma\epsilon`. Where log σ was clamped, no gradient passes.

        :param sample: what :meth:`sample` returned
        :param action_gradient: with respect to the actions, shape (batch, actions)
        :param log_prob_gradient: with respect to the log-probability, shape (), (1,) or (batch, 1)
        """
        slope = 1 - sample.actions.square()
        gradient = slope * (action_gradient + log_prob_gradient * 2 * sample.actions / (slope + self._delta))
        log_std_gradient = (gradient * sample.deviation - log_prob_gradient) * sample.in_range
        features = sample.signals[-1]
        self._mu.set_gradients(gradient, features)
        self._log_std.set_gradients(log_std_gradient, features)
        if self._hidden.layers:
            features_gradient = gradient @ self._mu.weight + log_std_gradient @ self._log_std.weight
            self._hidden.backward(features_gradient, sample.signals)


class FlatInputs:
    """
    What SB3's ``FlattenExtractor`` hands to the first layer: images of bytes are divided by 255.

    :param network: with an observation space of arrays
    """

    def __init__(self, network: BaseModel) -> None:
        self._space, self._normalize_images = network.observation_space, network.normalize_images
        self.dtype = next(network.parameters()).dtype

    def __call__(self, observations: th.Tensor) -> th.Tensor:
        r"""
        :param observations: shape (batch, \*observation)
        :return: in the precision of the parameters, shape (batch, inputs)
        """
        inputs = preprocess_obs(observations, self._space, self._normalize_images)  # in single precision
        return cast(th.Tensor, inputs).flatten(start_dim=1).to(self.dtype)


class MlpGradients(SACGradients):
    """
    For perceptrons, see :func:`can_use_mlp_gradients`. Equal to :class:`AutogradGradients` up to rounding, and
    the random numbers are the same.

    :param actor: the policy
    :param critic: the critics
    :param critic_target: the target critics
    :param make_layers: makes layers of modules
    """

    def __init__(
        self, actor: Actor, critic: ContinuousCritic, critic_target: ContinuousCritic, make_layers: MakeLayers = layers_of
    ) -> None:
        self._actor = SquashedGaussian(actor, make_layers)
        self._critics = [Perceptron(make_layers(net.children())) for net in critic.q_networks]
        self._targets = [Perceptron(make_layers(net.children())) for net in critic_target.q_networks]
        self._inputs = FlatInputs(actor)

    @override
    @th.no_grad()
    def sample_actions(self, data: ReplayBufferSamples) -> th.Tensor:
        self._actor.prepare()
        self._observations = self._inputs(data.observations)
        self._sample = self._actor.sample(self._observations)
        return self._sample.log_prob

    @override
    @th.no_grad()
    def ent_coef_loss(self, log_ent_coef: th.Tensor, log_prob: th.Tensor, target_entropy: float) -> th.Tensor:
        # The gradient is the mean that the loss has as its factor
        log_ent_coef.grad = -(log_prob + target_entropy).mean().to(log_ent_coef.dtype).reshape(log_ent_coef.shape)
        return (log_ent_coef * log_ent_coef.grad).sum()

    @override
    @th.no_grad()
    def next_values(self, data: ReplayBufferSamples, ent_coef: th.Tensor) -> th.Tensor:
        observations = self._inputs(data.next_observations)
        sample = self._actor.sample(observations)
        inputs = th.cat([observations, sample.actions], dim=1)
        for target in self._targets:
            target.prepare()
        q_values = th.cat([target.outputs(inputs) for target in self._targets], dim=1)
        return q_values.amin(dim=1, keepdim=True) - ent_coef * sample.log_prob

    @override
    @th.no_grad()
    def critic_loss(self, data: ReplayBufferSamples, target_q_values: th.Tensor) -> th.Tensor:
        r"""
        With the target y,

        .. math:: L = \frac{1}{2B} \sum_j \sum_i (Q_j(s_i, a_i) - y_i)^2, \quad \bar Q_j = \frac{1}{B} (Q_j - y)
        """
        inputs = th.cat([self._observations, data.actions.to(self._inputs.dtype)], dim=1)
        losses = []
        for critic in self._critics:
            critic.prepare()
            signals = critic.forward(inputs)
            error = (signals[-1] - target_q_values).to(self._inputs.dtype)
            critic.backward(error / len(error), signals)
            losses.append(error.square().mean())
        return 0.5 * th.stack(losses).sum()

    @override
    @th.no_grad()
    def actor_loss(self, data: ReplayBufferSamples, ent_coef: th.Tensor) -> th.Tensor:
        r"""
        With :math:`j(i)` the critic that gives sample i its minimum,

        .. math::
            L = \frac{1}{B} \sum_i \left[ \alpha \log \pi(a_i \mid s_i) - Q_{j(i)}(s_i, a_i) \right], \quad
            \overline{\log \pi} = \frac{\alpha}{B}, \quad
            \bar a_i = -\frac{1}{B} \frac{\partial Q_{j(i)}}{\partial a}(s_i, a_i)

        so each critic passes back a gradient for its own samples, and zeros for the others.
        """
        sample = self._sample
        inputs = th.cat([self._observations, sample.actions], dim=1)
        for critic in self._critics:
            critic.prepare()
        signals = [critic.forward(inputs) for critic in self._critics]
        min_q_values, smallest = th.cat([each[-1] for each in signals], dim=1).min(dim=1, keepdim=True)
        action_gradient = self._action_gradient(signals, smallest)
        batch_size = len(inputs)
        self._actor.backward(sample, action_gradient, (ent_coef / batch_size).to(self._inputs.dtype))
        return (ent_coef * sample.log_prob - min_q_values).mean()

    def _action_gradient(self, signals: list[list[th.Tensor]], smallest: th.Tensor) -> th.Tensor:
        """
        Gradient of the actor's loss with respect to the actions, see :meth:`actor_loss`.

        :param signals: signals of each critic
        :param smallest: j(i), shape (batch, 1)
        :return: shape (batch, actions)
        """
        first = self._observations.shape[1]
        action_gradient = th.zeros_like(self._sample.actions)
        for j, critic in enumerate(self._critics):
            # Zeros for the samples of other critics: to leave them out brings 2 to 4 %, and shapes that depend on values
            gradient = (smallest == j) * action_gradient.new_full((), -1 / len(smallest))
            action_gradient += critic.input_gradient(gradient, signals[j], first)
        return action_gradient


def can_use_mlp_gradients(actor: Actor, critic: ContinuousCritic, critic_target: ContinuousCritic) -> bool:
    """
    Whether :class:`MlpGradients` computes what the modules do: SB3's own actor and critics, without gSDE, on arrays
    that are flattened, of linear layers with ReLU or tanh, that nobody has changed, hooked into or frozen.

    :param actor: the policy
    :param critic: the critics
    :param critic_target: the target critics
    :return: whether it does
    """
    networks: list[Any] = [actor, critic, critic_target]
    distribution: Any = actor.action_dist
    return (
        [type(net) for net in networks] == [Actor, ContinuousCritic, ContinuousCritic]
        and isinstance(actor.observation_space, spaces.Box)
        and all(type(net.features_extractor) is FlattenExtractor for net in networks)
        and type(distribution) is SquashedDiagGaussianDistribution
        and all(type(head) is nn.Linear for head in (actor.mu, actor.log_std))
        and is_perceptron(actor.latent_pi, ends_linear=False)
        and all(is_perceptron(net, ends_linear=True) for net in (*critic.q_networks, *critic_target.q_networks))
        and is_untouched([module for net in networks for module in net.modules()], _FORWARD)
        and owns_its_parameters(actor, [*actor.latent_pi, actor.mu, cast(nn.Linear, actor.log_std)])
        and owns_its_parameters(critic, [module for net in critic.q_networks for module in net.children()])
        and len({next(net.parameters()).dtype for net in networks}) == 1
    )


def owns_its_parameters(net: nn.Module, modules: Sequence[nn.Module]) -> bool:
    """
    :param net: a network
    :param modules: its layers, in order
    :return: whether every parameter belongs to one linear layer, and is free to be trained
    """
    own = [parameter for module in modules if isinstance(module, nn.Linear) for parameter in (module.weight, module.bias)]
    return [*map(id, own)] == [*map(id, net.parameters())] and is_free_to_learn(own)
