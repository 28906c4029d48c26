"""Neuron layers: the hidden layers of a network, seen as neurons with incoming parameters and an activation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch as th
from torch import nn

_NORM_LAYERS = (nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm)
_CONTAINERS = (nn.Sequential, nn.ModuleList)


@dataclass
class NeuronLayer:
    """
    One hidden layer. A neuron is one output unit after the activation function;
    of a convolution, one channel.

    :param name: name of the ``linear`` module inside the network it was found in
    :param linear: the ``nn.Linear`` or ``nn.Conv2d`` that computes the pre-activations
    :param activation: the module whose output holds the activations, of shape
        (batch, neurons) or (batch, channels, height, width)
    :param norms: normalization layers between the two; their gain and bias belong to the neuron
    :param consumers: the modules whose weights multiply the layer's activations: the next layer, or the heads
    :param n_other_inputs: inputs that the consumers read after this layer's, such as the action that a critic reads after
        its features
    """

    name: str
    linear: nn.Linear | nn.Conv2d
    activation: nn.Module
    norms: list[nn.Module] = field(default_factory=list)
    consumers: list[nn.Linear | nn.Conv2d] = field(default_factory=list)
    n_other_inputs: int = 0

    @property
    def n_neurons(self) -> int:
        """Number of neurons of the layer."""
        return self.linear.weight.shape[0]

    def incoming(self) -> Iterator[tuple[str, nn.Parameter]]:
        """
        Parameters whose first dimension runs over the neurons of this layer:
        entry ``j`` of each belongs to neuron ``j``.

        :return: pairs of a name (unique within the layer) and the parameter
        """
        for prefix, module in [("linear", self.linear), *((f"norm{i}", norm) for i, norm in enumerate(self.norms))]:
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.shape[0] == self.n_neurons:
                    yield f"{prefix}.{name}", parameter

    @property
    def features_per_neuron(self) -> int:
        """Outputs of the activation module for each neuron: 2 for :class:`~sb3_nbsp.neurons.crelu.CReLU`, otherwise 1."""
        return int(getattr(self.activation, "features_per_neuron", 1))

    def outgoing(self) -> Iterator[tuple[nn.Linear | nn.Conv2d, th.Tensor]]:
        """
        The weights that read the layer: column ``c`` of a consumer's weight, ``weight[:, c]``, is an outgoing weight.

        :return: pairs of a consumer and the columns that read each neuron, shape
            (neurons, features per neuron, positions); positions are those of a convolution in front of a flatten
        :raises ValueError: if the consumer also reads something else, so that its columns cannot be told apart
        """
        for consumer in self.consumers:
            n_columns, n_features = consumer.weight.shape[1] - self.n_other_inputs, self.features_per_neuron * self.n_neurons
            if n_columns % n_features != 0:
                raise ValueError(
                    f"Layer {self.name!r} has {n_features} outputs, but the layer behind it reads {n_columns} inputs: "
                    "which of them belong to which neuron cannot be told"
                )
            columns = th.arange(n_columns, device=consumer.weight.device)
            yield consumer, columns.view(self.features_per_neuron, self.n_neurons, -1).transpose(0, 1)


def _leaves(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Leaf modules in the order of their definition, which in SB3's networks is the order of the forward pass."""
    children = [(name, child) for name, child in module._modules.items() if child is not None]
    if not children:
        yield prefix, module
    for name, child in children:
        yield from _leaves(child, f"{prefix}.{name}" if prefix else name)


def find_neuron_layers(chain: Sequence[tuple[str, nn.Module]], heads: Sequence[nn.Module] = ()) -> list[NeuronLayer]:
    """
    Find the hidden layers of a network given as the modules that its input passes through.

    A ``Linear`` or ``Conv2d`` that is followed by an activation function is a hidden layer.
    One that is not is an output layer and has no neurons.

    :param chain: (name, module) pairs in the order of the forward pass, e.g. the features
        extractor and the MLP of an actor
    :param heads: output layers that read the end of the chain side by side
    :return: the layers, in the order of the forward pass
    :raises ValueError: if layers share an activation module
    """
    layers: list[NeuronLayer] = []
    name, linear, norms = "", None, []  # type: str, nn.Linear | nn.Conv2d | None, list[nn.Module]
    unread: NeuronLayer | None = None  # the last layer found, as long as nothing has read it
    for leaf_name, leaf in (pair for prefix, module in chain for pair in _leaves(module, prefix)):
        if isinstance(leaf, (nn.Linear, nn.Conv2d)):
            if unread is not None:
                unread.consumers.append(leaf)
            name, linear, norms, unread = leaf_name, leaf, [], None
        elif isinstance(leaf, _NORM_LAYERS):
            if linear is not None:  # one behind the activation is not incoming
                norms.append(leaf)
        elif linear is not None and not isinstance(leaf, (nn.Flatten, nn.Dropout, nn.Identity, *_CONTAINERS)):
            unread = NeuronLayer(name, linear, leaf, norms)
            layers.append(unread)
            linear = None
    if unread is not None:
        unread.consumers += [leaf for head in heads for leaf in head.modules() if isinstance(leaf, (nn.Linear, nn.Conv2d))]
    if len({id(layer.activation) for layer in layers}) < len(layers):
        raise ValueError(
            "A network uses one activation module for several layers, whose activations cannot be told apart: "
            "give each layer a module of its own"
        )
    return layers


def count_neurons(layers: Sequence[NeuronLayer]) -> int:
    """
    :param layers: neuron layers of one network
    :return: the number of their neurons together
    """
    return sum(layer.n_neurons for layer in layers)


def split_by_layer(values: th.Tensor, layers: Sequence[NeuronLayer]) -> dict[str, th.Tensor]:
    """
    Cut a vector over all neurons of a network into one vector per layer.

    :param values: shape (total number of neurons,)
    :param layers: the layers, in the same order
    :return: layer name to a vector of shape (neurons of the layer,)
    """
    parts = values.split([layer.n_neurons for layer in layers])
    return {layer.name: part for layer, part in zip(layers, parts, strict=True)}
