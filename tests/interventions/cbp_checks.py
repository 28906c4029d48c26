"""Continual backpropagation, one neuron at a time."""

from __future__ import annotations

from typing import Any

import torch as th
from reset_checks import Case, Picture, SlowLayer, columns_of, mean_of_feature, owned_features

from sb3_nbsp.interventions import ContinualBackprop, Intervention

RATE, MATURITY, DECAY = 0.04, 3, 0.8


class SlowNeuron:
    """One hidden neuron and what is remembered of it."""

    def __init__(self, layer: SlowLayer, index: int) -> None:
        self.layer, self.index = layer, index
        self.features = owned_features(layer, index)
        self.reset()

    def reset(self) -> None:
        self.age, self.utility, self.means = 0, 0.0, dict.fromkeys(self.features, 0.0)

    def contribution(self, output: th.Tensor, params: dict[str, th.Tensor]) -> float:
        contribution = 0.0
        for feature in self.features:
            total, units = 0.0, 0
            for reader in self.layer.readers:
                weight = params[f"{reader}.weight"]
                for unit in range(len(weight)):
                    units += 1
                    for column in columns_of(self.layer, feature, weight):
                        total += sum(abs(value) for value in weight[unit, column].flatten().tolist())
            contribution += mean_of_feature(output, feature, True) * total / units
        return contribution

    def update(self, output: th.Tensor, params: dict[str, th.Tensor]) -> None:
        self.age += 1
        self.utility = DECAY * self.utility + (1 - DECAY) * self.contribution(output, params)
        for feature in self.features:
            self.means[feature] = DECAY * self.means[feature] + (1 - DECAY) * mean_of_feature(output, feature, False)

    def corrected(self, value: float) -> float:
        return value / (1 - DECAY**self.age)


class SlowCBP:
    def __init__(self, case: Case) -> None:
        self.case = case
        self.neurons = [[SlowNeuron(layer, j) for j in range(layer.n_neurons)] for layer in case.layers]
        self.owed = [0.0] * len(case.layers)

    def step(self, observations: th.Tensor, before: Picture, after: Picture) -> tuple[list[list[int]], list[dict[int, float]]]:
        """Neurons to replace in each layer, and the mean activation of their features."""
        outputs = self.case.features(before.parameters, observations)
        chosen, means = [], []
        for index, neurons in enumerate(self.neurons):
            for neuron in neurons:
                neuron.update(outputs[index], after.parameters)
            eligible = [neuron for neuron in neurons if neuron.age > MATURITY]
            self.owed[index] += RATE * len(eligible)
            number = int(self.owed[index] + 1e-6)
            self.owed[index] -= number
            worst = sorted(eligible, key=lambda neuron: neuron.corrected(neuron.utility))[:number]
            chosen.append(sorted(neuron.index for neuron in worst))
            means.append({f: neuron.corrected(mean) for neuron in worst for f, mean in neuron.means.items()})
            for neuron in worst:
                neuron.reset()
        return chosen, means


class Counts(Intervention):
    """Copies of CBP's counts of resets at the end of every step of a network."""

    def __init__(self, network: str = "actor") -> None:
        self.network = network
        self._book: list[dict[str, th.Tensor]] = []

    @property
    def book(self) -> list[dict[str, th.Tensor]]:
        return self._book

    def after_step(self, network: Any) -> None:
        if network == self.network:
            counts = self.agent.all_interventions.find(ContinualBackprop).reset_counts
            self._book.append({name: each.clone() for name, each in counts.items()})
