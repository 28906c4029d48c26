r"""
SB3's MlpPolicy of PPO as two perceptrons and a distribution of actions, without autograd and without distribution objects.

Notation: a batch has B samples; :math:`\bar x` is the gradient of the loss with respect to x, with x's shape.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from copy import copy

import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from torch import distributions, nn
from torch.distributions import Distribution, Normal
from typing_extensions import override

from sb3_nbsp.fast.matmul_precision import MakeLayers
from sb3_nbsp.fast.perceptron import Perceptron, is_free_to_learn, is_perceptron, is_untouched, layers_of

# Methods that the forward pass of SB3's modules goes through
_FORWARD = (
    "__call__",
    "forward",
    "forward_actor",
    "forward_critic",
    "extract_features",
    "evaluate_actions",
    "get_distribution",
    "predict_values",
    "_get_action_dist_from_latent",
)
# and those of its distribution of actions
_OF_DISTRIBUTION = ("proba_distribution", "sample", "get_actions", "log_prob", "entropy")


class ActionDistribution(ABC):
    """How actions follow from the outputs of the actor."""

    @abstractmethod
    def sample(self, outputs: th.Tensor) -> th.Tensor:
        """
        :param outputs: outputs of the actor, shape (batch, outputs)
        :return: actions, drawn from PyTorch's global generator as SB3 draws them, shape (batch, actions) or (batch,)
        :raises ValueError: if there is no such distribution, see :meth:`check`
        """

    @abstractmethod
    def evaluate(self, outputs: th.Tensor, actions: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        r"""
        :param outputs: outputs of the actor, shape (batch, outputs)
        :param actions: as the rollout buffer gives them, shape (batch, actions)
        :return: :math:`\log \pi(a \mid s)`, shape (batch,), and the entropy, shape (batch,) or ()
        :raises ValueError: if there is no such distribution, see :meth:`check`
        """

    @abstractmethod
    def backward(self, log_prob_gradient: th.Tensor, ent_coef: float) -> th.Tensor:
        r"""
        For a loss that depends on the log-probabilities of the last :meth:`evaluate` and on the entropy, as
        :math:`-c_e \, \frac{1}{B} \sum_i \mathcal{H}_i`.

        :param log_prob_gradient: :math:`\overline{\log \pi}`, shape (batch,)
        :param ent_coef: :math:`c_e`
        :return: gradient with respect to the outputs of the actor, shape (batch, outputs)
        """

    @abstractmethod
    def distribution(self, outputs: th.Tensor, validate_args: bool | None = None) -> Distribution:
        """
        :param outputs: outputs of the actor, shape (batch, outputs)
        :param validate_args: whether PyTorch checks the outputs; None for its default, which SB3 relies on
        :return: PyTorch's distribution of actions, which SB3 would make
        :raises ValueError: if PyTorch finds that there is no such distribution
        """

    def check(self, outputs: th.Tensor, signs: th.Tensor) -> None:
        """
        Complain of outputs that are no distribution, NaN first of all, with the error that SB3 would raise.

        :param outputs: outputs of the actor, shape (batch, outputs)
        :param signs: numbers that are not all finite if the outputs are no distribution, in any shape
        :raises ValueError: if there is no such distribution
        """
        if not math.isfinite(signs.sum().item()):
            self.distribution(outputs)  # some infinite numbers are allowed


class Gaussian(ActionDistribution):
    r"""
    The outputs are μ; log σ is a parameter. With :math:`z = (a - \mu) / \sigma`,

    .. math::
        \log \pi(a \mid s) = \sum_k \left[ -\tfrac12 z_k^2 - \log \sigma_k - \tfrac12 \log 2\pi \right], \quad
        \mathcal{H} = \sum_k \left[ \log \sigma_k + \tfrac12 \log 2\pi + \tfrac12 \right]

    so that

    .. math::
        \bar \mu_{ik} = \overline{\log \pi}_i \, z_{ik} / \sigma_k, \quad
        \overline{\log \sigma}_k = \sum_i \overline{\log \pi}_i \, (z_{ik}^2 - 1) - c_e

    :param log_std: log σ, shape (actions,)
    """

    def __init__(self, log_std: th.Tensor) -> None:
        self.log_std = log_std

    @override
    def sample(self, outputs: th.Tensor) -> th.Tensor:
        # A σ of 0 is not found
        actions = outputs + th.empty_like(outputs).normal_() * self.log_std.exp()
        self.check(outputs, actions)
        return actions

    @override
    def evaluate(self, outputs: th.Tensor, actions: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        self._std = self.log_std.exp()
        self._z = (actions - outputs) / self._std
        # Surprisal of the mean
        constant = self.log_std.sum() + 0.5 * math.log(2 * math.pi) * len(self.log_std)
        log_prob = self._z.square().sum(1).mul_(-0.5) - constant
        self.check(outputs, log_prob)
        return log_prob, constant + 0.5 * len(self.log_std)

    @override
    def backward(self, log_prob_gradient: th.Tensor, ent_coef: float) -> th.Tensor:
        # The gradient of log σ goes into its ``grad``
        z_gradient = log_prob_gradient.unsqueeze(1) * self._z
        self.log_std.grad = (z_gradient * self._z).sum(0) - (log_prob_gradient.sum() + ent_coef)
        return z_gradient / self._std

    @override
    def distribution(self, outputs: th.Tensor, validate_args: bool | None = None) -> Normal:
        return Normal(outputs, self.log_std.exp().expand_as(outputs), validate_args)


class Categorical(ActionDistribution):
    r"""
    The outputs are logits l. With :math:`\log p = l - \log \sum_k e^{l_k}`,

    .. math::
        \log \pi(a \mid s) = \log p_a, \quad
        \mathcal{H} = -\sum_k p_k \log p_k, \quad
        \bar l_{ik} = \overline{\log \pi}_i \, (1_{k = a_i} - p_{ik}) + \tfrac{c_e}{B} p_{ik} (\log p_{ik} + \mathcal{H}_i)
    """

    @override
    def sample(self, outputs: th.Tensor) -> th.Tensor:
        log_p = outputs - outputs.logsumexp(dim=1, keepdim=True)
        self.check(outputs, log_p)
        return th.multinomial(log_p.softmax(dim=1), 1).squeeze(1)

    @override
    def evaluate(self, outputs: th.Tensor, actions: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        self._actions = actions.long().reshape(-1, 1)
        # Finite, for actions that cannot be taken: 0 log 0 is 0
        self._log_p = outputs.log_softmax(dim=1).clamp_min_(th.finfo(outputs.dtype).min)
        self._p = self._log_p.exp()
        self._entropy = -(self._p * self._log_p).sum(1)
        self.check(outputs, self._entropy)
        return self._log_p.gather(1, self._actions).squeeze(1), self._entropy

    @override
    def backward(self, log_prob_gradient: th.Tensor, ent_coef: float) -> th.Tensor:
        chosen = log_prob_gradient.unsqueeze(1)
        entropy_part = (self._log_p + self._entropy.unsqueeze(1)) * (ent_coef / len(self._p))
        return (self._p * (entropy_part - chosen)).scatter_add_(1, self._actions, chosen)

    @override
    def distribution(self, outputs: th.Tensor, validate_args: bool | None = None) -> distributions.Categorical:
        return distributions.Categorical(logits=outputs, validate_args=validate_args)


class MlpActorCritic:
    """
    Actor, critic and the distribution of actions of a policy; they share its parameters.

    :param policy: one of which :func:`is_mlp_actor_critic` is true
    :param make_layers: makes layers of modules
    """

    def __init__(self, policy: ActorCriticPolicy, make_layers: MakeLayers = layers_of) -> None:
        networks = policy.mlp_extractor
        self.actor = Perceptron(make_layers([*networks.policy_net.children(), policy.action_net]))
        self.critic = Perceptron(make_layers([*networks.value_net.children(), policy.value_net]))
        is_gaussian = isinstance(policy.action_dist, DiagGaussianDistribution)
        self.distribution: ActionDistribution = Gaussian(policy.log_std) if is_gaussian else Categorical()
        self._dtype = policy.value_net.weight.dtype

    def prepare(self) -> None:
        """Prepare the layers, see :meth:`Perceptron.prepare`."""
        self.actor.prepare()
        self.critic.prepare()

    def evaluate(self, observations: th.Tensor, actions: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        :param observations: shape (batch, observations)
        :param actions: as the rollout buffer gives them, shape (batch, actions)
        :return: values, shape (batch, 1), and log-probabilities, shape (batch,)
        """
        inputs = self.inputs(observations)
        return self.critic.outputs(inputs), self.distribution.evaluate(self.actor.outputs(inputs), actions)[0]

    @property
    def parameters(self) -> list[th.Tensor]:
        """All that actions, log-probabilities and values depend on."""
        own = [self.distribution.log_std] if isinstance(self.distribution, Gaussian) else []
        return [*own, *self.actor.parameters, *self.critic.parameters]

    def copy(self) -> MlpActorCritic:
        """The same networks with parameters of their own, without gradients."""
        copied = copy(self)
        copied.actor, copied.critic = self.actor.copy(), self.critic.copy()
        if isinstance(self.distribution, Gaussian):
            copied.distribution = Gaussian(self.distribution.log_std.detach().clone())
        return copied

    def inputs(self, observations: th.Tensor) -> th.Tensor:
        """
        :param observations: as the environment or the rollout buffer gives them, shape (batch, observations)
        :return: in the networks' precision; SB3 hands them over in single precision
        """
        return observations.float().to(self._dtype)


