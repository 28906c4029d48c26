"""Perceptrons by hand are those of autograd; what cannot run by hand runs as before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch as th
from torch import nn

from sb3_nbsp.neurons.perceptron import Perceptron, by_hand, layers_of


def make(activation: type[nn.Module] = nn.Tanh, dtype: th.dtype = th.float64) -> nn.Sequential:
    th.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 80), activation(), nn.Linear(80, 70), activation()).to(dtype)


def gradients(net: nn.Module, inputs: th.Tensor) -> list[th.Tensor]:
    net.zero_grad()
    (net(inputs) ** 2).sum().backward()
    return [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("rows", [1, 100])  # few and many numbers
def test_by_hand(activation: type[nn.Module], rows: int) -> None:
    net = make(activation)
    whole, inputs = nn.ModuleDict({"net": net, "other": nn.Linear(2, 2)}), th.randn(rows, 3, dtype=th.float64)
    outputs, expected = net(inputs), gradients(net, inputs)
    with by_hand(whole):
        assert "ByHand" in type(net(inputs).grad_fn).__name__
        th.testing.assert_close(net(inputs), outputs, rtol=0, atol=1e-14)
        found = gradients(net, inputs)
        with th.no_grad():
            th.testing.assert_close(net(inputs), outputs, rtol=0, atol=1e-14)
    assert len(found) == len(expected) == 4
    for ours, theirs in zip(found, expected, strict=True):
        th.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10 * theirs.abs().max().item())
    assert "forward" not in vars(net)
    perceptron = Perceptron(layers_of(net.children()))
    th.testing.assert_close(perceptron.outputs(inputs), outputs)
    assert [*map(id, perceptron.parameters())] == [*map(id, net.parameters())]


def test_single_precision() -> None:
    net, inputs = make(dtype=th.float32), th.randn(1000, 3)
    expected = net(inputs)
    with by_hand(net):
        assert (net(inputs) - expected).abs().max() < 5e-7


def test_inputs_that_need_a_gradient() -> None:
    net, inputs = make(), th.randn(5, 3, dtype=th.float64, requires_grad=True)
    net(inputs).sum().backward()
    expected = inputs.grad
    inputs.grad = None
    with by_hand(net):
        net(inputs).sum().backward()
    assert inputs.grad is not None and expected is not None
    assert th.equal(inputs.grad, expected)


CHANGES: dict[str, Callable[[nn.Sequential], object]] = {
    "hook": lambda net: net[1].register_forward_hook(lambda *_: None),
    "frozen": lambda net: net[0].requires_grad_(False),
    "layer norm": lambda net: net.append(nn.LayerNorm(70)),
    "no bias": lambda net: net.__setitem__(0, nn.Linear(3, 80, bias=False).double()),
    "half precision": lambda net: net.half(),
    "weight norm": lambda net: nn.utils.parametrizations.weight_norm(net[0]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_networks_run_as_before(name: str) -> None:
    net = make()
    CHANGES[name](net)
    with by_hand(net):
        assert "forward" not in vars(net)


def test_errors_leave_nothing_behind() -> None:
    net = make()
    with pytest.raises(RuntimeError), by_hand(net):
        net(th.zeros(2, 4, dtype=th.float64))
    assert "forward" not in vars(net)
