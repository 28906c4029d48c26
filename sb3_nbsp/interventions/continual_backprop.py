"""Continual backpropagation (CBP): at every gradient step, replace a tiny share of the least useful neurons."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

from sb3_nbsp.checks import whole
from sb3_nbsp.interventions.base import Network, check_range
from sb3_nbsp.interventions.neuron_reset import NeuronReset
from sb3_nbsp.neurons.layers import NeuronLayer
from sb3_nbsp.neurons.utility import contribution_utility, feature_means


class ContinualBackprop(NeuronReset):
    r"""
    Keep, for each hidden neuron i of the actor, running averages of its contribution utility (mean \|activation\| times
    mean \|outgoing weight\|, :func:`~sb3_nbsp.neurons.utility.contribution_utility`) and of its activation:

    .. math::
        u_i &\leftarrow \eta u_i + (1 - \eta) \, E|h_i| \cdot \tfrac1m \textstyle\sum_k |w_{i,k}| \\
        f_i &\leftarrow \eta f_i + (1 - \eta) \, E[h_i]

    A neuron's age :math:`a_i` is the number of gradient steps since it was last renewed (by whatever intervention). Those
    older than the maturity threshold are eligible. After every gradient step, the replacement rate times
    their number is added to what the layer owes; for every whole neuron that it owes, the eligible one with the lowest
    :math:`\hat u_i = u_i / (1 - \eta^{a_i})` is replaced: its incoming parameters are drawn anew, its outgoing weights
    are set to zero, and what it contributed on average, its outgoing weights times :math:`\hat f_i = f_i / (1 -
    \eta^{a_i})`, moves into the bias of the layer behind.

    Activations are those of the training minibatch.

    Papers: Continual Backprop: Stochastic Gradient Descent with Persistent Randomness (Dohare et al., 2021); Loss of
    plasticity in deep continual learning (Dohare et al., 2024, equation 1 and algorithm 1).

    :param replacement_rate: share of the eligible neurons that are replaced per gradient step, in (0, 1]
    :param maturity_threshold: age above which a neuron is eligible, in gradient steps
    :param decay_rate: η, of the running averages, in [0, 1)
    :param clear_moments: also forget the optimizer's moments of the incoming and outgoing weights of what is replaced
    :param renew_shared: include the layers of a features extractor that actor and critic share
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
    ) -> None:
        super().__init__(clear_moments, renew_shared)
        check_range("replacement_rate", replacement_rate, 0, 1, low_open=True)
        maturity_threshold = whole("maturity_threshold", maturity_threshold, 0)
        check_range("decay_rate", decay_rate, 0, 1)
        if decay_rate == 1:
            raise ValueError("decay_rate must be below 1, otherwise the running averages never move")
        self.replacement_rate = replacement_rate
        self.maturity_threshold = maturity_threshold
        self.decay_rate = decay_rate

    def attach(self, agent: BaseAlgorithm) -> None:
        """See :meth:`Intervention.attach`."""
        super().attach(agent)
        for handle in getattr(self, "_handles", []):
            handle.remove()
        layers = self._network.layers
        self._handles = [layer.activation.register_forward_hook(self._watch(i)) for i, layer in enumerate(layers)]
        # By layer, the means of the training minibatch at hand: see feature_means()
        self._batch: dict[int, tuple[th.Tensor, th.Tensor]] = {}
        self._utilities = [layer.linear.weight.new_zeros(layer.n_neurons) for layer in layers]
        self._means = [layer.linear.weight.new_zeros(layer.n_neurons, layer.features_per_neuron) for layer in layers]
        # On the CPU: that a step replaces nothing is known without waiting for the device
        self._ages = [th.zeros(layer.n_neurons, dtype=th.int64) for layer in layers]
        self._owed = [0.0 for _ in layers]

    @property
    def utilities(self) -> dict[str, th.Tensor]:
        """Running averages of the utilities, corrected for bias: layer name to a vector of shape (neurons,)."""
        return {
            layer.name: utility / self._correction(index).to(utility)
            for index, (layer, utility) in enumerate(zip(self._network.layers, self._utilities, strict=True))
        }

    @property
    def ages(self) -> dict[str, th.Tensor]:
        """Gradient steps since each neuron was last renewed: layer name to a vector of shape (neurons,)."""
        return {layer.name: ages for layer, ages in zip(self._network.layers, self._ages, strict=True)}

    def after_step(self, network: Network) -> None:
        """One step of the running averages, then the replacements that are due."""
        if network != "actor":
            return
        for index, layer in enumerate(self._network.layers):
            magnitudes, means = self._batch[index]
            self._ages[index] += 1
            self._utilities[index].lerp_(contribution_utility(layer, magnitudes), 1 - self.decay_rate)
            self._means[index].lerp_(means.to(self._means[index]), 1 - self.decay_rate)  # of half precision under autocast
        self._batch.clear()
        chosen = [self._choose(index) for index in range(len(self._ages))]
        if any(len(neurons) for neurons in chosen):
            corrections = [self._correction(index).to(means).unsqueeze(1) for index, means in enumerate(self._means)]
            self.renew(chosen, [means / each for means, each in zip(self._means, corrections, strict=True)])

    def after_train(self) -> None:
        """See :meth:`Intervention.after_train`. A pass that no step came of (``target_kl``) does not count."""
        self._batch.clear()

    def after_renewal(self, renewed: Sequence[tuple[NeuronLayer, th.Tensor]]) -> None:
        """See :meth:`Intervention.after_renewal`. Neurons begin a new life, whoever renewed them."""
        index_of = {id(layer.linear): index for index, layer in enumerate(self._network.layers)}
        for layer, neurons in renewed:
            index = index_of.get(id(layer.linear))
            if index is not None:
                self._ages[index][neurons.cpu()] = 0
                self._utilities[index][neurons] = 0
                self._means[index][neurons] = 0

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`Intervention.state_dict`."""
        tensors = {"utilities": self._utilities, "means": self._means, "ages": self._ages}
        copies = {name: [each.clone() for each in values] for name, values in tensors.items()}
        return {**super().state_dict(), **copies, "owed": list(self._owed)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See :meth:`Intervention.load_state_dict`."""
        super().load_state_dict(state)
        for name, own in (("utilities", self._utilities), ("means", self._means), ("ages", self._ages)):
            for tensor, saved in zip(own, state[name], strict=True):
                tensor.copy_(saved)
        self._owed = list(state["owed"])

    def _watch(self, index: int) -> Callable[[nn.Module, object, th.Tensor], None]:
        """
        A forward hook for a layer that keeps the training minibatch's means: the first pass with gradients in training mode
        since the last step. Acting has no gradients, distillation is in evaluation mode, penalties come later.
        """

        def look(module: nn.Module, _inputs: object, output: th.Tensor) -> None:
            if output.requires_grad and module.training and index not in self._batch:
                self._batch[index] = feature_means(self._network.layers[index], output.detach())

        return look

    def _choose(self, index: int) -> th.Tensor:
        """The neurons of a layer to replace now, on the CPU, shape (k,)."""
        eligible = th.nonzero(self._ages[index] > self.maturity_threshold).flatten()
        self._owed[index] += self.replacement_rate * len(eligible)
        number = min(math.floor(self._owed[index] + 1e-9), len(eligible))  # ten times 0.1 is 0.9999999999999999
        if number == 0:
            return eligible[:0]
        self._owed[index] -= number
        utility = (self._utilities[index].cpu() / self._correction(index))[eligible]
        return eligible[th.sort(utility, stable=True).indices[:number]]

    def _correction(self, index: int) -> th.Tensor:
        r""":math:`1 - \eta^{a_i}` of the neurons of a layer (1 before the first step), in double precision, on the CPU."""
        ages = self._ages[index].double()
        return th.where(ages > 0, 1 - self.decay_rate**ages, th.ones_like(ages))
