"""Continual backpropagation (CBP): at every gradient step, replace a tiny share of the least useful neurons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn
from typing_extensions import override

from sb3_nbsp.checks import check_option, check_range, whole
from sb3_nbsp.interventions.base import Network
from sb3_nbsp.interventions.networks import AgentNetwork, networks_of
from sb3_nbsp.interventions.neuron_reset import NeuronReset
from sb3_nbsp.interventions.watches import watch_modules
from sb3_nbsp.neurons.activations import never_called
from sb3_nbsp.neurons.layers import NeuronLayer
from sb3_nbsp.neurons.utility import contribution_utility, feature_means


class ContinualBackprop(NeuronReset):
    r"""
    Keep, for each hidden neuron i of the actor (or of the critics, too), running averages of its contribution utility
    (mean \|activation\| times mean \|outgoing weight\|, :func:`~sb3_nbsp.neurons.utility.contribution_utility`) and of
    its activation:

    .. math::
        u_i &\leftarrow \eta u_i + (1 - \eta) \, E|h_i| \cdot \tfrac1m \textstyle\sum_k |w_{i,k}| \\
        f_i &\leftarrow \eta f_i + (1 - \eta) \, E[h_i]

    A neuron's age :math:`a_i` is the number of gradient steps since it was last renewed (by any intervention). Those
    older than the maturity threshold are eligible. After every gradient step, the replacement rate times
    their number is added to what the layer owes; for every whole neuron that it owes, the eligible one with the lowest
    :math:`\hat u_i = u_i / (1 - \eta^{a_i})` is replaced: its incoming parameters are drawn anew, its outgoing weights
    are set to zero, and what it contributed on average, its outgoing weights times :math:`\hat f_i = f_i / (1 -
    \eta^{a_i})`, moves into the bias of the next layer.

    Activations are those of the training minibatch, under the network's own loss. Target critics follow their critics by
    polyak averaging alone.

    Papers: Continual Backprop: Stochastic Gradient Descent with Persistent Randomness (Dohare et al., 2021); Loss of
    plasticity in deep continual learning (Dohare et al., 2024, equation 1 and algorithm 1).

    :param replacement_rate: share of the eligible neurons that are replaced per gradient step, in (0, 1]
    :param maturity_threshold: age above which a neuron is eligible, in gradient steps
    :param decay_rate: η, of the running averages, in [0, 1)
    :param clear_moments: also clear the optimizer's moments of the incoming and outgoing weights of replaced neurons
    :param renew_shared: also renew the layers of a features extractor that actor and critic share
    :param networks: "actor", "critic" or "both": whose neurons to replace. For SAC's critics with continuous actions, the
        features extractor is left out, because its output is read together with the action
    :raises ValueError: if an option is out of its range
    """

    cuts_outgoing = True

    def __init__(
        self,
        replacement_rate: float = 1e-4,
        maturity_threshold: int = 10_000,
        decay_rate: float = 0.99,
        clear_moments: bool = True,
        renew_shared: bool = False,
        networks: Literal["actor", "critic", "both"] = "actor",
    ) -> None:
        super().__init__(clear_moments, renew_shared)
        check_range("replacement_rate", replacement_rate, 0, 1, low_open=True)
        maturity_threshold = whole("maturity_threshold", maturity_threshold, 0)
        check_range("decay_rate", decay_rate, 0, 1)
        if decay_rate == 1:
            raise ValueError("decay_rate must be below 1, otherwise the running averages never move")
        check_option("networks", networks, ("actor", "critic", "both"))
        if renew_shared and networks == "critic":
            raise ValueError("renew_shared: a features extractor that is shared is the actor's; use networks='both', too")
        self.networks = networks
        self.replacement_rate = replacement_rate
        self.maturity_threshold = maturity_threshold
        self.decay_rate = decay_rate

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        self._averages: list[_Averages] = []
        super().attach(agent)

    def _find_layers(self) -> None:
        super()._find_layers()
        old = {each.linear: each for each in self._averages}
        self._averages = [old.get(layer.linear) or _Averages.of_new(layer) for layer in self._layers]
        # By layer, the means of the training minibatch at hand: see feature_means()
        self._batch: dict[int, tuple[th.Tensor, th.Tensor]] = {}
        watch_modules(self.agent.policy, self, [layer.activation for layer in self._layers])

    @override
    def _find_networks(self) -> list[AgentNetwork]:
        if self.networks == "actor":
            return [self._network]
        critics = networks_of(self.agent, shared=False)[1:]
        for critic in critics:
            own = {id(parameter) for parameter in critic.own}
            critic.layers = [each for each in critic.layers if any(id(part) in own for part in each.linear.parameters())]
        return critics if self.networks == "critic" else [self._network, *critics]

    @property
    def utilities(self) -> dict[str, th.Tensor]:
        """Running averages of the utilities, corrected for bias: layer name to a vector of shape (neurons,)."""
        pairs = zip(self._layers, self._averages, strict=True)
        return {layer.name: each.utility / self._correction(each).to(each.utility) for layer, each in pairs}

    @property
    def ages(self) -> dict[str, th.Tensor]:
        """Gradient steps since each neuron was last renewed: layer name to a vector of shape (neurons,)."""
        return {layer.name: each.ages for layer, each in zip(self._layers, self._averages, strict=True)}

    def after_step(self, network: Network) -> None:
        """One step of the running averages, then the replacements that are due. Layers that are frozen wait."""
        start = 0
        for each in self._networks:
            if each.role == network:
                self._replace(each, start)
            start += len(each.layers)
        if network == "actor":
            self._batch.clear()  # SAC's actor's loss runs through the critics, too

    def _replace(self, network: AgentNetwork, start: int) -> None:
        """
        :param network: whose neurons
        :param start: index of its first layer
        """
        averages = self._averages[start : start + len(network.layers)]
        may_renew = [self._may_renew(layer) for layer in network.layers]
        for index, (layer, each) in enumerate(zip(network.layers, averages, strict=True)):
            if may_renew[index]:
                if start + index not in self._batch:
                    raise never_called(layer)
                magnitudes, means = self._batch[start + index]
                each.ages += 1
                each.utility.lerp_(contribution_utility(layer, magnitudes), 1 - self.decay_rate)
                each.means.lerp_(means.to(each.means), 1 - self.decay_rate)  # of half precision under autocast
        chosen = [self._choose(each) if may else each.ages[:0] for each, may in zip(averages, may_renew, strict=True)]
        if any(len(neurons) for neurons in chosen):
            features = [each.means / self._correction(each).to(each.means).unsqueeze(1) for each in averages]
            self.renew(chosen, features, network)

    def watch(self, index: int, output: th.Tensor) -> None:
        """
        Keep the means of the training minibatch: the first pass with gradients in training mode since the last step. Acting
        has no gradients, distillation is in evaluation mode, penalties come later.

        :param index: the layer's index
        :param output: what its activation function returns
        """
        if index not in self._batch:
            self._batch[index] = feature_means(self._layers[index], output.detach())

    @override
    def after_train(self) -> None:
        # A pass that no step came of (``target_kl``) does not count
        self._batch.clear()

    @override
    def after_renewal(self, renewed: Sequence[tuple[NeuronLayer, th.Tensor]]) -> None:
        # Neurons begin a new life, whichever intervention renewed them
        own = {each.linear: each for each in self._averages}
        for layer, neurons in renewed:
            if layer.linear in own:
                averages = own[layer.linear]
                averages.ages[neurons.cpu()] = 0
                averages.utility[neurons] = 0
                averages.means[neurons] = 0

    @override
    def after_redraw(self, parameters: Sequence[nn.Parameter]) -> None:
        drawn = {*parameters}
        for index, layer in enumerate(self._layers):
            if layer.linear.weight in drawn:
                self._averages[index] = _Averages.of_new(layer)

    @override
    def state_dict(self) -> dict[str, Any]:
        named = {layer.name: each for layer, each in zip(self._layers, self._averages, strict=True)}
        state: dict[str, Any] = {
            "utilities": {name: each.utility.clone() for name, each in named.items()},
            "means": {name: each.means.clone() for name, each in named.items()},
            "ages": {name: each.ages.clone() for name, each in named.items()},
            "owed": {name: each.owed for name, each in named.items()},
        }
        return {**super().state_dict(), **state}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for layer, each in zip(self._layers, self._averages, strict=True):
            if layer.name in state["ages"]:  # not after a change of renew_shared
                each.utility.copy_(state["utilities"][layer.name])
                each.means.copy_(state["means"][layer.name])
                each.ages.copy_(state["ages"][layer.name])
                each.owed = state["owed"][layer.name]

    def _choose(self, averages: _Averages) -> th.Tensor:
        """The neurons of a layer to replace now, on the CPU, shape (k,)."""
        eligible = th.nonzero(averages.ages > self.maturity_threshold).flatten()
        averages.owed += self.replacement_rate * len(eligible)
        number = min(math.floor(averages.owed + 1e-9), len(eligible))  # ten times 0.1 is 0.9999999999999999
        if number == 0:
            return eligible[:0]
        averages.owed -= number
        utility = (averages.utility.cpu() / self._correction(averages))[eligible]
        return eligible[th.sort(utility, stable=True).indices[:number]]

    def _correction(self, averages: _Averages) -> th.Tensor:
        r""":math:`1 - \eta^{a_i}` of the neurons of a layer (1 before the first step), in double precision, on the CPU."""
        ages = averages.ages.double()
        return th.where(ages > 0, 1 - self.decay_rate**ages, th.ones_like(ages))


@dataclass
class _Averages:
    """What is known of the neurons of a layer: utility, shape (neurons,); means, shape (neurons, features per neuron)."""

    linear: nn.Module
    utility: th.Tensor
    means: th.Tensor
    ages: th.Tensor  # on the CPU: that a step replaces nothing is known without waiting for the device
    owed: float = 0.0

    @classmethod
    def of_new(cls, layer: NeuronLayer) -> _Averages:
        weight, n = layer.linear.weight, layer.n_neurons
        return cls(
            layer.linear, weight.new_zeros(n), weight.new_zeros(n, layer.features_per_neuron), th.zeros(n, dtype=th.int64)
        )
