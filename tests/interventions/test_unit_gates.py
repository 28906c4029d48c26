"""Gates of units: straight-through masks, and the parameters that are free."""

from __future__ import annotations

import pytest
import torch as th
from torch import nn

from sb3_nbsp.interventions.unit_gates import free_parameters, make_gates, straight_through
from sb3_nbsp.neurons.layers import find_neuron_layers


def test_straight_through() -> None:
    codes = th.tensor([0.5, -0.1, 1.2, 0.0, 1.0])
    assert straight_through(th.full((5,), 3.0), codes).tolist() == [3, 0, 0, 0, 0]


def test_free_parameters_by_hand() -> None:
    """Units (1, 0) and then (1, 1, 0) belong to finished tasks."""
    net, heads = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3), nn.ReLU()), [nn.Linear(3, 1)]
    layers = find_neuron_layers([("net", net)], heads, lambda: heads[0](net(th.randn(4, 2))))
    actor = nn.ModuleList([net, *heads])
    free = free_parameters(actor, layers, [th.tensor([1.0, 0.0]), th.tensor([1.0, 1.0, 0.0])])
    first, second, head = net[0], net[2], heads[0]
    assert free[first.weight].tolist() == [[0, 0], [1, 1]] and free[first.bias].tolist() == [0, 1]
    assert free[second.weight].tolist() == [[0, 1], [0, 1], [1, 1]] and free[second.bias].tolist() == [0, 0, 1]
    assert free[head.weight].tolist() == [[0, 0, 1]] and free[head.bias].tolist() == [0]


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 2, 2)])
def test_the_gradient_of_a_mask_is_autograds(shape: tuple[int, ...]) -> None:
    layer = nn.Linear(3, 4) if len(shape) == 2 else nn.Conv2d(3, 4, 2)
    net = nn.Sequential(layer, nn.Tanh())
    (found,) = find_neuron_layers([("net", net)])
    (gate,) = make_gates(net, [found])
    gate.set_units(found, th.tensor([0.5, -1.0, 0.2, 0.0]))
    assert gate.mask is not None and gate.mask.flatten().tolist() == [1, 0, 1, 0]
    gate.listens = True
    inputs = th.randn(shape)
    net(inputs).square().sum().backward()
    mask = gate.mask.clone().requires_grad_()
    layer._forward_hooks.clear()
    (layer(inputs) * mask).tanh().square().sum().backward()
    assert mask.grad is not None and gate.gradient is not None
    th.testing.assert_close(gate.gradient, mask.grad.flatten())
