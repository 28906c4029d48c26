"""The skill neurons that a run has identified, as its ``neurons.json`` tells them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb3_nbsp.files import read_json_object

FILE = "neurons.json"


@dataclass(frozen=True)
class ActivationHistogram:
    """
    How often a neuron's activation fell into each bin, apart for steps with success and without.

    :param layer: name of the neuron's layer
    :param neuron: its index in the layer
    :param score: Score(N) (NBSP, equation 4)
    :param edges: edges of the bins, ascending, one more than there are bins
    :param success: steps with success in each bin
    :param failure: steps without success in each bin
    """

    layer: str
    neuron: int
    score: float
    edges: list[float]
    success: list[float]
    failure: list[float]


@dataclass(frozen=True)
class NetworkNeurons:
    """
    What was identified in one network after one phase.

    :param skill_neurons: for each layer the indices of its skill neurons
    :param masked: for each layer the number of neurons whose mask is below 1 by then
    :param histograms: histograms of a few skill neurons, the best-scored first
    """

    skill_neurons: dict[str, frozenset[int]]
    masked: dict[str, int]
    histograms: list[ActivationHistogram]


@dataclass(frozen=True)
class PhaseNeurons:
    """
    What was identified after one phase.

    :param phase: its number, from 0
    :param task: its task
    :param networks: by the network's name
    """

    phase: int
    task: str
    networks: dict[str, NetworkNeurons]


@dataclass(frozen=True)
class RunNeurons:
    """
    What a run identified.

    :param layers: for each network its layers and their numbers of neurons
    :param phases: the phases that identified skill neurons, in their order
    """

    layers: dict[str, dict[str, int]]
    phases: list[PhaseNeurons]

    def of_tasks(self, network: str) -> dict[str, NetworkNeurons]:
        """
        :param network: name of a network
        :return: for each task what the last of its phases identified in the network, tasks in the order of their first
        """
        return {phase.task: phase.networks[network] for phase in self.phases if network in phase.networks}


def read_neurons(folder: str | os.PathLike[str]) -> RunNeurons | None:
    """
    :param folder: a run's folder
    :return: what the run identified; None if it has no such file, as methods without masks
    :raises ValueError: if the file is damaged
    """
    path = Path(folder) / FILE
    if not path.exists():
        return None
    content = read_json_object(path)
    try:
        layers = {
            network: {str(name): int(width) for name, width in widths} for network, widths in content["networks"].items()
        }
        return RunNeurons(layers, [_phase(phase, layers) for phase in content["phases"]])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} is damaged: {reason}") from error


def _phase(content: dict[str, Any], layers: dict[str, dict[str, int]]) -> PhaseNeurons:
    networks = {str(name): _network(network, layers[name]) for name, network in content["networks"].items()}
    return PhaseNeurons(int(content["phase"]), str(content["task"]), networks)


def _network(content: dict[str, Any], widths: dict[str, int]) -> NetworkNeurons:
    skill_neurons = {layer: frozenset(int(j) for j in neurons) for layer, neurons in content["skill_neurons"].items()}
    for layer, neurons in skill_neurons.items():
        if any(not 0 <= neuron < widths[layer] for neuron in neurons):
            raise ValueError(f"{layer} has {widths[layer]} neurons, not {max(neurons) + 1}")
    masked = {layer: int(number) for layer, number in content.get("masked", {}).items() if layer in widths}
    return NetworkNeurons(skill_neurons, masked, [_histogram(histogram) for histogram in content.get("histograms", [])])


def _histogram(content: dict[str, Any]) -> ActivationHistogram:
    edges, success, failure = ([float(value) for value in content[name]] for name in ("edges", "success", "failure"))
    if not len(edges) - 1 == len(success) == len(failure) >= 1:
        raise ValueError(f"a histogram has {len(edges)} edges for {len(success)} and {len(failure)} bins")
    if not all(math.isfinite(value) for value in (*edges, *success, *failure)):
        raise ValueError("a histogram has a value that is no finite number")
    return ActivationHistogram(str(content["layer"]), int(content["neuron"]), float(content["score"]), edges, success, failure)
