"""How plastic the actor of an agent is, on a batch of states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.preprocessing import get_obs_shape
from stable_baselines3.common.type_aliases import PyTorchObs
from torch.distributions import Bernoulli, Categorical, Distribution, Normal

from sb3_nbsp.batches import ArrayObs, apply, n_rows, take
from sb3_nbsp.checks import check_range, whole
from sb3_nbsp.interventions.networks import ActorNetwork, actor_of
from sb3_nbsp.interventions.trial_pass import evaluating
from sb3_nbsp.neurons.activations import record_activations
from sb3_nbsp.neurons.layers import NeuronLayer, count_neurons
from sb3_nbsp.neurons.plasticity import (
    activation_norm,
    dormant_ratio,
    effective_rank,
    layer_features,
    stable_rank,
    weight_norm,
)
from sb3_nbsp.neurons.sample_gradients import (
    gradient_correlation,
    gradient_covariance,
    mean_gradient_norm,
    sample_gradients,
)
from sb3_nbsp.neurons.utility import neuron_magnitudes

MEASURES = [
    "dormant_ratio",
    "weight_norm",
    "activation_norm",
    "effective_rank",
    "stable_rank",
    "gradient_norm",
    "gradient_correlation",
]


@dataclass(frozen=True)
class Diagnostics:
    """
    What :func:`diagnostics` found. In the P3O paper, lower weight norms, lower gradient correlations and higher
    gradient norms correlate with plasticity; neither extreme of the activation norm does.

    :param dormant_ratio: share of dormant hidden neurons, see :func:`~sb3_nbsp.neurons.plasticity.dormant_ratio`
    :param weight_norm: see :func:`~sb3_nbsp.neurons.plasticity.weight_norm`
    :param activation_norm: see :func:`~sb3_nbsp.neurons.plasticity.activation_norm`
    :param effective_rank: effective rank of the last hidden layer's activations, see
        :func:`~sb3_nbsp.neurons.plasticity.effective_rank`
    :param stable_rank: stable rank of the same, see :func:`~sb3_nbsp.neurons.plasticity.stable_rank`
    :param gradient_norm: see :func:`~sb3_nbsp.neurons.sample_gradients.mean_gradient_norm`
    :param gradient_correlation: see :func:`~sb3_nbsp.neurons.sample_gradients.gradient_correlation`
    :param gradient_covariance: see :func:`~sb3_nbsp.neurons.sample_gradients.gradient_covariance`, on the CPU,
        shape (gradient states, gradient states)
    :param n_neurons: hidden neurons of the actor
    :param n_states: states that the measures of weights and activations saw
    """

    dormant_ratio: float
    weight_norm: float
    activation_norm: float
    effective_rank: float
    stable_rank: float
    gradient_norm: float
    gradient_correlation: float
    gradient_covariance: th.Tensor
    n_neurons: int
    n_states: int

    def scalars(self) -> dict[str, float]:
        """Every measure that is one number, by name."""
        return {name: getattr(self, name) for name in MEASURES}

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers and lists, as JSON takes it."""
        counts = {"n_neurons": self.n_neurons, "n_states": self.n_states}
        return {**self.scalars(), **counts, "gradient_covariance": self.gradient_covariance.tolist()}


def diagnostics(
    model: BaseAlgorithm,
    observations: ArrayObs | PyTorchObs,
    dormant_threshold: float = 0.1,
    n_gradient_states: int = 64,
    seed: int = 0,
) -> Diagnostics:
    r"""
    Measure how plastic the actor of an agent is. Works for every agent with a policy of PPO or SAC, including those of plain
    SB3 and loaded ones. The agent's parameters, their gradients, its training mode and all random streams stay unchanged.

    Dormant ratio, norms and ranks are those of the layers between observation and action, including a features extractor
    that the critic shares. The gradients need no rewards: for a state s they are

    .. math:: \nabla_\theta \log \pi_\theta(a | s), \quad a \sim \pi_\theta(\cdot | s)

    with respect to the parameters that belong to the actor alone, for one drawn action per state. (With a tanh that squashes
    the action, the gradient is the same before and after it.)

    :param model: the agent
    :param observations: states as the agent's buffers hold them, shape (states, \*observation shape), or a dictionary of
        such: images channels first and not scaled; normalized, if the agent learns on a ``VecNormalize``:
        ``model.get_vec_normalize_env().normalize_obs(observations)``
    :param dormant_threshold: τ of the dormant ratio
    :param n_gradient_states: number of states for the gradients, evenly spread over the batch (all of them if there are fewer)
    :param seed: seed of the drawn actions
    :return: the measures
    :raises ValueError: if there are no states, or their shape is not that of the agent's observations, if an option is out
        of its range, or if the policy is of another kind or has no hidden layer
    """
    if not isinstance(model, BaseAlgorithm):
        raise ValueError(f"model must be an agent, not a {type(model).__name__}")
    check_range("dormant_threshold", dormant_threshold, 0)
    n_gradient_states = whole("n_gradient_states", n_gradient_states, 1)
    seed = whole("seed", seed, 0)
    actor, layers = actor_of(model), _hidden_layers(model)
    states = _as_states(model, observations)
    with evaluating(model.policy):
        # The gradients first: distribution objects that live in the policy then end up without a graph
        gradients = _gradients(actor, spread(states, n_gradient_states), seed)
        magnitudes = record_activations(actor.distribution, [states], layers, read=neuron_magnitudes)
        features = record_activations(actor.distribution, [states], layers[-1:], read=layer_features)
    by_layer = magnitudes.split([layer.n_neurons for layer in layers], dim=1)
    covariance = gradient_covariance(gradients).cpu()
    return Diagnostics(
        dormant_ratio=dormant_ratio(by_layer, dormant_threshold),
        weight_norm=weight_norm(layers),
        activation_norm=activation_norm(by_layer),
        effective_rank=effective_rank(features),
        stable_rank=stable_rank(features),
        gradient_norm=mean_gradient_norm(gradients),
        gradient_correlation=gradient_correlation(covariance),
        gradient_covariance=covariance,
        n_neurons=count_neurons(layers),
        n_states=n_rows(states),
    )


