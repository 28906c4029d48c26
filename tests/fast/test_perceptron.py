"""Perceptrons by hand are those of autograd."""

from __future__ import annotations

import pytest
import torch as th
from torch import nn

from sb3_nbsp.fast.perceptron import Perceptron, layers_of


def make(activation: type[nn.Module] = nn.Tanh, dtype: th.dtype = th.float64) -> nn.Sequential:
    th.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), activation(), nn.Linear(8, 7), activation(), nn.Linear(7, 2)).to(dtype)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("rows", [1, 100])
def test_gradients_are_those_of_autograd(activation: type[nn.Module], rows: int) -> None:
    net, inputs = make(activation), th.randn(rows, 3, dtype=th.float64, requires_grad=True)
    outputs = net(inputs)
    (outputs**2).sum().backward()
    expected = [parameter.grad for parameter in net.parameters()]
    perceptron = Perceptron(layers_of(net.children()))
    with th.no_grad():
        signals = perceptron.forward(inputs)
        th.testing.assert_close(signals[-1], outputs.detach(), rtol=0, atol=1e-14)
        th.testing.assert_close(perceptron.outputs(inputs), outputs.detach(), rtol=0, atol=1e-14)
        perceptron.backward(2 * signals[-1], signals)
        found = perceptron.input_gradient(2 * signals[-1], signals, first=1)
    assert inputs.grad is not None
    th.testing.assert_close(found, inputs.grad[:, 1:], rtol=1e-10, atol=1e-12)
    for parameter, theirs in zip(net.parameters(), expected, strict=True):
        assert parameter.grad is not theirs and parameter.grad is not None and theirs is not None
        assert theirs.abs().max() > 0
        th.testing.assert_close(parameter.grad, theirs, rtol=1e-10, atol=1e-12)


def test_single_precision() -> None:
    net, inputs = make(dtype=th.float32), th.randn(1000, 3)
    with th.no_grad():
        assert (Perceptron(layers_of(net.children())).outputs(inputs) - net(inputs)).abs().max() < 5e-7
