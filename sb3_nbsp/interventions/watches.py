"""Forward hooks that show an intervention what modules return in training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch as th
from torch import nn


class Watcher(Protocol):
    """An intervention that watches."""

    def watch(self, index: int, output: th.Tensor) -> None:
        """
        :param index: of the module
        :param output: what it returned
        """


class _Watch:
    """Shows passes with gradients in training mode. Copies of the module do not show theirs."""

    def __init__(self, watcher: Watcher | None, index: int) -> None:
        self.watcher, self.index = watcher, index

    def __call__(self, module: nn.Module, _inputs: object, output: th.Tensor) -> None:
        if self.watcher is not None and output.requires_grad and module.training:
            self.watcher.watch(self.index, output)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Watch, (None, self.index)


def watch_modules(policy: nn.Module, watcher: Watcher, modules: Iterable[nn.Module]) -> None:
    """
    Let an intervention watch modules, and no others.

    :param policy: what the modules are part of
    :param watcher: the intervention
    :param modules: it is told of them by their position
    """
    for module in policy.modules():
        for key, hook in list(module._forward_hooks.items()):
            if isinstance(hook, _Watch) and hook.watcher in (watcher, None):  # None: it came with a copy
                del module._forward_hooks[key]
    for index, module in enumerate(modules):
        module.register_forward_hook(_Watch(watcher, index))
