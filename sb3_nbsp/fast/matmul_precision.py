r"""
The precision of matrix products in gradient steps, named as PyTorch's :func:`torch.set_float32_matmul_precision` names it.

"highest" is single precision. With "medium" the large products of a perceptron take their factors in bfloat16, which has
the range of single precision and 8 bits of its mantissa, and a processor with instructions for it multiplies twice as fast.
Only these factors are rounded: a product adds up in single precision, and parameters, their gradients, the optimizer, small
layers (the heads, and mostly the first layer, which sees observations and actions) and losses stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch as th
from torch import nn
from torch.nn import functional as F
from typing_extensions import override

from sb3_nbsp.fast.onednn import onednn_is_faster, onednn_layers_of
from sb3_nbsp.fast.perceptron import Layer, layers_of
from sb3_nbsp.messages import warn

MatmulPrecision = Literal["highest", "medium"]
PRECISIONS: tuple[MatmulPrecision, ...] = ("highest", "medium")

# Inputs and outputs from which on a layer is large: below, converting takes about the time that the product saves
LARGE = 64

# Instructions for bfloat16 products, as torch.cpu.get_capabilities() calls them
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")

MakeLayers = Callable[[Iterable[nn.Module]], list[Layer]]


class Bfloat16Layer(Layer):
    r"""
    A layer of which the factors of :math:`X W^T`, :math:`\bar Z^T X` and :math:`\bar Z W` are rounded to bfloat16.

    :param layer: the layer in single precision, whose parameters these are
    :param takes_bfloat16: whether the layer below hands on bfloat16, and so gets its gradient
    :param gives_bfloat16: whether the layer above takes it
    """

    def __init__(self, layer: Layer, takes_bfloat16: bool, gives_bfloat16: bool) -> None:
        self.weight, self.bias, self._activation = layer.weight, layer.bias, layer._activation
        self._input_dtype = th.bfloat16 if takes_bfloat16 else th.float32
        self._output_dtype = th.bfloat16 if gives_bfloat16 else th.float32

    @th.no_grad()
    def prepare(self) -> None:
        """Round the parameters as they are now, once for all products until the next optimizer step."""
        self._rounded_weight, self._rounded_bias = self.weight.bfloat16(), self.bias.bfloat16()

    @override
    def forward(self, inputs: th.Tensor) -> th.Tensor:
        outputs = F.linear(inputs.bfloat16(), self._rounded_weight, self._rounded_bias)
        return self._activate(outputs.to(self._output_dtype))

    @override
    def before_activation(self, gradient: th.Tensor, outputs: th.Tensor) -> th.Tensor:
        # Rounded, as a factor of two products
        return super().before_activation(gradient, outputs).bfloat16()

    @override
    def set_gradients(self, gradient: th.Tensor, inputs: th.Tensor) -> None:
        self.weight.grad = (gradient.t() @ inputs.bfloat16()).float()
        self.bias.grad = gradient.sum(0, dtype=th.float32)

    @override
    def input_gradient(self, gradient: th.Tensor, first: int = 0) -> th.Tensor:
        weight = self._rounded_weight[:, first:] if first else self._rounded_weight
        return (gradient @ weight).to(self._input_dtype)


def bfloat16_layers_of(modules: Iterable[nn.Module]) -> list[Layer]:
    """
    :param modules: linear layers and activation functions in single precision
    :return: the same as layers, the large ones with factors in bfloat16
    """
    layers = layers_of(modules)
    large = [False, *map(_is_large, layers), False]
    return [
        Bfloat16Layer(layer, takes_bfloat16=large[i - 1], gives_bfloat16=large[i + 1]) if large[i] else layer
        for i, layer in enumerate(layers, start=1)
    ]


def layers_in(precision: MatmulPrecision, device: th.device) -> MakeLayers:
    """
    :param precision: what the user wants
    :param device: the networks' device
    :return: makes the layers of a perceptron from its modules
    """
    if precision == "medium" and multiplies_bfloat16(device):
        return bfloat16_layers_of
    return onednn_layers_of if onednn_is_faster(device) else layers_of


@contextmanager
def on_cuda(precision: MatmulPrecision, device: th.device) -> Iterator[None]:
    """
    On a CUDA device PyTorch itself knows the precision of matrix products, whatever computes the gradients.

    :param precision: what the user wants
    :param device: the networks' device
    """
    if precision == "highest" or device.type != "cuda":
        yield
        return
    before = th.get_float32_matmul_precision()
    th.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        th.set_float32_matmul_precision(before)


def warn_if_without_effect(
    precision: MatmulPrecision, device: th.device, is_by_hand: bool, networks: Sequence[nn.Module]
) -> None:
    """
    Say why "medium" changes nothing, where that is so.

    :param precision: what the user wants
    :param device: the networks' device
    :param is_by_hand: whether gradients are computed by hand
    :param networks: of which they are computed
    """
    reason = _why_without_effect(device, is_by_hand, networks)
    if precision == "medium" and reason is not None:
        warn(f"matmul_precision='medium' has no effect: {reason}")


def _why_without_effect(device: th.device, is_by_hand: bool, networks: Sequence[nn.Module]) -> str | None:
    if device.type == "cuda":
        return None
    if not multiplies_bfloat16(device):
        return "this processor has no instructions for products of bfloat16"
    if not is_by_hand:
        return (
            "it is for gradients by hand (fused=True and perceptrons with ReLU or tanh, without penalties: see docs/speed.md) "
            "and for the convolutions of SAC for discrete actions (fused=True)"
        )
    linears = [module for net in networks for module in net.modules() if isinstance(module, nn.Linear)]
    if not any(_is_large(linear) and linear.weight.dtype == th.float32 for linear in linears):
        return f"the networks have no layer of at least {LARGE} inputs and outputs in single precision"
    return None


def _is_large(layer: Layer | nn.Linear) -> bool:
    return layer.weight.dtype == th.float32 and min(layer.weight.shape) >= LARGE


def multiplies_bfloat16(device: th.device) -> bool:
    """
    :param device: the networks' device
    :return: whether it is a processor with instructions for products of bfloat16
    """
    return device.type == "cpu" and any(th.cpu.get_capabilities().get(name, False) for name in _INSTRUCTIONS)
