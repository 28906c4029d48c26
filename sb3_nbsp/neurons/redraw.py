"""Draw all parameters of a network again, as those of a new one; what is frozen stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch as th
from torch import nn
from torch.nn.utils import parametrize


@th.no_grad()
def redraw(network: nn.Module, initialize: Callable[[nn.Module], None] | None = None) -> None:
    """
    Draw the parameters of a network again, each layer in its own way (``reset_parameters()``), from PyTorch's global
    generator. A weight that is computed from other parameters (``torch.nn.utils.parametrizations``) is drawn, and these
    follow.

    :param network: any; frozen parameters and modules stay as they are
    :param initialize: initializes the network in another way, after that
    :raises ValueError: if it has parameters that nothing draws
    """
    versions = {name: parameter._version for name, parameter in network.named_parameters()}
    computed = [
        (module, name)
        for module in network.modules()
        for name in (module.parametrizations if parametrize.is_parametrized(module) else ())  # type: ignore[union-attr]
    ]
    with keep_frozen(network):
        with parametrize.cached():  # a computed weight is one tensor, which can be written to
            for module in network.modules():
                if callable(draw := getattr(module, "reset_parameters", None)):
                    draw()
            if initialize is not None:
                initialize(network)
            for module, name in computed:
                setattr(module, name, getattr(module, name))
        for module, name in computed:
            _settle(module, name)
    learning = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    if left := [name for name, parameter in learning if parameter._version == versions[name]]:
        raise ValueError(
            f"{left[0]!r} cannot be drawn again: give its module a reset_parameters(), as PyTorch's layers have, or freeze it"
        )


def _settle(module: nn.Module, name: str) -> None:
    """Let ``spectral_norm`` estimate the norm of a new weight, as often as PyTorch does at first."""
    estimating: nn.Module = module.parametrizations[name]  # type: ignore[index, assignment]
    modes = [(each, each.training) for each in estimating.modules()]
    estimating.train()
    for _ in range(15):
        getattr(module, name)
    for each, mode in modes:
        each.training = mode


def check_redrawable(network: nn.Module) -> None:
    """
    :param network: any; it and the random streams stay as they are
    :raises ValueError: see :func:`redraw`
    """
    devices = {parameter.device for parameter in network.parameters() if parameter.device.type == "cuda"}
    with _keep([*network.parameters(), *network.buffers()]), th.random.fork_rng(devices=list(devices)):
        redraw(network)


@contextmanager
def keep_frozen(network: nn.Module) -> Iterator[None]:
    """
    What is frozen has the same values after the block as before: parameters, and all that a module keeps (such as the
    statistics of a batch norm) that has no others.

    :param network: any
    """
    frozen = {parameter for parameter in network.parameters() if not parameter.requires_grad}
    tensors: list[th.Tensor] = list(frozen)
    for module in network.modules():
        if frozen.issuperset(own := list(module.parameters())) and own:
            tensors += module.buffers()
    with _keep(tensors):
        yield


@contextmanager
def _keep(tensors: Sequence[th.Tensor]) -> Iterator[None]:
    kept = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        with th.no_grad():
            for tensor, value in kept:
                tensor.copy_(value)
