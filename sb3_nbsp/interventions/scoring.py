"""Score the neurons of a network and choose its skill neurons (NBSP, equations 1 to 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_nbsp.batches import take
from sb3_nbsp.fast.onednn import onednn_in
from sb3_nbsp.interventions.networks import ActorNetwork, AgentNetwork
from sb3_nbsp.interventions.policy_divergence import alpha_dkl
from sb3_nbsp.neurons.activations import record_activations
from sb3_nbsp.neurons.histograms import activation_histogram
from sb3_nbsp.neurons.layers import count_neurons
from sb3_nbsp.neurons.scores import (
    activation_score,
    active_share,
    balanced_score,
    dead_neurons,
    goal_oriented_score,
    random_score,
    select_top,
    weight_score,
)
from sb3_nbsp.neurons.zeroing import zeroed

if TYPE_CHECKING:
    from sb3_nbsp.interventions.gradient_masking import GradientMasking

# The scores that need no step
WITHOUT_STEPS = ("weight", "random")
# Histograms are made of so many of the best-scored skill neurons of each network
N_HISTOGRAMS = 4
# The causal score runs a network once for every neuron: on so many of the steps, evenly spread
N_CAUSAL_STEPS = 1000


@dataclass
class ScoredNeurons:
    """
    What is found out about the neurons of a network at the end of a phase, in the order of its layers.

    :param scores: in [0.5, 1], shape (neurons,)
    :param skill_neurons: which of them are selected, boolean, shape (neurons,)
    :param eligible: which of them could be, boolean, shape (neurons,)
    :param n_dead: how many never change; None if no steps were looked at
    :param histograms: see :attr:`GradientMasking.histograms`
    """

    scores: th.Tensor
    skill_neurons: th.Tensor
    eligible: th.Tensor
    n_dead: int | None
    histograms: list[dict[str, Any]]


def looks_at_steps(options: GradientMasking) -> bool:
    """
    :param options: what the user asked for
    :return: whether neurons are chosen by what they do in some steps
    """
    return options.identification not in WITHOUT_STEPS or options.min_active_share > 0


def score_neurons(
    options: GradientMasking,
    network: AgentNetwork,
    steps: tuple[PyTorchObs, th.Tensor, np.ndarray],
    seed: int,
) -> ScoredNeurons:
    """
    :param options: what the user asked for
    :param network: the network
    :param steps: observations, actions and q(t), with T rows each
    :param seed: for scores that are random
    :return: the scores of its neurons, and the ``skill_proportion`` of the eligible ones with the highest
    """
    observations, actions, goal_metric = steps
    activations = None
    if looks_at_steps(options):
        with onednn_in(actions.device):
            activations = record_activations(network.forward, (observations, actions), network.layers)  # (T, neurons)
    eligible = _eligible(options, network, activations)
    scores = _score(options, network, steps, activations, eligible, seed)
    selected = select_top(scores, options.skill_proportion, eligible)
    n_dead = None if activations is None else int(dead_neurons(activations).sum())
    return ScoredNeurons(scores, selected, eligible, n_dead, _best_histograms(scores, selected, activations, goal_metric))


def causal_score(network: AgentNetwork, observations: PyTorchObs, actions: th.Tensor) -> th.Tensor:
    r"""
    How much the output of a network depends on each of its neurons: what changes when its activation is zero. Of an
    actor that is :math:`D_{KL}(\pi \parallel \pi_{N = 0})`, of a critic :math:`(Q - Q_{N = 0})^2`, both averaged over states.

    :param network: with K neurons
    :param observations: T states, of which at most ``N_CAUSAL_STEPS`` are looked at
    :param actions: in those, as a replay buffer holds them
    :return: shape (K,); 0 for a neuron that does nothing
    """
    rows = th.linspace(0, len(actions) - 1, min(len(actions), N_CAUSAL_STEPS), device=actions.device).long()
    observations, actions = take(observations, rows), actions[rows]
    n_neurons = count_neurons(network.layers)

    def effect(neuron: int) -> th.Tensor:
        off = th.arange(n_neurons, device=actions.device) == neuron
        with zeroed(network.layers, off):
            after = outputs()
        if isinstance(network, ActorNetwork):
            return alpha_dkl(before, after, alpha=1.0).mean()
        return (before - after).square().mean()

    def outputs() -> Any:
        if isinstance(network, ActorNetwork):
            return network.distribution(observations)
        return network.forward(observations, actions)

    with th.no_grad(), onednn_in(actions.device):
        before = outputs()
        return th.stack([effect(neuron) for neuron in range(n_neurons)]).double()


def _eligible(options: GradientMasking, network: AgentNetwork, activations: th.Tensor | None) -> th.Tensor:
    """Which neurons may be selected: those that are on both sides of their mean often enough."""
    if activations is None or options.min_active_share == 0:
        return th.ones(count_neurons(network.layers), dtype=th.bool, device=options.agent.device)
    return active_share(activations) >= options.min_active_share


def _score(
    options: GradientMasking,
    network: AgentNetwork,
    steps: tuple[PyTorchObs, th.Tensor, np.ndarray],
    activations: th.Tensor | None,
    eligible: th.Tensor,
    seed: int,
) -> th.Tensor:
    """Scores of all neurons of a network. Where they compare with the goal, ineligible neurons have the lowest."""
    observations, actions, goal_metric = steps
    if options.identification == "causal":
        return _to_unit(causal_score(network, observations, actions))
    if options.identification == "weight":
        return _to_unit(weight_score(network.layers))
    if options.identification == "random":
        scores = random_score(count_neurons(network.layers), th.Generator().manual_seed(seed))
        return _to_unit(scores).to(options.agent.device)
    assert activations is not None
    if options.identification == "activation":
        return _to_unit(activation_score(activations))
    score = goal_oriented_score if options.identification == "goal" else balanced_score
    scores = score(activations, th.as_tensor(goal_metric, device=activations.device))
    return scores.masked_fill(~eligible, 0.5)


def _best_histograms(
    scores: th.Tensor, selected: th.Tensor, activations: th.Tensor | None, goal_metric: np.ndarray
) -> list[dict[str, Any]]:
    if activations is None:
        return []
    order = sorted(th.nonzero(selected).flatten().tolist(), key=lambda neuron: -scores[neuron].item())[:N_HISTOGRAMS]
    metric = th.as_tensor(goal_metric)
    return [
        {"neuron": neuron, "score": scores[neuron].item(), **activation_histogram(activations[:, neuron], metric)}
        for neuron in order
    ]


def _to_unit(scores: th.Tensor) -> th.Tensor:
    """
    Bring scores of any scale into [0.5, 1] without changing their order, as equation 7 expects them:
    by rank, the lowest to 0.5 and the highest to 1. Of equal scores the earlier one ranks higher.
    """
    ranks = th.empty_like(scores)
    descending = th.sort(scores, descending=True, stable=True).indices
    ranks[descending.flip(0)] = th.arange(len(scores), dtype=scores.dtype, device=scores.device)
    return 0.5 + 0.5 * ranks / max(len(scores) - 1, 1)
