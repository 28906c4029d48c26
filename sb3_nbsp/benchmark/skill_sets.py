"""General and task-specific skill neurons: the sets whose outputs are zeroed in the paper's table 8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch as th

Neurons = dict[str, th.Tensor]


@dataclass(frozen=True)
class SkillSet:
    """
    A set of neurons.

    :param name: what it is
    :param neurons: by network: boolean over its hidden neurons
    :param is_general: whether it is the intersection of two tasks' skill neurons
    """

    name: str
    neurons: Neurons
    is_general: bool = False

    @property
    def size(self) -> int:
        """Number of its neurons in all networks."""
        return sum(int(neurons.sum()) for neurons in self.neurons.values())


def skill_sets(skill_neurons: Mapping[str, Mapping[str, th.Tensor]], networks: Sequence[str]) -> list[SkillSet]:
    """
    For every pair of tasks, its general skill neurons (those of both tasks) and the specific ones of each task
    (those of one and not of the other).

    :param skill_neurons: by task and network, as :attr:`GradientMasking.skill_neurons` has them
    :param networks: names of the networks
    :return: three sets per pair
    """
    sets = []
    for first, second in combinations(skill_neurons, 2):
        pairs = {network: (skill_neurons[first][network].cpu(), skill_neurons[second][network].cpu()) for network in networks}
        sets += [
            SkillSet(f"{first} ∩ {second}", {network: a & b for network, (a, b) in pairs.items()}, is_general=True),
            SkillSet(f"{first} ∖ {second}", {network: a & ~b for network, (a, b) in pairs.items()}),
            SkillSet(f"{second} ∖ {first}", {network: b & ~a for network, (a, b) in pairs.items()}),
        ]
    return sets


def control_set(
    general: SkillSet, skill_neurons: Mapping[str, Mapping[str, th.Tensor]], active: Neurons, seed: int
) -> SkillSet:
    """
    For comparison, random neurons that are a skill neuron of no task: in each network as many as the general
    skill neurons, or all that there are. Only active ones: to zero a dead neuron changes nothing.

    :param general: an intersection
    :param skill_neurons: by task and network
    :param active: by network: which neurons are ever not zero
    :param seed: seed of the draw
    :return: the set
    """
    generator = th.Generator().manual_seed(seed)
    neurons = {}
    for network, wanted in general.neurons.items():
        skilled = th.stack([by_network[network].cpu() for by_network in skill_neurons.values()]).any(0)
        candidates = (active[network].cpu() & ~skilled).nonzero().flatten()
        drawn = candidates[th.randperm(len(candidates), generator=generator)[: int(wanted.sum())]]
        neurons[network] = th.zeros_like(wanted)
        neurons[network][drawn] = True
    return SkillSet(f"random, beside {general.name}", neurons)
