"""Renew neurons: draw their incoming parameters anew, cut their outgoing weights, forget the optimizer's moments of both."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch as th
from torch import nn

from sb3_nbsp.neurons.layers import NeuronLayer
from sb3_nbsp.neurons.module_kinds import Weighted
from sb3_nbsp.neurons.new_state import renew_state


@dataclass(frozen=True)
class Initializer:
    """
    How a network's hidden layers were initialized.

    :param orthogonal_gain: gain of an orthogonal initialization with biases of zero (SB3's ``ortho_init``); None for PyTorch's
        own initialization: uniform in ±1/√(number of inputs), biases too
    :param kaiming: Kaiming's normal initialization (He et al., 2015), of variance 2 / (number of inputs), with biases of zero
    """

    orthogonal_gain: float | None = None
    kaiming: bool = False

    def draw(self, linear: Weighted, generator: th.Generator) -> tuple[th.Tensor, th.Tensor]:
        """
        Fresh parameters for a whole layer.

        :param linear: the layer, which is left alone
        :param generator: source of randomness, on the CPU
        :return: weight and bias, on the CPU
        """
        weight = th.empty(linear.weight.shape, dtype=linear.weight.dtype)
        bias = th.zeros(len(weight), dtype=weight.dtype)
        if self.orthogonal_gain is not None:
            nn.init.orthogonal_(weight, self.orthogonal_gain, generator)
            return weight, bias
        if self.kaiming:
            return nn.init.kaiming_normal_(weight, generator=generator), bias
        bound = 1 / math.sqrt(weight[0].numel())
        return weight.uniform_(-bound, bound, generator=generator), bias.uniform_(-bound, bound, generator=generator)


@th.no_grad()
def renew_incoming(layer: NeuronLayer, neurons: th.Tensor, initializer: Initializer, generator: th.Generator) -> None:
    """
    Draw the incoming parameters of neurons anew; those of all others, and frozen ones, stay as they are, bit for bit. Norm
    layers between the weights and the activation get their gain of 1 and bias of 0 back, and a batch norm its running mean
    of 0 and variance of 1. A slope of the neuron's own (PReLU) begins anew, too.

    :param layer: the layer
    :param neurons: indices of the neurons, shape (k,)
    :param initializer: initializer of the network
    :param generator: source of randomness, on the CPU
    """
    weight, bias = initializer.draw(layer.linear, generator)
    rows = neurons.cpu()
    if layer.linear.weight.requires_grad:
        layer.linear.weight[neurons] = weight[rows].to(layer.linear.weight.device)
    if layer.linear.bias is not None and layer.linear.bias.requires_grad:
        layer.linear.bias[neurons] = bias[rows].to(layer.linear.bias.device)
    for name, parameter in layer.incoming():
        owner, _, kind = name.partition(".")
        if not parameter.requires_grad:
            continue
        if owner == "activation" and isinstance(layer.activation, nn.PReLU):
            parameter[neurons] = layer.activation.init
        elif owner.startswith("norm"):
            parameter[neurons] = 1.0 if kind == "weight" else 0.0
    for norm in layer.norms:
        for name, buffer in norm.named_buffers(recurse=False):
            if name in ("running_mean", "running_var"):
                buffer[neurons] = 1.0 if name == "running_var" else 0.0


@th.no_grad()
def cut_outgoing(layer: NeuronLayer, neurons: th.Tensor, mean_features: th.Tensor | None = None) -> None:
    """
    Set the outgoing weights of neurons to zero. With ``mean_features``, what the neurons contributed on average moves into
    the bias of the next layer, whose output then stays the same on the mean activation. A frozen bias stays as it is.

    :param layer: the layer
    :param neurons: indices of the neurons, shape (k,)
    :param mean_features: mean output of the layer's activation module for each neuron (over steps and positions), shape
        (neurons, features per neuron)
    """
    for consumer, columns in layer.outgoing():
        chosen = columns[neurons].flatten(1)  # (k, features per neuron * positions)
        if mean_features is not None and consumer.bias is not None and consumer.bias.requires_grad:
            means = mean_features[neurons].unsqueeze(2).expand(*columns[neurons].shape).flatten()
            # Over the positions of a kernel, if the consumer is a convolution
            weights = consumer.weight[:, chosen.flatten()].flatten(2).sum(2) if consumer.weight.dim() > 2 else None
            consumer.bias += (consumer.weight[:, chosen.flatten()] if weights is None else weights) @ means.to(consumer.bias)
        consumer.weight[:, chosen.flatten()] = 0.0


def clear_incoming_moments(optimizer: th.optim.Optimizer, layer: NeuronLayer, neurons: th.Tensor) -> None:
    """
    Forget what the optimizer holds for the neurons' incoming parameters: it becomes what a new optimizer holds, moments of
    zero. Adam's next steps are corrected for that, see :mod:`~sb3_nbsp.neurons.young_moments`.

    :param optimizer: any; what it holds in the shape of the parameter is meant
    :param layer: the layer
    :param neurons: indices of the neurons, shape (k,)
    """
    for _, parameter in layer.incoming():
        renew_state(optimizer, parameter, neurons, dim=0)


def clear_outgoing_moments(optimizer: th.optim.Optimizer, layer: NeuronLayer, neurons: th.Tensor) -> None:
    """
    Forget what the optimizer holds for the neurons' outgoing weights.

    :param optimizer: see :func:`clear_incoming_moments`
    :param layer: the layer
    :param neurons: indices of the neurons, shape (k,)
    """
    for consumer, columns in layer.outgoing():
        renew_state(optimizer, consumer.weight, columns[neurons].flatten(), dim=1)