def spread(states: PyTorchObs, n_states: int) -> PyTorchObs:
    """
    :param states: shape (states, ...)
    :param n_states: how many to pick
    :return: so many of them, evenly spread over the batch from the first to the last; all, if there are fewer
    """
    if n_rows(states) <= n_states:
        return states
    return take(states, th.linspace(0, n_rows(states) - 1, n_states).round().long())


def _hidden_layers(model: BaseAlgorithm) -> list[NeuronLayer]:
    """All hidden layers that the actor's input passes through, whether the critic shares them or not."""
    layers = actor_of(model, shared=True).layers
    if not layers:
        raise ValueError(f"policy_kwargs: {type(model.policy).__name__} has no hidden layer whose neurons could be measured")
    return layers


def _as_states(model: BaseAlgorithm, observations: Any) -> PyTorchObs:
    shapes = get_obs_shape(model.observation_space)
    wanted, given = (set(batch) if isinstance(batch, dict) else None for batch in (shapes, observations))
    if wanted != given:
        raise ValueError(f"observations must be {_keys(wanted)}, not {_keys(given)}")
    states: PyTorchObs = apply(partial(_as_tensor, model), observations, shapes)
    if isinstance(states, dict) and len({len(part) for part in states.values()}) > 1:
        raise ValueError("observations must have the same number of states under each key")
    return states


def _keys(keys: set[str] | None) -> str:
    return "a tensor or an array" if keys is None else f"a dictionary with the keys {sorted(keys)}"


def _as_tensor(model: BaseAlgorithm, observations: np.ndarray | th.Tensor, shape: tuple[int, ...]) -> th.Tensor:
    states = th.as_tensor(observations, device=model.device)
    if len(states.shape) == 0 or len(states) == 0 or tuple(states.shape[1:]) != shape:
        wanted = ", ".join(["states", *map(str, shape)])
        raise ValueError(f"observations must have the shape ({wanted}) with at least one state, not {tuple(states.shape)}")
    if states.is_floating_point() and not states.isfinite().all():
        raise ValueError("observations must be finite")
    # NumPy's default; networks have single precision
    return states.float() if states.dtype == th.float64 else states


def _gradients(actor: ActorNetwork, states: PyTorchObs, seed: int) -> th.Tensor:
    """Of log π(a | s), shape (states, parameters)."""
    generator = th.Generator().manual_seed(seed)

    def log_probability(index: int) -> th.Tensor:
        parts: Sequence[Distribution] = actor.distribution(take(states, slice(index, index + 1)))
        return th.stack([part.log_prob(_draw(part, generator)).sum() for part in parts]).sum()

    return sample_gradients(log_probability, n_rows(states), actor.parameters)


@th.no_grad()
def _draw(distribution: Distribution, generator: th.Generator) -> th.Tensor:
    """Draw from a distribution; its own ``sample`` would move the global random stream."""
    if isinstance(distribution, Normal):
        noise = th.randn(distribution.loc.shape, generator=generator)
        return distribution.loc + distribution.scale * noise.to(distribution.loc)
    if isinstance(distribution, Categorical):
        return th.multinomial(distribution.probs.cpu(), 1, generator=generator).squeeze(1).to(distribution.probs.device)
    if isinstance(distribution, Bernoulli):
        return th.bernoulli(distribution.probs.cpu(), generator=generator).to(distribution.probs)
    raise ValueError(f"action_space: gradients of actions that follow {type(distribution).__name__} are not known")
