"""Distribution of a neuron's activation when the agent does well and when it does not (NBSP, figures 1 and 7)."""

from __future__ import annotations

from typing import Any

import torch as th


def activation_histogram(activations: th.Tensor, goal_metric: th.Tensor, bins: int = 20) -> dict[str, Any]:
    """
    Histograms of one neuron's activation over the steps with q(t) above its mean and over the others.

    :param activations: a(N, t), shape (T,)
    :param goal_metric: q(t), shape (T,)
    :param bins: number of bins of equal width, from the smallest activation to the largest
    :return: "edges" (bins + 1 numbers), "success" and "failure" (number of steps in each bin)
    """
    values, goal = activations.detach().cpu().double(), goal_metric.detach().cpu().double()
    low, high = values.min().item(), values.max().item()
    edges = th.linspace(low, max(high, low + 1e-12), bins + 1, dtype=th.float64)
    success = goal > goal.mean()
    counts = {
        name: th.histogram(values[chosen], edges).hist.long().tolist()
        for name, chosen in (("success", success), ("failure", ~success))
    }
    return {"edges": edges.tolist(), **counts}
