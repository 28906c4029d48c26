"""Rows whose moments were cleared move as if they had an Adam of their own: a slow one, with a count per entry."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch as th
from torch import nn

from sb3_nbsp.fast.fused_optimizers import can_step_into, take_step
from sb3_nbsp.fast.masked_step import take_masked_step
from sb3_nbsp.neurons import MaskedStep, find_neuron_layers
from sb3_nbsp.neurons.renewal import clear_incoming_moments, clear_outgoing_moments
from sb3_nbsp.neurons.young_moments import CLEARED_AT, correct_young_moments, has_young

LR = 1e-3
Make = Callable[..., th.optim.Optimizer]


class SlowAdam:
    """Adam on one matrix, entry by entry, in double precision, with a count of steps for each entry."""

    def __init__(self, parameter: th.Tensor, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        self.value = parameter.detach().double().clone()
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.mean, self.square, self.largest = (th.zeros_like(self.value) for _ in range(3))
        self.count = th.zeros_like(self.value)

    def clear(self, where: Any) -> None:
        for each in (self.mean, self.square, self.largest, self.count):
            each[where] = 0

    def step(self, gradient: th.Tensor, decay: float = 0.0, decoupled: float = 0.0, amsgrad: bool = False) -> None:
        gradient = gradient.double() + decay * self.value
        self.value = self.value * (1 - LR * decoupled)
        self.count = self.count + 1
        self.mean = self.beta1 * self.mean + (1 - self.beta1) * gradient
        self.square = self.beta2 * self.square + (1 - self.beta2) * gradient**2
        self.largest = th.maximum(self.largest, self.square)
        square = self.largest if amsgrad else self.square
        denominator = (square / (1 - self.beta2**self.count)).sqrt() + self.eps
        self.value = self.value - LR * self.mean / (1 - self.beta1**self.count) / denominator


def network(dtype: th.dtype = th.float64) -> nn.Sequential:
    th.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 6, dtype=dtype), nn.Tanh(), nn.Linear(6, 7, dtype=dtype), nn.Tanh(), nn.Linear(7, 2, dtype=dtype)
    )


def set_gradients(net: nn.Module, generator: th.Generator) -> None:
    for parameter in net.parameters():
        parameter.grad = th.randn(parameter.shape, generator=generator, dtype=th.float64).to(parameter.dtype)


def run(
    net: nn.Module, optimizer: th.optim.Optimizer, steps: int, generator: th.Generator, *slow: SlowAdam, **options: Any
) -> None:
    """Take steps along noise; the slow ones follow the weight of the second layer."""
    for _ in range(steps):
        set_gradients(net, generator)
        for each in slow:
            each.step(net[2].weight.grad, **options)  # type: ignore[union-attr, operator, index]
        take_step(optimizer)


class Calling(th.optim.Adam):
    """Somebody's own, whose step calls that of its base: PyTorch then calls the hooks of both."""

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        return super().step(closure)


VARIANTS: dict[str, tuple[Make, dict[str, Any]]] = {
    "fused": (lambda p: th.optim.Adam(p, LR, fused=True), {}),
    "plain": (lambda p: th.optim.Adam(p, LR), {}),
    "foreach": (lambda p: th.optim.Adam(p, LR, foreach=True), {}),
    "decay": (lambda p: th.optim.Adam(p, LR, weight_decay=0.3), {"decay": 0.3}),
    "AdamW": (lambda p: th.optim.AdamW(p, LR, weight_decay=0.3), {"decoupled": 0.3}),
    "own": (lambda p: Calling(p, LR), {}),
    "amsgrad": (lambda p: th.optim.Adam(p, LR, amsgrad=True), {"amsgrad": True}),
}


