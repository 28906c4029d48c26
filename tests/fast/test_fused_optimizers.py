"""Adam's fused kernel, called directly: the same as ``optimizer.step()``, and left alone where something else can be meant."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch as th
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from sb3_nbsp.fast import fused_optimizers
from sb3_nbsp.fast.fused_optimizers import can_step_into, step_into, take_step


def network() -> nn.Module:
    th.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 17), nn.ReLU(), nn.Linear(17, 3), nn.Linear(3, 1, bias=False))


def set_gradients(net: nn.Module, step: int) -> None:
    generator = th.Generator().manual_seed(step)
    for parameter in net.parameters():
        parameter.grad = th.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def adam(net: nn.Module, **kwargs: Any) -> th.optim.Optimizer:
    """Which has stepped once, so that it has moments."""
    optimizer = th.optim.Adam(net.parameters(), **{"fused": True, **kwargs})
    set_gradients(net, 100)
    optimizer.step()
    return optimizer


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gets "kernel" whenever it is called directly, "step" whenever it is PyTorch's turn."""
    found: list[str] = []
    kernel, step = th._fused_adam_, th.optim.Adam.step

    def counted_step(*args: Any, **kwargs: Any) -> Any:
        found.append("step")
        return step(*args, **kwargs)

    def counted_kernel(*args: Any, **kwargs: Any) -> Any:
        found.append("kernel")
        return kernel(*args, **kwargs)

    monkeypatch.setattr(th.optim.Adam, "step", counted_step)
    monkeypatch.setattr(fused_optimizers.th, "_fused_adam_", counted_kernel)
    return found


@pytest.mark.parametrize("options", [{}, {"lr": 0.1, "weight_decay": 0.3, "eps": 1e-2, "betas": (0.5, 0.7)}])
@pytest.mark.parametrize("dtype", [th.float32, th.float64])
def test_a_direct_step_is_that_of_the_optimizer(options: dict[str, Any], dtype: th.dtype, calls: list[str]) -> None:
    ours = network().to(dtype)
    theirs = copy.deepcopy(ours)
    our_optimizer, their_optimizer = adam(ours, **options), adam(theirs, **options)
    calls.clear()
    for step in range(5):
        for net, optimizer, take in ((ours, our_optimizer, take_step), (theirs, their_optimizer, lambda each: each.step())):
            set_gradients(net, step)
            optimizer.param_groups[0]["lr"] *= 0.9  # as SB3's schedules set it anew
            take(optimizer)
        assert calls.count("step") == step + 1  # theirs alone
    assert all(map(th.equal, ours.parameters(), theirs.parameters()))
    for mine, its in zip(our_optimizer.state.values(), their_optimizer.state.values(), strict=True):
        assert mine.keys() == its.keys() and all(th.equal(mine[name], its[name]) for name in mine)


@pytest.mark.parametrize("lr", [3e-4, 7e-5, 0.1, 1.0])
def test_a_step_beside_the_parameters_is_that_of_the_optimizer(lr: float) -> None:
    ours = network()
    theirs = copy.deepcopy(ours)
    our_optimizer, their_optimizer = adam(ours, lr=lr), adam(theirs, lr=lr)
    changes = [th.full_like(parameter, 1e3) for parameter in ours.parameters()]
    for step in range(5):
        before = [parameter.detach().clone() for parameter in ours.parameters()]
        for net in (ours, theirs):
            set_gradients(net, step)
        assert can_step_into(our_optimizer)
        step_into(our_optimizer, changes)
        assert all(map(th.equal, ours.parameters(), before))
        their_optimizer.step()
        with th.no_grad():
            for parameter, change in zip(ours.parameters(), changes, strict=True):
                parameter += change
        assert all(map(th.equal, ours.parameters(), theirs.parameters()))
    for mine, its in zip(our_optimizer.state.values(), their_optimizer.state.values(), strict=True):
        assert mine.keys() == its.keys() and all(th.equal(mine[name], its[name]) for name in mine)


