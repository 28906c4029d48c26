"""Networks that are drawn again: as new ones, but for what is frozen; what nothing draws is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch as th
from torch import nn

from sb3_nbsp.neurons.redraw import check_redrawable, redraw

weight_norm, spectral_norm = nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(th.tensor(3.0))

    def forward(self, features: th.Tensor) -> th.Tensor:
        return self.factor * features


def network(first: Any = lambda layer: layer) -> nn.Sequential:
    return nn.Sequential(first(nn.Linear(3, 5)), nn.PReLU(), nn.BatchNorm1d(5), nn.Linear(5, 2))


def after_use(net: nn.Sequential) -> nn.Sequential:
    """Nothing is as it was drawn."""
    for parameter in net.parameters():
        parameter.data += 1
    net(th.randn(7, 3))
    return net


def state(net: nn.Module) -> dict[str, th.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


@pytest.mark.parametrize("initialize", [None, lambda net: nn.init.ones_(net[3].weight)])
def test_it_is_as_a_new_one(initialize: Any) -> None:
    th.manual_seed(1)
    new, used = network(), after_use(network())
    if initialize is not None:
        initialize(new)
    th.manual_seed(1)
    redraw(used, initialize)
    assert all(th.equal(value, new.state_dict()[name]) for name, value in used.state_dict().items())


@pytest.mark.parametrize("kind", [weight_norm, spectral_norm])
def test_computed_weights_are_drawn(kind: Any) -> None:
    used = after_use(network(kind))
    before = state(used[0])
    th.manual_seed(1)
    redraw(used)
    th.manual_seed(1)
    plain = nn.Linear(3, 5)
    direction = th.nn.functional.normalize(used.eval()[0].weight.flatten(), dim=0)
    th.testing.assert_close(direction, th.nn.functional.normalize(plain.weight.flatten(), dim=0))
    assert th.equal(used[0].bias, plain.bias)
    assert not any(th.equal(parameter, before[name]) for name, parameter in used[0].named_parameters())
    used(th.randn(7, 3)).sum().backward()
    assert all(parameter.grad is not None for parameter in used.parameters())


def test_what_is_frozen_stays() -> None:
    used = after_use(network())
    used[0].bias.requires_grad_(False)
    used[2].requires_grad_(False)
    before = state(used)
    redraw(used)
    stay = {"0.bias", "2.weight", "2.bias", "2.running_mean", "2.running_var", "2.num_batches_tracked"}
    assert {name for name, value in used.state_dict().items() if th.equal(value, before[name])} == stay


@pytest.mark.parametrize("odd", [Scale(), nn.utils.spectral_norm(nn.Linear(3, 3))])
def test_what_nothing_draws_is_named_before_anything_is_lost(odd: nn.Module) -> None:
    used = nn.Sequential(nn.Linear(3, 3), odd)
    before, random = state(used), th.get_rng_state()
    with pytest.raises(
        ValueError, match=r"'1\.(factor|weight_orig)' cannot be drawn again: give its module a reset_parameters"
    ):
        check_redrawable(used)
    check_redrawable(used[0])
    assert all(th.equal(value, before[name]) for name, value in used.state_dict().items())
    assert th.equal(th.get_rng_state(), random)
    odd.requires_grad_(False)
    redraw(used)
