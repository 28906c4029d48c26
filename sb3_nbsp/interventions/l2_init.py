"""L2 Init: pull all parameters back to where they began, so that a network stays as plastic as a young one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn
from typing_extensions import override

from sb3_nbsp.checks import check_range
from sb3_nbsp.interventions.base import NETWORKS, Intervention, Network
from sb3_nbsp.interventions.networks import optimized_parameters, plain_policy


class L2Init(Intervention):
    r"""
    Regenerative regularization: add :math:`\lambda \|\theta - \theta_0\|^2` to the losses of actor and critics, where
    :math:`\theta_0` are the parameters with which the agent begins to learn, either initialized or loaded from a file.
    A parameter that replaces another one later has its own :math:`\theta_0`, and so have networks that are drawn anew as a
    whole (``reset_critics``, :class:`FullReset`).

    The gradient is added in closed form, so that the gradients of the losses can still be computed by hand. PPO clips only
    the gradients of its loss.

    Paper: Maintaining Plasticity in Continual Learning via Regenerative Regularization (Kumar et al., 2023).

    :param l2_init_weight: λ, which the paper varies between 1e-5 and 1e-2; 0 for no pull
    :raises ValueError: if an option is out of its range
    """

    capturable: ClassVar[bool] = True

    def __init__(self, l2_init_weight: float = 1e-4) -> None:
        check_range("l2_init_weight", l2_init_weight, 0)
        self.l2_init_weight = l2_init_weight

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        super().attach(agent)
        self._initial: dict[nn.Parameter, th.Tensor] = {}

    @override
    def on_learn_start(self, reset: bool) -> None:
        for network in NETWORKS:
            self._initial_of(optimized_parameters(self.agent, network))

    def before_step(self, network: Network) -> None:
        r"""Add :math:`\nabla \lambda \|\theta - \theta_0\|^2 = 2 \lambda (\theta - \theta_0)` to the gradients."""
        if self.l2_init_weight == 0:
            return
        moved = [each for each in optimized_parameters(self.agent, network) if each.grad is not None]
        gradients, values = [each.grad for each in moved if each.grad is not None], [each.detach() for each in moved]
        th._foreach_add_(gradients, th._foreach_sub(values, self._initial_of(moved)), alpha=2 * self.l2_init_weight)

    @override
    def after_redraw(self, parameters: Sequence[nn.Parameter]) -> None:
        self._initial.update({each: each.detach().clone() for each in parameters if each in self._initial})

    @override
    def state_dict(self) -> dict[str, Any]:
        named = plain_policy(self.agent).named_parameters()
        return {"initial": {name: self._initial[each] for name, each in named if each in self._initial}}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        named = dict(plain_policy(self.agent).named_parameters())
        self._initial = {named[name]: initial.to(named[name].device) for name, initial in state["initial"].items()}

    def _initial_of(self, parameters: list[nn.Parameter]) -> list[th.Tensor]:
        """Of parameters that were not there before, their present values."""
        for each in parameters:
            if each not in self._initial:
                self._initial[each] = each.detach().clone()
        return [self._initial[each] for each in parameters]
