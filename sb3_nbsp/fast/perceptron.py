r"""
Multilayer perceptrons with gradients by hand: what autograd does, without its bookkeeping.

Notation: :math:`\bar x` is the gradient of a loss with respect to x, with x's shape. Rows are samples, so that a layer is
:math:`Y = f(X W^T + b)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy

import torch as th
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.module import _has_any_global_hook

_ACTIVATIONS = (nn.ReLU, nn.Tanh)
_DTYPES = (th.float32, th.float64)


class Layer:
    r"""
    A linear layer with its activation function: :math:`Y = f(Z)`, :math:`Z = X W^T + b`.

    :param linear: holds W, shape (outputs, inputs), and b, shape (outputs,)
    :param activation: f: ReLU, Tanh, or None for the identity
    """

    def __init__(self, linear: nn.Linear, activation: nn.Module | None = None) -> None:
        self.weight: th.Tensor = linear.weight
        self.bias: th.Tensor = linear.bias
        self._activation = type(activation)

    def prepare(self) -> None:
        """To be called before the first pass with parameters that may have changed."""

    def copy(self) -> Layer:
        """The same layer with parameters of its own, without gradients."""
        copied = copy(self)
        copied.weight, copied.bias = (each.detach().clone() for each in (self.weight, self.bias))
        return copied

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        """
        :param inputs: X, shape (batch, inputs)
        :return: Y, shape (batch, outputs)
        """
        return self._activate(F.linear(inputs, self.weight, self.bias))

    def _activate(self, outputs: th.Tensor) -> th.Tensor:
        """f, in place."""
        if self._activation is nn.ReLU:
            return outputs.relu_()
        return outputs.tanh_() if self._activation is nn.Tanh else outputs

    def before_activation(self, gradient: th.Tensor, outputs: th.Tensor) -> th.Tensor:
        r"""
        :math:`\bar Z = \bar Y \odot f'(Z)`, where the outputs tell f': for ReLU it is 1 where Y > 0 and 0 elsewhere,
        for tanh it is :math:`1 - Y^2`.

        :param gradient: :math:`\bar Y`, shape (batch, outputs)
        :param outputs: Y, shape (batch, outputs)
        :return: :math:`\bar Z`, shape (batch, outputs)
        """
        if self._activation is nn.ReLU:
            return th.ops.aten.threshold_backward(gradient, outputs, 0)  # one pass, as autograd does it
        return th.ops.aten.tanh_backward(gradient, outputs) if self._activation is nn.Tanh else gradient

    def set_gradients(self, gradient: th.Tensor, inputs: th.Tensor) -> None:
        r"""
        Leave :math:`\bar W = \bar Z^T X` and :math:`\bar b = \sum_i \bar Z_i` in the ``grad`` of the parameters.

        :param gradient: :math:`\bar Z`, shape (batch, outputs)
        :param inputs: X, shape (batch, inputs)
        """
        self.weight.grad, self.bias.grad = gradient.t() @ inputs, gradient.sum(0)

    def input_gradient(self, gradient: th.Tensor, first: int = 0) -> th.Tensor:
        r"""
        :math:`\bar X = \bar Z W`.

        :param gradient: :math:`\bar Z`, shape (batch, outputs)
        :param first: index of the first input that matters
        :return: shape (batch, inputs - first)
        """
        return gradient @ (self.weight[:, first:] if first else self.weight)


class Perceptron:
    """
    A chain of layers.

    :param layers: in the order of the forward pass; there may be none
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)

    @property
    def parameters(self) -> list[th.Tensor]:
        """Weight and bias of each layer, in order."""
        return [parameter for layer in self.layers for parameter in (layer.weight, layer.bias)]

    def prepare(self) -> None:
        """Prepare every layer, see :meth:`Layer.prepare`."""
        for layer in self.layers:
            layer.prepare()

    def copy(self) -> Perceptron:
        """The same perceptron with parameters of its own, without gradients."""
        return Perceptron([layer.copy() for layer in self.layers])

    def forward(self, inputs: th.Tensor) -> list[th.Tensor]:
        """
        :param inputs: shape (batch, inputs)
        :return: the inputs, then the outputs of each layer, each of shape (batch, outputs)
        """
        signals = [inputs]
        for layer in self.layers:
            signals.append(layer.forward(signals[-1]))
        return signals

    def outputs(self, inputs: th.Tensor) -> th.Tensor:
        """
        :param inputs: shape (batch, inputs)
        :return: the outputs of the last layer only, shape (batch, outputs)
        """
        for layer in self.layers:
            inputs = layer.forward(inputs)
        return inputs

    def backward(self, gradient: th.Tensor, signals: Sequence[th.Tensor]) -> None:
        r"""
        Leave the gradients of all parameters in their ``grad``: from the last layer to the first, :class:`Layer`'s equations
        and :math:`\bar X = \bar Z W`.

        :param gradient: with respect to the last outputs, shape (batch, outputs)
        :param signals: what :meth:`forward` returned
        """
        for i in reversed(range(len(self.layers))):
            layer = self.layers[i]
            gradient = layer.before_activation(gradient, signals[i + 1])
            layer.set_gradients(gradient, signals[i])
            if i > 0:
                gradient = layer.input_gradient(gradient)

    def input_gradient(self, gradient: th.Tensor, signals: Sequence[th.Tensor], first: int) -> th.Tensor:
        r"""
        Gradient with respect to the last inputs; those of the parameters are not computed.

        :param gradient: with respect to the last outputs, shape (batch, outputs)
        :param signals: what :meth:`forward` returned
        :param first: index of the first input that matters
        :return: shape (batch, inputs - first)
        """
        for i in reversed(range(len(self.layers))):
            layer = self.layers[i]
            gradient = layer.before_activation(gradient, signals[i + 1])
            gradient = layer.input_gradient(gradient, first if i == 0 else 0)
        return gradient