@pytest.mark.parametrize("directly", [True, False])
@pytest.mark.parametrize("name", VARIANTS)
def test_cleared_rows_and_columns_move_as_with_counts_of_their_own(
    name: str, directly: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows and columns cleared at different times, which cross; also where somebody calls the optimizer's own ``step()``."""
    if directly:
        monkeypatch.setitem(globals(), "take_step", lambda optimizer: optimizer.step())
    make, options = VARIANTS[name]
    net, generator = network(), th.Generator().manual_seed(1)
    optimizer, slow = make(net.parameters()), SlowAdam(net[2].weight)
    first, second, _ = find_neuron_layers([("net", nn.Sequential(*net, nn.Tanh()))])
    run(net, optimizer, 60, generator, slow, **options)
    clear_incoming_moments(optimizer, second, th.tensor([1, 4]))
    slow.clear([1, 4])
    run(net, optimizer, 10, generator, slow, **options)
    clear_outgoing_moments(optimizer, first, th.tensor([0, 3]))
    slow.clear((slice(None), [0, 3]))
    before = slow.value
    run(net, optimizer, 40, generator, slow, **options)
    th.testing.assert_close(net[2].weight - before, slow.value - before, rtol=1e-9, atol=1e-12)


def test_two_steps_by_hand() -> None:
    """Gradients 2, then -1: step 1 is lr, step 2 is lr (0.1·0.9·2 - 0.1)/0.19 / sqrt((0.001·0.999·4 + 0.001)/0.001999)."""
    net = network()
    optimizer = th.optim.Adam(net.parameters(), LR)
    run(net, optimizer, 50, th.Generator().manual_seed(0))
    (layer, *_) = find_neuron_layers([("net", net)])
    clear_incoming_moments(optimizer, layer, th.tensor([2]))
    steps = []
    for gradient in (2.0, -1.0):
        before = net[0].weight[2, 0].item()
        net[0].weight.grad = th.full_like(net[0].weight, gradient)
        take_step(optimizer)
        steps.append(net[0].weight[2, 0].item() - before)
    assert steps[0] == pytest.approx(-LR, rel=1e-6)
    assert steps[1] == pytest.approx(-LR * (0.08 / 0.19) / math.sqrt(4.996 / 1.999), rel=1e-6)


def test_a_renewed_row_moves_as_far_as_the_others_over_a_hundred_noisy_steps() -> None:
    parameter = nn.Parameter(th.zeros(2, 1000))
    net = nn.Sequential(nn.Linear(1000, 2, bias=False), nn.Tanh(), nn.Linear(2, 1))
    net[0].weight = parameter
    optimizer, generator = th.optim.Adam([parameter], LR, fused=True), th.Generator().manual_seed(0)

    def step() -> th.Tensor:
        before = parameter.detach().clone()
        parameter.grad = th.randn(2, 1000, generator=generator)
        take_step(optimizer)
        return (parameter.detach() - before).abs().mean(1)

    for _ in range(500):
        step()
    clear_incoming_moments(optimizer, find_neuron_layers([("net", net)])[0], th.tensor([0]))
    moved = th.stack([step() for _ in range(100)])
    # A first step is one learning rate long whatever the gradient; later ones average noise.
    assert moved[0, 0].item() == pytest.approx(LR, rel=1e-3)
    ratio = (moved[:, 0].sum() / moved[:, 1].sum()).item()
    assert ratio == pytest.approx(1.15, abs=0.1)
    assert (moved[50:, 0].mean() / moved[50:, 1].mean()).item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("make", [th.optim.Adamax, th.optim.NAdam, th.optim.RAdam])
def test_other_optimizers_that_correct_their_bias(make: Make) -> None:
    net, generator = network(), th.Generator().manual_seed(0)
    optimizer = make(net.parameters(), lr=LR)
    run(net, optimizer, 400, generator)
    layer = find_neuron_layers([("net", net)])[1]
    clear_incoming_moments(optimizer, layer, th.tensor([1, 4]))
    moved = th.zeros(7, dtype=th.float64)
    for _ in range(100):
        before = net[2].weight.detach().clone()
        run(net, optimizer, 1, generator)
        moved += (net[2].weight.detach() - before).abs().mean(1)
    others = [0, 2, 3, 5, 6]
    limit = 1.5 if make is not th.optim.Adamax else 5  # its maximum is never corrected, in a new one neither
    assert moved[[1, 4]].mean() < limit * moved[others].mean()


@pytest.mark.parametrize("make", [th.optim.SGD, th.optim.RMSprop, th.optim.Adagrad])
def test_without_a_bias_correction_nothing_is_noted(make: Make) -> None:
    net = network()
    optimizer = make(net.parameters(), lr=LR)
    run(net, optimizer, 3, th.Generator().manual_seed(0))
    clear_incoming_moments(optimizer, find_neuron_layers([("net", net)])[0], th.tensor([2]))
    assert not has_young(optimizer)


@pytest.mark.parametrize("fused", [True, False])
def test_masked_steps_are_corrected_too(fused: bool) -> None:
    free, held = network(th.float32), network(th.float32)
    mask = th.tensor([1.0, 0.1, 0.0, 1.0, 0.5, 1.0])
    moved = []
    for net in (free, held):
        generator = th.Generator().manual_seed(0)
        optimizer = th.optim.Adam(net.parameters(), LR, fused=fused)
        run(net, optimizer, 20, generator)
        clear_incoming_moments(optimizer, find_neuron_layers([("net", net)])[0], th.tensor([1, 2, 3]))
        masks = [MaskedStep([(net[0].weight, mask)])] if net is held else []
        before = net[0].weight.detach().clone()
        set_gradients(net, generator)
        assert can_step_into(optimizer) == fused
        take_masked_step(optimizer, masks)
        moved.append(net[0].weight.detach() - before)
    th.testing.assert_close(moved[1], mask[:, None] * moved[0], rtol=1e-3, atol=1e-7)
    th.testing.assert_close(moved[0][1:4].abs(), th.full((3, 5), LR), rtol=1e-3, atol=0)


@pytest.mark.parametrize("fused", [True, False])
def test_other_rows_are_untouched_and_youth_ends(fused: bool) -> None:
    """Bit for bit; after the steps that the second moment averages over, nothing is left to do."""
    nets = [network(th.float32) for _ in range(2)]
    optimizers = [th.optim.Adam(net.parameters(), LR, (0.9, 0.98), fused=fused) for net in nets]
    for net, optimizer in zip(nets, optimizers, strict=True):
        run(net, optimizer, 5, th.Generator().manual_seed(0))
    clear_incoming_moments(optimizers[0], find_neuron_layers([("net", nets[0])])[0], th.tensor([2]))
    for net, optimizer in zip(nets, optimizers, strict=True):
        run(net, optimizer, 50, th.Generator().manual_seed(1))
    assert has_young(optimizers[0])
    held = {name: value.clone() for name, value in optimizers[0].state[nets[0][0].weight].items() if name != CLEARED_AT}
    set_gradients(nets[0], th.Generator().manual_seed(2))
    correct_young_moments(optimizers[0])
    assert not has_young(optimizers[0])
    assert all(th.equal(optimizers[0].state[nets[0][0].weight][name], value) for name, value in held.items())
    others = [0, 1, 3, 4, 5]
    assert th.equal(nets[0][0].weight[others], nets[1][0].weight[others])
    assert th.equal(nets[0][2].weight, nets[1][2].weight)
    take_step(optimizers[0])
    assert not optimizers[0]._optimizer_step_pre_hooks
    assert not th.equal(nets[0][0].weight[2], nets[1][0].weight[2])


def test_the_age_of_a_row_is_saved_and_loaded_with_the_optimizer(tmp_path: Any) -> None:
    nets = [network(th.float32) for _ in range(2)]
    optimizers = [th.optim.Adam(net.parameters(), LR, fused=True) for net in nets]
    first, second, _ = find_neuron_layers([("net", nn.Sequential(*nets[0], nn.Tanh()))])
    generator = th.Generator().manual_seed(0)
    run(nets[0], optimizers[0], 30, generator)
    clear_incoming_moments(optimizers[0], second, th.tensor([1]))
    clear_outgoing_moments(optimizers[0], first, th.tensor([4]))
    run(nets[0], optimizers[0], 7, generator)
    th.save(optimizers[0].state_dict(), tmp_path / "optimizer.pth")
    nets[1].load_state_dict(copy.deepcopy(nets[0].state_dict()))
    optimizers[1].load_state_dict(th.load(tmp_path / "optimizer.pth", weights_only=True))
    for net, optimizer in zip(nets, optimizers, strict=True):
        run(net, optimizer, 20, th.Generator().manual_seed(3))
        assert has_young(optimizer)
        assert len(optimizer._optimizer_step_pre_hooks) == 1
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert th.equal(one, other)
