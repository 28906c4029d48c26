"""From masks of neurons to masks of the parameters that belong to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch as th
from torch import nn

from sb3_nbsp.interventions.networks import AgentNetwork
from sb3_nbsp.neurons.layers import NeuronLayer

MaskSide = Literal["incoming", "outgoing", "both"]


def parameter_masks(
    networks: Sequence[AgentNetwork], masks: Mapping[str, th.Tensor], side: MaskSide
) -> dict[nn.Parameter, th.Tensor]:
    """
    Which parameters a neuron's mask holds back. Its incoming ones: row j of its layer's weight, its bias, the gain and bias
    of a norm layer, its slope; what all neurons of a layer share (one slope of a PReLU) has the smallest of their masks. Its
    outgoing ones: the columns that read it, of the next layer or of the output layers; the biases there stay free. A
    parameter that several masks apply to has the smallest.

    :param networks: the networks
    :param masks: by name of a layer the masks of its neurons, shape (neurons,); layers without one are left alone
    :param side: "incoming", "outgoing" or "both"
    :return: by parameter its mask, as :class:`~sb3_nbsp.neurons.MaskedStep` takes it
    :raises ValueError: if the outgoing weights of a layer cannot be told
    """
    rows: dict[nn.Parameter, th.Tensor] = {}
    columns: dict[nn.Parameter, th.Tensor] = {}
    for network in networks:
        for layer in network.layers:
            if layer.name not in masks:
                continue
            mask = masks[layer.name].to(layer.linear.weight.device)
            if side != "outgoing":
                for _, parameter in layer.incoming():
                    rows[parameter] = _smaller(rows.get(parameter), mask)
                for parameter in layer.shared():
                    rows[parameter] = _smaller(rows.get(parameter), mask.min().view(1))
            if side != "incoming":
                for parameter, factor in _of_columns(layer, mask):
                    columns[parameter] = _smaller(columns.get(parameter), factor)
    for parameter, factor in columns.items():
        row = rows.get(parameter)
        rows[parameter] = factor if row is None else th.minimum(row.view(-1, *[1] * (factor.dim() - 1)), factor)
    return rows


def _of_columns(layer: NeuronLayer, mask: th.Tensor) -> list[tuple[nn.Parameter, th.Tensor]]:
    """For each weight that reads the layer, a factor of its columns: shape (1, columns, 1, ...)."""
    found = []
    for consumer, columns in layer.outgoing():
        weight = consumer.weight
        if not isinstance(weight, nn.Parameter):
            raise ValueError(f"mask_side: the layer that reads {layer.name!r} computes its weight from other parameters")
        factor = th.ones(weight.shape[1], dtype=mask.dtype, device=mask.device)
        factor[columns] = mask[:, None, None].expand(columns.shape)
        found.append((weight, factor.view(1, -1, *[1] * (weight.dim() - 2))))
    return found


def _smaller(first: th.Tensor | None, second: th.Tensor) -> th.Tensor:
    return second if first is None else th.minimum(first, second)
