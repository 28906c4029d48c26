"""The policy as the student of a distillation: it acts, and it follows the gradient of the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from torch.distributions import Categorical, Distribution, Normal
from typing_extensions import override

from sb3_nbsp.fast.matmul_precision import MakeLayers, layers_in
from sb3_nbsp.fast.mlp_actor_critic import Gaussian, MlpActorCritic, is_mlp_actor_critic
from sb3_nbsp.fast.perceptron import layers_of
from sb3_nbsp.interventions.networks import ActorNetwork
from sb3_nbsp.interventions.policy_divergence import alpha_dkl, categorical_gradient, normal_gradient


class Student(ABC):
    """A policy that learns to do what its teacher does."""

    @abstractmethod
    def act(self, states: PyTorchObs) -> list[Distribution]:
        """
        :param states: shape (batch, ...)
        :return: distributions of the parts of the action; their entries are the states
        """

    @abstractmethod
    def set_gradients(self, states: PyTorchObs, teacher: Sequence[Distribution], alpha: float) -> None:
        """
        Leave the gradient of P3O's equation 4, averaged over the states, in the ``grad`` of the actor's parameters.

        :param states: shape (batch, ...)
        :param teacher: what the teacher does in them, as :meth:`act` gives it
        :param alpha: weight of the forward divergence
        """


class AutogradStudent(Student):
    """
    For every policy.

    :param network: the actor
    """

    def __init__(self, network: ActorNetwork) -> None:
        self._network = network

    @override
    def act(self, states: PyTorchObs) -> list[Distribution]:
        return self._network.distribution(states)

    @override
    def set_gradients(self, states: PyTorchObs, teacher: Sequence[Distribution], alpha: float) -> None:
        for parameter in self._network.parameters:
            parameter.grad = None
        alpha_dkl(teacher, self.act(states), alpha).mean().backward(inputs=self._network.parameters)


class MlpStudent(Student):
    """
    For perceptrons with Gaussian or categorical actions, by hand. Equal to :class:`AutogradStudent` up to rounding.

    :param policy: one of which :func:`~sb3_nbsp.fast.mlp_actor_critic.is_mlp_actor_critic` is true
    :param make_layers: makes layers of modules
    """

    def __init__(self, policy: ActorCriticPolicy, make_layers: MakeLayers = layers_of) -> None:
        self._networks = MlpActorCritic(policy, make_layers)
        self._actions = self._networks.distribution

    @override
    @th.no_grad()
    def act(self, states: PyTorchObs) -> list[Distribution]:
        assert isinstance(states, th.Tensor)
        # Without gradients
        self._networks.actor.prepare()
        return [self._distribution(self._networks.actor.outputs(self._networks.inputs(states)))]

    @override
    @th.no_grad()
    def set_gradients(self, states: PyTorchObs, teacher: Sequence[Distribution], alpha: float) -> None:
        assert isinstance(states, th.Tensor)
        self._networks.actor.prepare()
        signals = self._networks.actor.forward(self._networks.inputs(states))
        (old,), new = teacher, self._distribution(signals[-1])
        if isinstance(self._actions, Gaussian):
            assert isinstance(old, Normal) and isinstance(new, Normal)
            gradient, log_std_gradient = normal_gradient(old, new, alpha)
            self._actions.log_std.grad = log_std_gradient.mean(0)
        else:
            assert isinstance(old, Categorical) and isinstance(new, Categorical)
            gradient = categorical_gradient(old, new, alpha)
        self._networks.actor.backward(gradient / len(states), signals)

    def _distribution(self, outputs: th.Tensor) -> Distribution:
        distribution = self._actions.distribution(outputs, validate_args=False)
        self._actions.check(outputs, distribution.mean / distribution.stddev if isinstance(distribution, Normal) else outputs)
        return distribution


def make_student(agent: BaseAlgorithm, network: ActorNetwork) -> Student:
    """
    :param agent: the agent whose policy learns
    :param network: its actor
    :return: by hand where that is possible, otherwise with autograd
    """
    if isinstance(agent.policy, ActorCriticPolicy) and is_mlp_actor_critic(agent.policy):
        return MlpStudent(agent.policy, layers_in(getattr(agent, "matmul_precision", "highest"), agent.device))
    return AutogradStudent(network)
