"""Neuron layers: the hidden layers of a network, seen as neurons with incoming parameters and an activation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch as th
from torch import nn

from sb3_nbsp.messages import warn
from sb3_nbsp.neurons.module_kinds import Weighted, check_known, is_activation, is_norm, is_weighted


@dataclass
class NeuronLayer:
    r"""
    One hidden layer. A neuron is one output unit after the activation function;
    of a convolution, one channel.

    :param name: name of the ``linear`` module inside the network it was found in
    :param linear: the ``nn.Linear`` or convolution that computes the pre-activations
    :param activation: the module whose output holds the activations, of shape
        (batch, neurons) or (batch, channels, \*positions)
    :param norms: normalization layers between the two; their gain and bias belong to the neuron
    :param consumers: the modules whose weights multiply the layer's activations: the next layer, or the heads
    :param n_other_inputs: inputs that the consumers read after this layer's, such as the action that a critic reads after
        its features
    """

    name: str
    linear: Weighted
    activation: nn.Module
    norms: list[nn.Module] = field(default_factory=list)
    consumers: list[Weighted] = field(default_factory=list)
    n_other_inputs: int = 0

    @property
    def n_neurons(self) -> int:
        """Number of neurons of the layer."""
        return self.linear.out_features if isinstance(self.linear, nn.Linear) else self.linear.out_channels

    def incoming(self) -> Iterator[tuple[str, nn.Parameter]]:
        """
        Parameters whose first dimension runs over the neurons of this layer:
        entry ``j`` of each belongs to neuron ``j``.

        :return: pairs of a name (unique within the layer) and the parameter
        """
        return ((name, parameter) for name, parameter, is_own in self._parameters() if is_own)

    def shared(self) -> Iterator[nn.Parameter]:
        """
        :return: the other parameters of the layer, its norms and its activation, which all neurons share
        """
        return (parameter for _, parameter, is_own in self._parameters() if not is_own)

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter, bool]]:
        """Name, parameter, and whether entry ``j`` of it belongs to neuron ``j``."""
        owners = [("linear", self.linear), *((f"norm{i}", norm) for i, norm in enumerate(self.norms))]
        for prefix, module in [*owners, ("activation", self.activation)]:
            # Recursively, as a parametrized layer holds what its weight is computed from in modules of its own
            for name, parameter in module.named_parameters():
                yield f"{prefix}.{name}", parameter, len(parameter) == self.n_neurons and self._runs_over_neurons(module)

    def _runs_over_neurons(self, module: nn.Module) -> bool:
        """A layer norm may normalize over the last positions of a convolution only, as many as it has channels."""
        shape = None if module is self.linear else getattr(module, "normalized_shape", None)
        return shape is None or isinstance(self.linear, nn.Linear) or len(shape) == self.linear.weight.dim() - 1

    @property
    def features_per_neuron(self) -> int:
        """Outputs of the activation module for each neuron: 2 for :class:`~sb3_nbsp.neurons.crelu.CReLU`, otherwise 1."""
        return int(getattr(self.activation, "features_per_neuron", 1))

    def outgoing(self) -> Iterator[tuple[Weighted, th.Tensor]]:
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
    """Layers in the order of their definition, which in SB3's networks is the order of the forward pass."""
    children = [(name, child) for name, child in module._modules.items() if child is not None]
    if not children or is_weighted(module) or is_norm(module):
        yield prefix, module
        return
    check_known(prefix, module)  # a container may hold parameters of its own
    for name, child in children:
        yield from _leaves(child, f"{prefix}.{name}" if prefix else name)


def find_neuron_layers(chain: Sequence[tuple[str, nn.Module]], heads: Sequence[nn.Module] = ()) -> list[NeuronLayer]:
    """
    Find the hidden layers of a network given as the modules that its input passes through.

    A linear layer or a convolution that is followed by an activation function is a hidden layer.
    One that is not is an output layer and has no neurons. If a further layer reads it nevertheless, there is a warning:
    an activation function that is called in ``forward`` (``F.relu``) is not seen.

    :param chain: (name, module) pairs in the order of the forward pass, e.g. the features
        extractor and the MLP of an actor
    :param heads: output layers that read the end of the chain side by side
    :return: the layers, in the order of the forward pass
    :raises ValueError: if a module is of a kind that is not known, or if layers share an activation module
    """
    layers: list[NeuronLayer] = []
    pending: NeuronLayer | None = None  # a linear layer whose activation is still to come
    unread: NeuronLayer | None = None  # the last layer found, as long as nothing has read it
    for name, leaf in (pair for prefix, module in chain for pair in _leaves(module, prefix)):
        ahead = pending or unread
        check_known(name, leaf, None if ahead is None else ahead.linear)
        if is_weighted(leaf):
            if pending is not None:
                _warn_of_no_activation(pending.name, name)
            if unread is not None:
                unread.consumers.append(leaf)
            pending, unread = NeuronLayer(name, leaf, leaf), None
        elif pending is not None and is_norm(leaf):  # one behind the activation is not incoming
            pending.norms.append(leaf)
        elif pending is not None and is_activation(leaf):
            pending.activation = leaf
            layers.append(pending)
            pending, unread = None, pending
        elif pending is not None and isinstance(leaf, nn.Flatten) and not isinstance(pending.linear, nn.Linear):
            raise ValueError(f"{name!r} (Flatten) must come after the activation function of the convolution {pending.name!r}")
    readers = [leaf for head in heads for leaf in head.modules() if is_weighted(leaf)]
    for reader in readers:
        check_known("an output layer", reader)
    if unread is not None:
        unread.consumers += readers
    if pending is not None and readers:
        _warn_of_no_activation(pending.name, "the output layer")
    if len({id(layer.activation) for layer in layers}) < len(layers):
        raise ValueError(
            "A network uses one activation module for several layers, whose activations cannot be told apart: "
            "give each layer a module of its own"
        )
    return layers


def _warn_of_no_activation(name: str, reader: str) -> None:
    warn(
        f"The layer {name!r} is followed by {reader!r} without an activation function that could be seen, and so has no "
        "neurons. If forward() calls one (F.relu, th.tanh), use a module (nn.ReLU(), nn.Tanh()) of the layer's own, defined "
        "right after it"
    )


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
