"""Running statistics of batch norms under masks: a neuron that is held back is held back in what normalizes it, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch as th
from torch import nn

from sb3_nbsp.interventions.networks import AgentNetwork
from sb3_nbsp.neurons.module_kinds import mixes_rows, tracks_statistics


class MaskedStatistics:
    """
    Scales how far forward passes move the running mean and variance of each neuron, as its mask scales the optimizer's step.

    :param networks: the networks
    :param masks: by name of a layer the masks of its neurons, shape (neurons,); layers without one are left alone
    """

    def __init__(self, networks: Sequence[AgentNetwork], masks: Mapping[str, th.Tensor]) -> None:
        self._masks: dict[th.Tensor, th.Tensor] = {}
        for layer in (layer for network in networks for layer in network.layers if layer.name in masks):
            for statistic in (each for norm in layer.norms if tracks_statistics(norm) for each in _statistics(norm)):
                mask = masks[layer.name].to(statistic)
                other = self._masks.get(statistic)
                self._masks[statistic] = mask if other is None else th.minimum(mask, other)
        self.keep()

    def keep(self) -> None:
        """Take the statistics as they are for those that the next gradient step starts from."""
        self._kept = {statistic: statistic.clone() for statistic in self._masks}

    def after_step(self) -> None:
        """Take back what the masks do not allow. Neurons with a mask of 1 are not touched; 0 is exact too."""
        for statistic, mask in self._masks.items():
            # By its data: a loss whose gradient is still to come has this tensor in its graph, but no use for its values
            th.lerp(self._kept[statistic], statistic.data, mask, out=statistic.data)
            self._kept[statistic].copy_(statistic)


def _statistics(norm: nn.Module) -> list[th.Tensor]:
    return [buffer for name, buffer in norm.named_buffers() if name in ("running_mean", "running_var")]


def check_maskable(networks: Sequence[AgentNetwork], modules: Sequence[tuple[str, nn.Module]]) -> None:
    """
    :param networks: the networks whose neurons are masked
    :param modules: all modules that these networks are made of, by name
    :raises ValueError: if something else than a neuron's own parameters and statistics would move what a masked neuron does
    """
    layers = [layer for network in networks for layer in network.layers]
    for layer in layers:
        if mixes_rows(layer.linear):
            raise ValueError(
                f"The neurons of {layer.name!r} cannot be held back one by one: its weight is parametrized (spectral_norm), "
                "and each row depends on all. Use a plain layer or weight_norm"
            )
    own = {id(norm) for layer in layers for norm in layer.norms}
    for name, module in modules:
        if tracks_statistics(module) and id(module) not in own:
            raise ValueError(
                f"{name!r} ({type(module).__name__}) is not between a layer and its activation function: its running "
                "statistics belong to no neuron, and would change what masked neurons read. Put it there, or use a LayerNorm"
            )
