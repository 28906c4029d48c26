"""How much a neuron matters: NBSP's goal-oriented score and the alternatives of its table 3."""

from collections.abc import Sequence

import torch as th

from sb3_nbsp.neurons.layers import NeuronLayer


def goal_oriented_score(activations: th.Tensor, goal_metric: th.Tensor, exclude_dead: bool = True) -> th.Tensor:
    r"""
    Score of NBSP, equations 1 to 4.

    .. math::
        \bar a(N) &= \tfrac1T \sum_t a(N, t) \qquad (1) \\
        \bar q &= \tfrac1T \sum_t q(t) \qquad (2) \\
        R_{over}(N) &= \tfrac1T \sum_t 1[\,1[a(N,t) > \bar a(N)] = 1[q(t) > \bar q]\,] \qquad (3) \\
        Score(N) &= \max(R_{over}(N),\, 1 - R_{over}(N)) \qquad (4)

    A dead neuron (constant over the window) is never above its own mean: equation 3 gives it a
    score that depends on q alone and says nothing about the neuron. It gets 0.5, the lowest score.

    :param activations: a(N, t), shape (T, neurons)
    :param goal_metric: q(t), shape (T,)
    :param exclude_dead: give dead neurons 0.5; False is the literal formula
    :return: Score(N) in [0.5, 1], shape (neurons,)
    """
    n_steps = len(activations)
    mean = _mean(activations)
    success = goal_metric.double() > goal_metric.double().mean()
    # What counts the steps where both hold, and those where a is above its mean
    weights = th.stack([success, th.ones_like(success)], dim=1).to(activations)
    parts = zip(_in_parts(weights), _in_parts(activations), strict=True)
    counted = [weight.t() @ th.gt(part, mean, out=th.empty_like(part)) for weight, part in parts]
    both, above_mean = th.stack(counted).sum(dim=0, dtype=th.float64)
    r_over = (2 * both - above_mean + n_steps - success.sum()) / n_steps
    score = th.maximum(r_over, 1 - r_over)
    if exclude_dead:
        score[dead_neurons(activations)] = 0.5
    return score


def _in_parts(activations: th.Tensor) -> Sequence[th.Tensor]:
    """Some steps at a time: what is made of them stays in a processor's cache, which takes a quarter of the time."""
    return activations.split(64)


def _mean(activations: th.Tensor) -> th.Tensor:
    """Over the steps; summed in double precision, because the mean of a constant must be that constant."""
    total = th.stack([part.double().sum(dim=0) for part in _in_parts(activations)]).sum(dim=0)
    return (total / len(activations)).to(activations.dtype)


def dead_neurons(activations: th.Tensor) -> th.Tensor:
    """
    Neurons whose activation is the same at every step.

    :param activations: shape (T, neurons)
    :return: boolean tensor of shape (neurons,)
    """
    candidates = th.arange(activations.shape[1], device=activations.device)
    for part in _in_parts(activations):  # mostly, the first few steps rule out all
        candidates = candidates[(part[:, candidates] == activations[0, candidates]).all(dim=0)]
        if len(candidates) == 0:
            break
    return th.zeros(activations.shape[1], dtype=th.bool, device=activations.device).index_fill_(0, candidates, True)


def activation_score(activations: th.Tensor) -> th.Tensor:
    """
    Mean magnitude of the activation (NBSP table 3, "activation").

    :param activations: shape (T, neurons)
    :return: shape (neurons,)
    """
    return activations.abs().mean(dim=0, dtype=th.float64)


def weight_score(layers: Sequence[NeuronLayer]) -> th.Tensor:
    """
    Mean magnitude of the incoming weights (NBSP table 3, "weight").

    :param layers: the neuron layers of one network
    :return: shape (neurons,)
    """
    return th.cat([layer.linear.weight.detach().flatten(1).abs().mean(dim=1, dtype=th.float64) for layer in layers])


def random_score(n_neurons: int, generator: th.Generator) -> th.Tensor:
    """
    Uniform random scores (NBSP table 3, "random").

    :param n_neurons: number of neurons
    :param generator: source of randomness of its own, on the CPU
    :return: shape (neurons,), on the CPU
    """
    return th.rand(n_neurons, generator=generator, dtype=th.float64)


def select_top(scores: th.Tensor, proportion: float, eligible: th.Tensor | None = None) -> th.Tensor:
    r"""
    The RL skill neurons :math:`\tau_m(Score)`: NBSP, equation 5. All hidden layers of a network
    are ranked together; ties are broken by position (the earlier neuron wins).

    :param scores: shape (neurons,)
    :param proportion: m in (0, 1]; the number of neurons is m times all neurons, rounded
    :param eligible: boolean, shape (neurons,); others are never selected (default: all are eligible)
    :return: boolean tensor of shape (neurons,), True for the selected
    """
    number = round(proportion * len(scores))
    order = th.sort(scores, descending=True, stable=True).indices
    if eligible is not None:
        order = order[eligible[order]]
    selected = th.zeros(len(scores), dtype=th.bool, device=scores.device)
    selected[order[:number]] = True
    return selected
