"""Distribution of an activation at successful and other steps."""

import pytest
import torch as th

from sb3_nbsp.neurons.histograms import activation_histogram


def test_by_hand():
    activations = th.tensor([0.0, 0.4, 0.6, 1.0, 1.0, 0.1])
    goal = th.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 0.0])
    histogram = activation_histogram(activations, goal, bins=2)
    assert histogram["edges"] == pytest.approx([0.0, 0.5, 1.0])
    # 0, 0.4 and 0.1 fail below 0.5; 0.6 and the two 1.0 succeed above; the last bin holds its right edge
    assert histogram["failure"] == [3, 0] and histogram["success"] == [0, 3]


def test_success_is_above_the_mean_of_the_goal_metric():
    """As in equation 3: of returns 1, 2, 6 only the last is above 3."""
    histogram = activation_histogram(th.tensor([0.0, 1.0, 2.0]), th.tensor([1.0, 2.0, 6.0]), bins=3)
    assert histogram["success"] == [0, 0, 1] and histogram["failure"] == [1, 1, 0]


def test_a_constant_activation_and_a_constant_metric():
    histogram = activation_histogram(th.full((5,), 0.3), th.ones(5), bins=4)
    assert sum(histogram["failure"]) == 5 and sum(histogram["success"]) == 0
    assert len(histogram["edges"]) == 5 and histogram["edges"][0] == pytest.approx(0.3)
    assert all(low < high for low, high in zip(histogram["edges"], histogram["edges"][1:], strict=False))


def test_every_step_is_counted_once():
    generator = th.Generator().manual_seed(0)
    activations = th.randn(1000, generator=generator).relu()
    goal = th.rand(1000, generator=generator)
    histogram = activation_histogram(activations, goal)
    assert sum(histogram["success"]) == int((goal.double() > goal.double().mean()).sum())
    assert sum(histogram["success"]) + sum(histogram["failure"]) == 1000
    assert len(histogram["success"]) == len(histogram["failure"]) == 20
