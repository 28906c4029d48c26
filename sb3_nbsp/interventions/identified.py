"""What gradient masking knows of a task: scores and skill neurons of each network."""

from __future__ import annotations

from dataclasses import dataclass

import torch as th


@dataclass
class Identified:
    """
    What is known about a task since the end of its last phase.

    :param phase: that phase
    :param scores: by network, in [0.5, 1], each of shape (neurons,)
    :param skill_neurons: by network, boolean, each of shape (neurons,)
    """

    phase: int
    scores: dict[str, th.Tensor]
    skill_neurons: dict[str, th.Tensor]

    def drop(self, network: str) -> bool:
        """
        Forget a network.

        :param network: its name
        :return: whether it was known
        """
        self.scores.pop(network, None)
        return self.skill_neurons.pop(network, None) is not None

    def forget(self, network: str, neurons: th.Tensor) -> None:
        """
        Neurons of a network have been renewed, and know nothing of the task any more.

        :param network: its name
        :param neurons: boolean, shape (neurons,)
        """
        if network in self.skill_neurons:
            self.skill_neurons[network] = self.skill_neurons[network] & ~neurons.to(self.skill_neurons[network].device)
