"""Gradients of single samples."""

import math

import pytest
import torch as th
from torch import nn

from sb3_nbsp.neurons.sample_gradients import (
    gradient_correlation,
    gradient_covariance,
    mean_gradient_norm,
    sample_gradients,
)


def test_gradients_worked_out_by_hand():
    # The gradient of w·x is x
    inputs = th.tensor([[3.0, 4.0], [0.0, 2.0], [-6.0, -8.0], [0.0, 0.0]])
    weight = nn.Parameter(th.zeros(2))
    gradients = sample_gradients(lambda index: inputs[index] @ weight, 4, [weight])
    assert th.equal(gradients, inputs)
    assert mean_gradient_norm(gradients) == pytest.approx((5 + 2 + 10 + 0) / 4)
    expected = th.tensor([[1.0, 0.8, -1.0, 0.0], [0.8, 1.0, -0.8, 0.0], [-1.0, -0.8, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert th.allclose(gradient_covariance(gradients), expected)
    assert gradient_correlation(expected) == pytest.approx(2 * (0.8 + 1 + 0.8) / 12)


def test_they_are_those_of_a_plain_loop():
    network = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
    inputs = th.randn(6, 3)
    parameters = list(network.parameters())
    with th.no_grad():  # wherever it is called from
        gradients = sample_gradients(lambda index: network(inputs[index]).sum(), 6, parameters)
    loop = [th.cat([part.flatten() for part in th.autograd.grad(network(x).sum(), parameters)]) for x in inputs]
    assert th.allclose(gradients, th.stack(loop))
    covariance = gradient_covariance(gradients)
    for i in range(6):
        for j in range(6):
            assert covariance[i, j].item() == pytest.approx(th.cosine_similarity(loop[i], loop[j], dim=0).item(), abs=1e-6)
    assert all(parameter.grad is None for parameter in parameters)


def test_what_a_sample_does_not_depend_on_has_a_gradient_of_zero():
    used, unused, frozen = nn.Parameter(th.ones(2)), nn.Parameter(th.ones(3)), nn.Parameter(th.ones(4), requires_grad=False)
    gradients = sample_gradients(lambda index: (index + 1) * used.sum() * frozen.sum(), 2, [used, unused, frozen])
    assert gradients.tolist() == [[4.0, 4.0, 0.0, 0.0, 0.0], [8.0, 8.0, 0.0, 0.0, 0.0]]


def test_a_single_sample_correlates_with_no_other():
    assert math.isnan(gradient_correlation(th.ones(1, 1)))
