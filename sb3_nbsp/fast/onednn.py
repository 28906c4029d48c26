r"""
Products in single precision by oneDNN, where PyTorch's own are slow.

PyTorch's matrix products in single precision are Intel's MKL, which chooses its kernels by the name of the processor's maker:
on other processors with AVX-512 it takes those for AVX2, at half of the speed. oneDNN, which PyTorch also brings along, asks
for the instructions instead. The products are the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch as th
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from sb3_nbsp.fast.perceptron import Layer, layers_of

# Inputs and outputs from which on a product gains: a head's does not
WIDE = 16


class OneDnnLayer(Layer):
    """
    A layer whose three products are oneDNN's.

    :param layer: in single precision; these are its parameters
    """

    def __init__(self, layer: Layer) -> None:
        self.weight, self.bias, self._activation = layer.weight, layer.bias, layer._activation

    @override
    def forward(self, inputs: th.Tensor) -> th.Tensor:
        # The activation apart: with oneDNN's own ReLU in the product, NaN would become 0
        return self._activate(_linear(inputs, self.weight, self.bias))

    @override
    def set_gradients(self, gradient: th.Tensor, inputs: th.Tensor) -> None:
        # Z^T X = Z^T (X^T)^T, both as views
        self.weight.grad, self.bias.grad = _linear(gradient.t(), inputs.t()), gradient.sum(0)

    @override
    def input_gradient(self, gradient: th.Tensor, first: int = 0) -> th.Tensor:
        # A part of the weights has strides for which oneDNN has its slow reference only
        return super().input_gradient(gradient, first) if first else _linear(gradient, self.weight.t())


def _linear(inputs: th.Tensor, weight: th.Tensor, bias: th.Tensor | None = None) -> th.Tensor:
    """X W^T + b: what PyTorch's compiler makes of a linear layer on a CPU."""
    found: th.Tensor = th.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return found


def onednn_layers_of(modules: Iterable[nn.Module]) -> list[Layer]:
    """
    :param modules: linear layers and activation functions
    :return: the same as layers, the wide ones in single precision with oneDNN's products
    """
    return [OneDnnLayer(layer) if _is_wide(layer.weight) else layer for layer in layers_of(modules)]


def onednn_in(device: th.device) -> AbstractContextManager[object]:
    """
    For forward passes of any modules, without gradients.

    :param device: the networks' device
    :return: inside of it, wide linear layers are oneDNN's where that is faster
    """
    return _Linears() if onednn_is_faster(device) else nullcontext()


class _Linears(TorchFunctionMode):
    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and not kwargs and args[0].dim() == 2 and args[0].dtype == th.float32 and _is_wide(args[1]):
            return _linear(*args)
        return func(*args, **(kwargs or {}))


def _is_wide(weight: th.Tensor) -> bool:
    return weight.dtype == th.float32 and min(weight.shape) >= WIDE


def onednn_is_faster(device: th.device) -> bool:
    """
    :param device: the networks' device
    :return: whether it is a processor with AVX-512 on which MKL does not use it
    """
    return device.type == "cpu" and _on_this_processor()


@cache
def _on_this_processor() -> bool:
    has_both = th.backends.mkl.is_available() and th.backends.mkldnn.is_available()
    if not has_both or th.backends.cpu.get_cpu_capability() != "AVX512" or _vendor() in ("", "GenuineIntel"):
        return False
    try:
        found = _linear(th.ones(2, 3), th.ones(4, 3), th.ones(4))
    except (AttributeError, RuntimeError, TypeError):  # the operation is not part of PyTorch's public interface
        return False
    return bool((found == 4).all())


def _vendor() -> str:
    """The processor's maker as the processor says it; empty where the system does not tell."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")
