"""ReDo: recycle the neurons that do least."""

from __future__ import annotations

import math

import torch as th

from sb3_nbsp.checks import check_range, whole
from sb3_nbsp.interventions.neuron_reset import PeriodicReset
from sb3_nbsp.interventions.observations import training_observations
from sb3_nbsp.interventions.own_seeds import own_seed
from sb3_nbsp.neurons.activations import record_activations
from sb3_nbsp.neurons.utility import neuron_magnitudes, redo_score


class ReDo(PeriodicReset):
    r"""
    Every F environment steps, recycle dormant neurons of the actor: draw their incoming parameters anew, set their outgoing
    weights to zero. The weight between two neurons that are recycled together is a newly drawn one.

    The score of a neuron is its mean \|activation\| over the states of the last rollout (or states drawn from the replay
    buffer), relative to its layer's mean: :func:`~sb3_nbsp.neurons.utility.redo_score`. There are two ways to choose neurons
    by it. The P3O paper's way, the default, takes the share γ of each layer with the lowest scores, rounded down (2
    of 256 neurons) but at least one; ties are broken by position. The way of Sokar et al. takes all neurons whose score is
    at most τ.

    Papers: The Dormant Neuron Phenomenon in Deep Reinforcement Learning (Sokar et al., 2023); Stay Hungry, Keep Learning:
    Sustainable Plasticity for Deep Reinforcement Learning (appendices A.1 and A.2, tables 3 and 4).

    :param reset_frequency: F, in environment steps
    :param reset_rate: γ, share of each layer that a reset renews, in (0, 1]; has no effect if
        ``dormant_threshold`` is given
    :param dormant_threshold: τ; None for the share γ
    :param redo_states: number of states to draw from a replay buffer (of a rollout, all are used)
    :param clear_moments: also clear the optimizer's moments of the parameters that are reset
    :param renew_shared: also renew the layers of a features extractor that actor and critic share
    :raises ValueError: if an option is out of its range
    """

    cuts_outgoing = True

    def __init__(
        self,
        reset_frequency: int = 50_000,
        reset_rate: float = 0.01,
        dormant_threshold: float | None = None,
        redo_states: int = 8192,
        clear_moments: bool = True,
        renew_shared: bool = False,
    ) -> None:
        super().__init__(reset_frequency, reset_rate, clear_moments, renew_shared)
        if dormant_threshold is not None:
            check_range("dormant_threshold", dormant_threshold, 0)
        redo_states = whole("redo_states", redo_states, 1)
        self.dormant_threshold = dormant_threshold
        self.redo_states = redo_states

    def scores(self) -> list[th.Tensor]:
        """
        ReDo's score of all neurons on the states that a reset at this moment would see.

        :return: for each layer a vector of shape (neurons,), on the CPU
        """
        seed = own_seed(self.agent, self.agent.num_timesteps, purpose=210)
        states = training_observations(self.agent, self.redo_states, seed)
        policy = self.agent.policy
        was_training = policy.training
        policy.set_training_mode(False)
        layers = self._network.layers
        magnitudes = record_activations(self._network.distribution, [states], layers, read=neuron_magnitudes)
        policy.set_training_mode(was_training)
        means = magnitudes.mean(dim=0, dtype=th.float64).split([layer.n_neurons for layer in layers])
        return [redo_score(each).cpu() for each in means]

    def choose(self) -> list[th.Tensor]:
        """The neurons with the lowest scores, or those with a score of at most ``dormant_threshold``."""
        if self.dormant_threshold is not None:
            return [th.nonzero(score <= self.dormant_threshold).flatten() for score in self.scores()]
        return [th.sort(score, stable=True).indices[: self._share(len(score))] for score in self.scores()]

    def _share(self, width: int) -> int:
        return max(1, math.floor(self.reset_rate * width + 1e-9))  # 0.29 * 100 is 28.999999999999996
