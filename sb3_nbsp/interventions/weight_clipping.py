"""Weight clipping: keep all weights within a multiple of their initial range."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn
from typing_extensions import override

from sb3_nbsp.checks import check_range
from sb3_nbsp.interventions.base import Intervention, Network
from sb3_nbsp.interventions.networks import optimized_parameters, plain_policy


class WeightClipping(Intervention):
    r"""
    After every gradient step, clamp the weights and biases of all linear and convolutional layers of actor and critics to
    :math:`\pm \kappa / \sqrt{n}`, where n is the number of inputs of a neuron. PyTorch's initialization lies within
    :math:`\pm 1 / \sqrt{n}`.

    Paper: Weight Clipping for Deep Continual and Reinforcement Learning (Elsayed et al., 2024).

    :param clip_factor: κ, above 0; ``math.inf`` for no clipping
    :raises ValueError: if an option is out of its range
    """

    capturable: ClassVar[bool] = True

    def __init__(self, clip_factor: float = 3.0) -> None:
        check_range("clip_factor", clip_factor, 0, low_open=True, infinite=True)
        self.clip_factor = clip_factor

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        super().attach(agent)
        self._find_bounds()

    @override
    def on_learn_start(self, reset: bool) -> None:
        self._find_bounds()  # layers may have been exchanged since
        self._check_held()

    @override
    def after_step(self, network: Network) -> None:
        if math.isinf(self.clip_factor):
            return
        moved = optimized_parameters(self.agent, network)
        if not self._seen.issuperset(moved):
            self._find_bounds()  # layers have been added, as plasticity injection does
        clipped = [each for each in moved if each in self._bounds and each.requires_grad]
        values, bounds = [each.detach() for each in clipped], [self._bounds[each] for each in clipped]
        th._foreach_clamp_max_(values, bounds)
        th._foreach_clamp_min_(values, [-bound for bound in bounds])

    def _check_held(self) -> None:
        """Weights that others keep for earlier tasks are within the bounds, unless clipping comes later than they did."""
        agent: Any = self.agent
        holders = [type(each).__name__ for each in agent.all_interventions if each.holds_networks and each.lacks is None]
        if math.isinf(self.clip_factor) or not holders or agent.n_finished_phases == 0:
            return
        weights = [each for each in optimized_parameters(agent, "actor") if each in self._bounds]
        largest = max(float(each.detach().abs().max()) / self._bounds[each] for each in weights)
        if largest > 1 + 1e-6:
            raise ValueError(
                f"clip_factor={self.clip_factor:g} would clip weights of the actor that {holders[0]} keeps for earlier tasks. "
                f"Clip from the first phase on, or from {largest * self.clip_factor:.3g}"
            )

    def _find_bounds(self) -> None:
        policy = plain_policy(self.agent)
        self._seen = set(policy.parameters())
        layers = [each for each in policy.modules() if isinstance(each, (nn.Linear, nn.Conv2d))]
        self._bounds: dict[nn.Parameter, float] = {
            parameter: self.clip_factor / math.sqrt(layer.weight[0].numel())
            for layer in layers
            for parameter in layer.parameters()
        }