def layers_of(modules: Iterable[nn.Module]) -> list[Layer]:
    """
    :param modules: linear layers and activation functions, see :func:`is_perceptron`
    :return: the same as layers
    """
    modules = list(modules)
    following = [*modules, nn.Identity()][1:]
    return [Layer(each, next_) for each, next_ in zip(modules, following, strict=True) if isinstance(each, nn.Linear)]


def is_perceptron(net: nn.Module, ends_linear: bool) -> bool:
    """
    :param net: any module
    :param ends_linear: whether its last layer must be without an activation function
    :return: whether it is a sequence of linear layers and activation functions in turn
    """
    if type(net) is not nn.Sequential or len(net) % 2 != ends_linear:
        return False
    return all(type(each) is nn.Linear if i % 2 == 0 else type(each) in _ACTIVATIONS for i, each in enumerate(net))


def is_untouched(modules: Iterable[nn.Module], methods: Sequence[str]) -> bool:
    """
    :param modules: all parts of a network
    :param methods: names of the methods that its forward pass goes through
    :return: whether nobody has hooked into it, these methods are the classes' own, and it is not run in a context that
        changes what it computes (autocast) or watches how (anomaly detection)
    """
    if _has_any_global_hook() or th.is_anomaly_enabled():
        return False
    modules = list(modules)
    devices = {parameter.device.type for module in modules for parameter in module.parameters(recurse=False)}
    return not any(th.is_autocast_enabled(device) for device in devices) and all(
        not (each._forward_pre_hooks or each._forward_hooks or each._backward_pre_hooks or each._backward_hooks)
        and vars(each).keys().isdisjoint(methods)
        for each in modules
    )


def is_free_to_learn(parameters: Sequence[th.Tensor]) -> bool:
    """
    :param parameters: a network's parameters
    :return: whether all are trained, in one precision, and nobody has hooked into their gradients
    """
    return all(
        parameter.requires_grad
        and parameter.dtype is parameters[0].dtype
        and parameter.dtype in _DTYPES
        and not parameter._backward_hooks
        and not parameter._post_accumulate_grad_hooks
        for parameter in parameters
    )
