"""Random reset: renew neurons at random, which the choices of other methods are compared to."""

from __future__ import annotations

from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from typing_extensions import override

from sb3_nbsp.interventions.neuron_reset import PeriodicReset
from sb3_nbsp.interventions.own_seeds import own_seed


class RandomReset(PeriodicReset):
    r"""
    Every F environment steps, draw the incoming parameters of uniformly random neurons of each hidden layer of the actor
    anew. Outgoing weights stay unchanged.

    Of a layer of l neurons, the k-th reset (from 0) renews :math:`\mathrm{round}((k + 1) \gamma l) - \mathrm{round}(k \gamma
    l)`: on average, resets renew the share γ, even if :math:`\gamma l` is not a whole number.

    Paper: Stay Hungry, Keep Learning: Sustainable Plasticity for Deep Reinforcement Learning (appendix A.4, figure 22).

    :param reset_frequency: F, in environment steps
    :param reset_rate: γ, share of each layer that a reset renews, in (0, 1]
    :param clear_moments: see :class:`CycleReset`
    :param renew_shared: see :class:`CycleReset`
    :raises ValueError: if an option is out of its range
    """

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        super().attach(agent)
        self._resets = 0

    def choose(self) -> list[th.Tensor]:
        """Neurons at random. The seed is made anew for every reset, so that a loaded model draws what comes next."""
        generator = th.Generator().manual_seed(own_seed(self.agent, self._resets, purpose=220))
        chosen = []
        for layer in self._network.layers:
            low, high = (round(k * self.reset_rate * layer.n_neurons) for k in (self._resets, self._resets + 1))
            chosen.append(th.randperm(layer.n_neurons, generator=generator)[: high - low])
        self._resets += 1
        return chosen

    @override
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "resets": self._resets}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._resets = state["resets"]
