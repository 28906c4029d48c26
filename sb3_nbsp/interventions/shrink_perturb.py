"""Shrink and perturb: pull a network towards 0 and add a little of a new one."""

from __future__ import annotations

from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from typing_extensions import override

from sb3_nbsp.checks import check_range, whole
from sb3_nbsp.interventions.base import NETWORKS, Network
from sb3_nbsp.interventions.fresh_networks import PhaseStartChange, fresh_policy
from sb3_nbsp.interventions.networks import optimized_parameters, plain_policy


class ShrinkPerturb(PhaseStartChange):
    r"""
    At the start of every phase but the first, or at a fixed interval, change all weights and biases of actor and
    critics:

    .. math:: \theta \leftarrow p \theta + \sigma \epsilon

    where :math:`\epsilon` is a newly initialized network, as SB3 would draw it. Target critics follow by averaging. The
    optimizers' moments stay, and so does a standard deviation that is a parameter of its own.

    Paper: On Warm-Starting Neural Network Training (Ash & Adams, 2020).

    :param shrink_factor: p, in [0, 1]; 1 for no shrinking
    :param perturb_scale: σ; 0 for no noise
    :param shrink_interval: gradient steps between two changes, each of which draws a whole policy; None for the starts of
        phases
    :raises ValueError: if an option is out of its range
    """

    waits_for_phase_end = True

    def __init__(self, shrink_factor: float = 0.8, perturb_scale: float = 0.1, shrink_interval: int | None = None) -> None:
        check_range("shrink_factor", shrink_factor, 0, 1)
        check_range("perturb_scale", perturb_scale, 0)
        if shrink_interval is not None:
            shrink_interval = whole("shrink_interval", shrink_interval, 1)
        self.shrink_factor = shrink_factor
        self.perturb_scale = perturb_scale
        self.shrink_interval = shrink_interval
        self.waits_for_phase_end = shrink_interval is None

    @property
    @override
    def needs_phases(self) -> bool:
        return self.shrink_interval is None

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        super().attach(agent)
        self._steps = 0  # gradient steps of the agent

    @override
    def after_step(self, network: Network) -> None:
        if network == "actor" and self.shrink_interval is not None:  # the last of a gradient step
            self._steps += 1
            if self._steps % self.shrink_interval == 0:
                self._apply(self._steps, purpose=321)

    @override
    def change(self, phase: int) -> None:
        if self.shrink_interval is None:
            self._apply(phase, purpose=320)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "steps": self._steps}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._steps = state["steps"]

    def _apply(self, occasion: int, purpose: int) -> None:
        if (self.shrink_factor, self.perturb_scale) == (1, 0):
            return
        fresh = dict(fresh_policy(self.agent, occasion, purpose).named_parameters())
        moved = {id(each) for network in NETWORKS for each in optimized_parameters(self.agent, network)}
        with th.no_grad():
            for name, parameter in plain_policy(self.agent).named_parameters():
                if id(parameter) in moved and parameter.requires_grad and not name.endswith("log_std"):
                    parameter.mul_(self.shrink_factor).add_(fresh[name], alpha=self.perturb_scale)
