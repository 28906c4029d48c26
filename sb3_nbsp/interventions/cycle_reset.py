"""Cycle reset: renew a few neurons of every layer at a time, in turn, until all have been renewed (SBP)."""

from __future__ import annotations

import math
from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from typing_extensions import override

from sb3_nbsp.interventions.neuron_reset import PeriodicReset


class CycleReset(PeriodicReset):
    r"""
    Every F environment steps, draw the incoming parameters of the neurons
    :math:`i \in [p \cdot l, (p + \gamma) \cdot l)` of each hidden layer of the actor anew, where l is its width. Then p
    advances by γ, and starts again at 0 when it reaches 1 (P3O paper, Algorithms 1 and 2).

    Both ends are rounded, so that every neuron is reset exactly once per cycle even if :math:`\gamma l` is not a
    whole number. Outgoing weights stay unchanged. Without :class:`InnerDistillation` it is the paper's "PPO+Cycle".

    Paper: Stay Hungry, Keep Learning: Sustainable Plasticity for Deep Reinforcement Learning.

    :param reset_frequency: F, in environment steps
    :param reset_rate: γ, share of each layer that a reset renews, in (0, 1]
    :param clear_moments: also clear the optimizer's moments of the parameters that are reset
    :param renew_shared: also renew the layers of a features extractor that actor and critic share
    :raises ValueError: if an option is out of its range
    """

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        super().attach(agent)
        self._position = 0  # resets since the cycle began: p is this times γ

    @property
    def _n_resets(self) -> int:
        """Of a cycle."""
        return math.ceil(1 / self.reset_rate - 1e-9)

    def choose(self) -> list[th.Tensor]:
        """The neurons whose turn it is; the next call gives those after them."""
        low, high = self._position * self.reset_rate, min(1.0, (self._position + 1) * self.reset_rate)
        self._position = (self._position + 1) % self._n_resets
        return [th.arange(round(low * layer.n_neurons), round(high * layer.n_neurons)) for layer in self._network.layers]

    @override
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "p": self._position * self.reset_rate}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        # The rate may have been changed meanwhile
        self._position = round(state["p"] / self.reset_rate) % self._n_resets
