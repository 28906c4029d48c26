"""The masked step of NBSP in one pass: Adam's step is computed beside the parameters and added to them, times the mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

import torch as th

from sb3_nbsp.fast.fused_optimizers import can_step_into, step_into, take_step
from sb3_nbsp.neurons.masks import MaskedStep


def take_masked_step(optimizer: th.optim.Optimizer, masked: Sequence[MaskedStep]) -> None:
    """
    ``optimizer.step()``, scaled by all masks: where several hold back the same neuron, by their product. Parameters that have
    no mask take the whole step.

    :param optimizer: any
    :param masked: may be empty
    """
    if not masked:
        take_step(optimizer)
        return
    *others, last = dict.fromkeys(masked)  # one that masks two networks counts once
    for other in others:
        other.before()
    if can_step_into(optimizer):
        if last not in _ADDED:
            _ADDED[last] = _AddedStep(last.factors)
        _ADDED[last].take(optimizer)
    else:
        last.before()
        take_step(optimizer)
        last.after()
    for other in reversed(others):
        other.after()


class _AddedStep:
    """
    Adam's step, written beside the parameters and then added to them.

    :param factors: masks by parameter, each in a shape that multiplies it
    """

    def __init__(self, factors: Mapping[th.Tensor, th.Tensor]) -> None:
        self._masks = factors
        self._parameters: list[th.Tensor] = []
        self._versions = -1

    @th.no_grad()
    def take(self, optimizer: th.optim.Optimizer) -> None:
        """
        The masked step.

        :param optimizer: one that can step into other memory
        """
        parameters: list[th.Tensor] = optimizer.param_groups[0]["params"]
        if parameters is not self._parameters:
            self._cover(parameters)
        if self._versions != _versions(parameters):
            # Somebody else has written to the parameters, perhaps because the last step was not finite: see step_into
            th._foreach_zero_(self._changes)
        step_into(optimizer, self._changes)
        # With a mask of 1 this is what the kernel itself would do, bit for bit; with 0 nothing
        th._foreach_addcmul_(parameters, self._changes, self._factors)
        self._versions = _versions(parameters)

    def _cover(self, parameters: list[th.Tensor]) -> None:
        self._parameters, self._versions = parameters, -1
        one = th.ones((), dtype=parameters[0].dtype)
        self._factors = [self._masks.get(parameter, one) for parameter in parameters]
        self._changes = [th.zeros_like(parameter.data) for parameter in parameters]


_ADDED: WeakKeyDictionary[MaskedStep, _AddedStep] = WeakKeyDictionary()


def _versions(parameters: Sequence[th.Tensor]) -> int:
    """PyTorch counts how often a tensor is written to (other than by its ``data``)."""
    return sum(parameter._version for parameter in parameters)
