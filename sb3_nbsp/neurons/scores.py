"""How much a neuron matters: NBSP's goal-oriented score, its chance-corrected form, and the alternatives of its table 3."""

from collections.abc import Sequence

import torch as th

from sb3_nbsp.neurons.layers import NeuronLayer


def goal_oriented_score(activations: th.Tensor, goal_metric: th.Tensor) -> th.Tensor:
    r"""
    Score of NBSP, equations 1 to 4.

    .. math::
        \bar a(N) &= \tfrac1T \sum_t a(N, t) \qquad (1) \\
        \bar q &= \tfrac1T \sum_t q(t) \qquad (2) \\
        R_{over}(N) &= \tfrac1T \sum_t 1[\,1[a(N,t) > \bar a(N)] = 1[q(t) > \bar q]\,] \qquad (3) \\
        Score(N) &= \max(R_{over}(N),\, 1 - R_{over}(N)) \qquad (4)

    For a neuron that has nothing to do with the goal and is above its mean on a share p of the steps, R_over is
    p q + (1 - p)(1 - q), with q the share of steps where q(t) is above its mean: the more rarely it is active, the nearer
    its score is to max(q, 1 - q). See :func:`balanced_score`, and :func:`active_share` for neurons that hardly move.

    :param activations: a(N, t), shape (T, neurons)
    :param goal_metric: q(t), shape (T,)
    :return: Score(N) in [0.5, 1], shape (neurons,)
    """
    n_steps, success = len(activations), _above_mean(goal_metric)
    both, above = _count_above_mean(activations, success)
    r_over = (2 * both - above + n_steps - success.sum()) / n_steps
    return th.maximum(r_over, 1 - r_over)


def balanced_score(activations: th.Tensor, goal_metric: th.Tensor) -> th.Tensor:
    r"""
    NBSP's score, corrected for chance: the balanced accuracy of [a > ā] as a predictor of [q > q̄].

    .. math::
        b(N) &= \tfrac12 P(a(N, t) > \bar a(N) \mid q(t) > \bar q) + \tfrac12 P(a(N, t) \le \bar a(N) \mid q(t) \le \bar q) \\
        Score(N) &= \max(b(N),\, 1 - b(N))

    A neuron that has nothing to do with the goal scores 0.5, however often it is active and the agent
    succeeds. If the goal metric is constant, all neurons score 0.5. If half of the steps are successes, it is
    :func:`goal_oriented_score`.

    :param activations: a(N, t), shape (T, neurons)
    :param goal_metric: q(t), shape (T,)
    :return: Score(N) in [0.5, 1], shape (neurons,)
    """
    success = _above_mean(goal_metric)
    n_success, n_failure = success.sum(), (~success).sum()
    if n_success == 0:
        return th.full((activations.shape[1],), 0.5, dtype=th.float64, device=activations.device)
    both, above = _count_above_mean(activations, success)
    balanced = (both / n_success + (n_failure - (above - both)) / n_failure) / 2
    return th.maximum(balanced, 1 - balanced)


def active_share(activations: th.Tensor) -> th.Tensor:
    """
    How much a neuron moves: the smaller of the shares of steps on either side of its mean. It is 0 for a dead neuron,
    whose activation is the same at every step, and near 0 for one that is active on hardly any step or off on hardly any:
    T steps do not show what such a neuron does.

    :param activations: a(N, t), shape (T, neurons)
    :return: in [0, 0.5], shape (neurons,)
    """
    n_steps = len(activations)
    _, above = _count_above_mean(activations, th.zeros(n_steps, dtype=th.bool, device=activations.device))
    return th.minimum(above, n_steps - above) / n_steps


def dead_neurons(activations: th.Tensor) -> th.Tensor:
    """
    Neurons whose activation is the same at every step.

    :param activations: shape (T, neurons)
    :return: boolean tensor of shape (neurons,)
    """
    return (activations == activations[0]).all(dim=0)


def _above_mean(goal_metric: th.Tensor) -> th.Tensor:
    return goal_metric.double() > goal_metric.double().mean()


def _count_above_mean(activations: th.Tensor, success: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """Of each neuron the steps with success on which it is above its mean, and all steps on which it is."""
    mean = _mean(activations)
    weights = th.stack([success, th.ones_like(success)], dim=1).to(activations)
    parts = zip(_in_parts(weights), _in_parts(activations), strict=True)
    counted = [weight.t() @ th.gt(part, mean, out=th.empty_like(part)) for weight, part in parts]
    both, above = th.stack(counted).sum(dim=0, dtype=th.float64)
    return both, above


def _in_parts(activations: th.Tensor) -> Sequence[th.Tensor]:
    """Some steps at a time: what is made of them stays in a processor's cache, which takes a quarter of the time."""
    return activations.split(64)


def _mean(activations: th.Tensor) -> th.Tensor:
    """Over the steps; summed in double precision, because the mean of a constant must be that constant."""
    total = th.stack([part.double().sum(dim=0) for part in _in_parts(activations)]).sum(dim=0)
    return (total / len(activations)).to(activations.dtype)


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
    :param generator: a separate source of randomness, on the CPU
    :return: shape (neurons,), on the CPU
    """
    return th.rand(n_neurons, generator=generator, dtype=th.float64)


def select_top(scores: th.Tensor, proportion: float, eligible: th.Tensor | None = None) -> th.Tensor:
    r"""
    The RL skill neurons :math:`\tau_m(Score)`: NBSP, equation 5. All hidden layers of a network
    are ranked together; ties are broken by position (the earlier neuron wins).

    :param scores: shape (neurons,)
    :param proportion: m in (0, 1]; the number of neurons is m times the eligible ones, rounded
    :param eligible: boolean, shape (neurons,); others are never selected (default: all are eligible)
    :return: boolean tensor of shape (neurons,), True for the selected neurons
    """
    order = th.sort(scores, descending=True, stable=True).indices
    if eligible is not None:
        order = order[eligible[order]]
    number = round(proportion * len(order))
    selected = th.zeros(len(scores), dtype=th.bool, device=scores.device)
    selected[order[:number]] = True
    return selected
