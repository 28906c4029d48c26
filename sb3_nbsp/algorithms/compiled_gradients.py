"""The losses of SAC and their gradients, compiled by ``torch.compile``."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch as th
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from sb3_nbsp.algorithms.gradients import SACGradients


class CompiledGradients(SACGradients):
    """
    Other gradients, compiled: the same up to rounding. The first batch takes some ten seconds, and so does the first one of
    another size.

    :param gradients: what to compile
    """

    def __init__(self, gradients: SACGradients) -> None:
        self._gradients = gradients

    def _run(self, name: str, *args: Any) -> th.Tensor:
        return _compiled(type(self._gradients), name)(self._gradients, *args)

    def sample_actions(self, data: ReplayBufferSamples) -> th.Tensor:
        """See :class:`SACGradients`."""
        return self._run("sample_actions", data)

    def ent_coef_loss(self, log_ent_coef: th.Tensor, log_prob: th.Tensor, target_entropy: float) -> th.Tensor:
        """See :class:`SACGradients`."""
        return self._gradients.ent_coef_loss(log_ent_coef, log_prob, target_entropy)  # a handful of numbers

    def next_values(self, data: ReplayBufferSamples, ent_coef: th.Tensor) -> th.Tensor:
        """See :class:`SACGradients`."""
        return self._run("next_values", data, ent_coef)

    def critic_loss(self, data: ReplayBufferSamples, target_q_values: th.Tensor) -> th.Tensor:
        """See :class:`SACGradients`."""
        return self._run("critic_loss", data, target_q_values)

    def actor_loss(self, data: ReplayBufferSamples, ent_coef: th.Tensor) -> th.Tensor:
        """See :class:`SACGradients`."""
        return self._run("actor_loss", data, ent_coef)


@cache
def _compiled(cls: type[SACGradients], name: str) -> Any:
    """A method is compiled once, whatever agent it serves; PyTorch keeps a version for every size of networks and batch."""
    return th.compile(getattr(cls, name), dynamic=False)
