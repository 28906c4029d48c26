"""Hidden units of the actor that are switched off for a task, and the weights that are then free to move for another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch as th
from torch import nn

from sb3_nbsp.neurons.layers import NeuronLayer


class UnitGate:
    """
    A forward hook that multiplies a layer's pre-activations by a mask, and adds up the mask's gradient when it listens. Copies
    of the network have copies of it.
    """

    mask: th.Tensor | None = None  # shape (units, 1, ...), as many dimensions as multiply a batch; None: all units are on
    gradient: th.Tensor | None = None  # shape (units,)
    listens = False

    def __call__(self, _module: nn.Module, _inputs: object, output: th.Tensor) -> th.Tensor:
        """Gate what a layer returns, shape (batch, units, ...)."""
        if self.mask is None:
            return output
        gated = output * self.mask.to(output)
        if self.listens and gated.requires_grad:
            unmasked = output.detach()
            gated.register_hook(lambda gradient: self._add(gradient * unmasked))
        return gated

    def set_units(self, layer: NeuronLayer, code: th.Tensor) -> None:
        """
        Switch the units on whose code is positive, and all others off.

        :param layer: the layer
        :param code: shape (units,)
        """
        weight = layer.linear.weight
        self.mask = (code > 0).to(weight).view(-1, *[1] * (weight.dim() - 2))

    def _add(self, products: th.Tensor) -> None:
        gradient = products.transpose(0, 1).flatten(1).sum(1)
        self.gradient = gradient if self.gradient is None else self.gradient + gradient


def make_gates(actor: nn.Module, layers: Sequence[NeuronLayer]) -> list[UnitGate]:
    """
    Gate the layers of an actor.

    :param actor: the actor; gates that came with a copy of it are removed
    :param layers: its layers
    :return: their gates, all open
    """
    for module in actor.modules():
        for key, hook in list(module._forward_hooks.items()):
            if isinstance(hook, UnitGate):
                del module._forward_hooks[key]
    gates = [UnitGate() for _ in layers]
    for layer, gate in zip(layers, gates, strict=True):
        layer.linear.register_forward_hook(gate)
    return gates


def straight_through(gradient: th.Tensor, code: th.Tensor) -> th.Tensor:
    r"""
    Gradient of a code through the step function of its mask (Yang et al., 2023), as if that were

    .. math:: \frac{\partial \phi}{\partial \alpha} = 1 \text{ for } 0 < \alpha < 1, \text{ otherwise } 0

    :param gradient: of the mask, shape (units,)
    :param code: α, shape (units,)
    :return: of the code, shape (units,)
    """
    return gradient * ((code > 0) & (code < 1))


def free_parameters(
    actor: nn.Module, layers: Sequence[NeuronLayer], used: Sequence[th.Tensor]
) -> dict[nn.Parameter, th.Tensor]:
    r"""
    Which parameters may move without a change of what the finished tasks' policies do (Yang et al., 2023): weights with an end
    that belongs to no finished task,

    .. math:: 1 - \min(\hat\phi_\mathrm{out}, \hat\phi_\mathrm{in}),

    those of the first layer and biases if their unit belongs to none, those of the output layers if what they read does not.
    What all units share, as the biases of the output layers, may not.

    :param actor: the actor
    :param layers: its hidden layers
    :param used: :math:`\hat\phi` of each layer, 1 for the units of finished tasks, otherwise 0, shape (units,)
    :return: by parameter, 1 where it may move, otherwise 0, in as many dimensions as the parameter has, or of shape (units,)
    """
    free: dict[nn.Parameter, th.Tensor] = {parameter: th.zeros(parameter.shape) for parameter in actor.parameters()}
    read: dict[Any, th.Tensor] = {}  # by module, 1 for the columns of its weight that read units of finished tasks
    for layer, own in zip(layers, used, strict=True):
        for consumer, columns in layer.outgoing():
            reading = read.setdefault(consumer, th.ones(consumer.weight.shape[1]))
            reading[columns.cpu()] = own[:, None, None].expand(columns.shape)
    for module, reading in read.items():
        free[module.weight] = _expanded(1 - reading[None], module.weight)
    for layer, own in zip(layers, used, strict=True):
        linear: Any = layer.linear
        free |= {parameter: 1 - own for _, parameter in layer.incoming()}
        reading = read.get(linear, th.ones(linear.weight.shape[1]))
        free[linear.weight] = _expanded(1 - th.minimum(own[:, None], reading[None]), linear.weight)
    return free


def _expanded(factor: th.Tensor, weight: th.Tensor) -> th.Tensor:
    """All places of a kernel have the factor of its channels."""
    return factor.view(*factor.shape, *[1] * (weight.dim() - 2))