@pytest.mark.parametrize("options", [{"weight_decay": 0.1}, {"lr": 0.0}, {"fused": False}, {"amsgrad": True}])
def test_steps_that_depend_on_the_parameters_or_are_not_known(options: dict[str, Any]) -> None:
    net = network()
    assert can_step_into(adam(net)) and not can_step_into(adam(net, **options))
    assert not can_step_into(th.optim.Adam(net.parameters(), fused=True))  # which has not stepped yet
    assert not can_step_into(adam(net.double()))


def pre_hook(optimizer: th.optim.Optimizer, net: nn.Module) -> Any:
    return optimizer.register_step_pre_hook(lambda *_: None)


def post_hook(optimizer: th.optim.Optimizer, net: nn.Module) -> Any:
    return optimizer.register_step_post_hook(lambda *_: None)


def global_pre_hook(optimizer: th.optim.Optimizer, net: nn.Module) -> Any:
    return register_optimizer_step_pre_hook(lambda *_: None)


def global_post_hook(optimizer: th.optim.Optimizer, net: nn.Module) -> Any:
    return register_optimizer_step_post_hook(lambda *_: None)


def scheduler(optimizer: th.optim.Optimizer, net: nn.Module) -> Any:
    return StepLR(optimizer, 1)


def second_group(optimizer: th.optim.Optimizer, net: nn.Module) -> Any:
    optimizer.add_param_group({"params": [nn.Parameter(th.ones(1))]})


def learning_rate_tensor(optimizer: th.optim.Optimizer, net: nn.Module) -> Any:
    optimizer.param_groups[0]["lr"] = th.tensor(1e-3)


def no_moments(optimizer: th.optim.Optimizer, net: nn.Module) -> Any:
    optimizer.state.clear()


def no_gradient(optimizer: th.optim.Optimizer, net: nn.Module) -> Any:
    next(net.parameters()).grad = None


def not_fused(optimizer: th.optim.Optimizer, net: nn.Module) -> Any:
    optimizer.param_groups[0]["fused"] = None


def maximize(optimizer: th.optim.Optimizer, net: nn.Module) -> Any:
    optimizer.param_groups[0]["maximize"] = True


CHANGES = [
    pre_hook, post_hook, global_pre_hook, global_post_hook, scheduler, second_group, learning_rate_tensor, no_moments,
    no_gradient, not_fused, maximize,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_else_can_be_meant_is_left_to_the_optimizer(change: Callable[..., Any], calls: list[str]) -> None:
    ours = network()
    theirs = copy.deepcopy(ours)
    for net, step in ((ours, take_step), (theirs, lambda optimizer: optimizer.step())):
        optimizer = adam(net)
        set_gradients(net, 0)
        undo = change(optimizer, net)
        calls.clear()
        step(optimizer)
        assert "step" in calls
        if hasattr(undo, "remove"):
            undo.remove()
    assert all(map(th.equal, ours.parameters(), theirs.parameters()))


@pytest.mark.parametrize("cls", [th.optim.SGD, th.optim.RMSprop, th.optim.AdamW])
def test_other_optimizers_take_their_own_step(cls: type[th.optim.Optimizer], calls: list[str]) -> None:
    ours = network()
    theirs = copy.deepcopy(ours)
    for net, step in ((ours, take_step), (theirs, lambda optimizer: optimizer.step())):
        optimizer = cls(net.parameters(), lr=0.1)  # type: ignore[call-arg]
        for number in range(2):
            set_gradients(net, number)
            step(optimizer)
    assert all(map(th.equal, ours.parameters(), theirs.parameters()))
    assert calls.count("kernel") == 0


class Asks(th.optim.Optimizer):
    """Asks for gradients of its own, as second-order methods do."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {})
        self.answers: list[bool] = []

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.answers.append(th.is_grad_enabled())


def test_an_optimizer_of_somebody_s_own_may_use_autograd() -> None:
    optimizer = Asks(network().parameters())
    take_step(optimizer)
    assert optimizer.answers == [True]