def is_mlp_actor_critic(policy: ActorCriticPolicy) -> bool:
    """
    Whether :class:`MlpActorCritic` computes what the modules do: SB3's MlpPolicy, without gSDE, on flat observations, of
    linear layers with ReLU or tanh, with Gaussian or categorical actions, that nobody has changed, hooked into or frozen.

    :param policy: any policy of PPO
    :return: whether it does
    """
    is_sb3s = all(getattr(type(policy), name, None) is getattr(ActorCriticPolicy, name, None) for name in _FORWARD)
    if not is_sb3s or type(policy.mlp_extractor) is not MlpExtractor:
        return False
    networks, space = policy.mlp_extractor, policy.observation_space
    heads = [policy.action_net, policy.value_net]
    if not all(type(head) is nn.Linear for head in heads):
        return False
    modules = [*networks.policy_net.children(), *networks.value_net.children(), *heads]
    linears = [each for each in modules if type(each) is nn.Linear]
    own = [parameter for linear in linears for parameter in linear.parameters(recurse=False)]
    if type(policy.action_dist) is DiagGaussianDistribution:
        own.append(policy.log_std)
    return (
        isinstance(space, spaces.Box)
        and len(space.shape) == 1
        and all(type(each) is FlattenExtractor for each in (policy.pi_features_extractor, policy.vf_features_extractor))
        and type(policy.action_dist) in (DiagGaussianDistribution, CategoricalDistribution)
        and vars(policy.action_dist).keys().isdisjoint(_OF_DISTRIBUTION)
        and all(is_perceptron(net, ends_linear=False) for net in (networks.policy_net, networks.value_net))
        and all(linear.bias is not None for linear in linears)
        and is_untouched(policy.modules(), _FORWARD)
        and len({*map(id, own)}) == len(own)  # no layer stands in two places
        and {*map(id, own)} == {*map(id, policy.parameters())}
        and is_free_to_learn(own)
    )
