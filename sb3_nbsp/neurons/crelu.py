"""Concatenated ReLU."""

from typing import Any, TypeVar

import torch as th
from torch import nn

AnyLayer = TypeVar("AnyLayer", nn.Linear, nn.Conv2d)


class CReLU(nn.Module):
    r"""
    Concatenated ReLU (Shang et al., 2016; against loss of plasticity: Abbas et al., 2023).

    .. math:: CReLU(x) = [\max(x, 0), \max(-x, 0)]

    The next layer sees twice the features: neuron ``j`` of ``n`` owns the features ``j`` and ``n + j``.
    """

    features_per_neuron = 2

    def forward(self, x: th.Tensor) -> th.Tensor:
        """
        :param x: shape (batch, n, ...)
        :return: shape (batch, 2 n, ...)
        """
        return th.cat([th.relu(x), th.relu(-x)], dim=1)


def widen_after(net: nn.Sequential) -> int:
    """
    Make every linear or convolutional layer read as many features as the activation function in front of it returns. SB3
    builds networks as if a layer's outputs were as many as its neurons, which a :class:`CReLU` doubles. A layer that is too
    narrow is replaced, in place; without one nothing is touched, and nothing is drawn.

    :param net: layers, activation functions and a flatten, in the order of the forward pass
    :return: how many times as many features as SB3 assumes the network returns: 2 if a CReLU is its end, otherwise 1
    """
    factor = 1
    for index, module in enumerate(net):
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            if factor > 1:
                net[index] = widened(module, factor)  # type: ignore[type-var]
            factor = 1
        else:
            factor *= int(getattr(module, "features_per_neuron", 1))
    return factor


def widened(layer: AnyLayer, factor: int) -> AnyLayer:
    """
    :param layer: a linear layer, or a convolution of one group
    :param factor: how many times its inputs the new one has
    :return: a new layer, with PyTorch's own initialization
    """
    like: dict[str, Any] = {
        "bias": layer.bias is not None,
        "device": layer.weight.device,
        "dtype": layer.weight.dtype,
    }
    if isinstance(layer, nn.Linear):
        return nn.Linear(factor * layer.in_features, layer.out_features, **like)
    like.update(kernel_size=layer.kernel_size, stride=layer.stride, padding=layer.padding)
    return nn.Conv2d(factor * layer.in_channels, layer.out_channels, **like)
