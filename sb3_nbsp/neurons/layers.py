"""Neuron layers: the hidden layers of a network, seen as neurons with incoming parameters and an activation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch as th
from torch import nn

from sb3_nbsp.messages import warn
from sb3_nbsp.neurons.forward_pass import Call, DefinedOrder, Run, WatchedPass
from sb3_nbsp.neurons.module_kinds import Weighted, check_known, is_activation, is_chain, is_norm, is_weighted


@dataclass
class NeuronLayer:
    r"""
    One hidden layer. A neuron is one output unit after the activation function;
    of a convolution, one channel.

    :param name: name of the ``linear`` module inside the network it was found in
    :param linear: the ``nn.Linear`` or convolution that computes the pre-activations
    :param activation: the module whose output holds the activations, of shape
        (batch, neurons) or (batch, channels, \*positions)
    :param norms: normalization layers between these two; their gain and bias belong to the neuron
    :param consumers: the modules whose weights multiply the layer's activations: the next layer, or the heads
    :param n_other_inputs: inputs that the consumers read beside this layer's, such as the action that a critic reads after
        its features
    :param first_input: number of these that come before this layer's, such as the features of another part of a dictionary
    :param unknown_readers: if the consumers are not all modules that read the layer, the reason
    """

    name: str
    linear: Weighted
    activation: nn.Module
    norms: list[nn.Module] = field(default_factory=list)
    consumers: list[Weighted] = field(default_factory=list)
    n_other_inputs: int = 0
    first_input: int = 0
    unknown_readers: str = ""

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
        :raises ValueError: if it is not known what reads the layer, or if the consumer also reads something else, so that its
            columns cannot be told apart
        """
        if self.unknown_readers:
            raise ValueError(f"It cannot be told which weights read the neurons of {self.name!r}: {self.unknown_readers}")
        for consumer in self.consumers:
            n_columns, n_features = consumer.weight.shape[1] - self.n_other_inputs, self.features_per_neuron * self.n_neurons
            if n_columns % n_features != 0:
                raise ValueError(
                    f"Layer {self.name!r} has {n_features} outputs, but the layer after it reads {n_columns} inputs: "
                    "which of them belong to which neuron cannot be told"
                )
            columns = self.first_input + th.arange(n_columns, device=consumer.weight.device)
            yield consumer, columns.view(self.features_per_neuron, self.n_neurons, -1).transpose(0, 1)


def _leaves(module: nn.Module, prefix: str, in_order: bool) -> Iterator[tuple[str, nn.Module]]:
    """Layers in the order of their definition; with ``in_order``, that must be the order of the forward pass."""
    children = [(name, child) for name, child in module._modules.items() if child is not None]
    if not children or is_weighted(module) or is_norm(module) or is_activation(module):
        yield prefix, module
        return
    check_known(prefix, module)  # a container may hold parameters of its own
    if in_order and not is_chain(module):
        raise ValueError(
            f"{prefix!r} ({type(module).__name__}) has a forward() of its own, which may call its modules in any order: "
            "let find_neuron_layers() watch a forward pass (run=...), or use nn.Sequential"
        )
    for name, child in children:
        yield from _leaves(child, f"{prefix}.{name}" if prefix else name, in_order)


def find_neuron_layers(
    chain: Sequence[tuple[str, nn.Module]], heads: Sequence[nn.Module] = (), run: Run | None = None
) -> list[NeuronLayer]:
    """
    Find the hidden layers of a network given as the modules that its input passes through.

    A linear layer or a convolution that is followed by an activation function is a hidden layer.
    Otherwise it is an output layer and has no neurons. If another layer reads it nevertheless, there is a warning,
    because an activation function that is called in ``forward`` (``F.relu``) is not seen.

    The readers of a layer are found if each module reads the one before it, or if parallel parts, each with an input of its
    own, are put side by side, as in SB3's ``CombinedExtractor``. Past any other residual or parallel connection they are
    unknown, and :meth:`NeuronLayer.outgoing` is an error for all layers before it.

    :param chain: (name, module) pairs in the order of the forward pass, e.g. the features
        extractor and the MLP of an actor
    :param heads: output layers that read the end of the chain side by side
    :param run: runs the network once in evaluation mode, on a few different observations with all other inputs equal. The
        layers are those that this pass goes through. None: modules are called in the order of
        their definition, which is known for ``nn.Sequential`` and for SB3's features extractors for a single observation
    :return: the layers, in the order of the forward pass
    :raises ValueError: if a module is unknown, if layers share an activation module, or if an activation
        function reads anything but the neurons of its layer
    """
    leaves = [pair for prefix, module in chain for pair in _leaves(module, prefix, run is None)]
    readers = [leaf for head in heads for leaf in head.modules() if is_weighted(leaf)]
    for name, leaf in [*leaves, *(("an output layer", reader) for reader in readers)]:
        check_known(name, leaf)
    watched = [*leaves, *(("the output layer", reader) for reader in readers)]
    search = _Search(DefinedOrder(watched) if run is None else WatchedPass(watched, run))
    _warn_of_what_is_not_called(leaves, search.order.calls)
    in_chain = {id(leaf) for _, leaf in leaves}
    for index, call in enumerate(search.order.calls):
        if id(call.module) in in_chain:
            search.pass_through(index)
    for head in heads:
        parts = {id(part) for part in head.modules()}
        search.end_in([index for index, call in enumerate(search.order.calls) if id(call.module) in parts])
    layers = search.layers
    if len({id(layer.activation) for layer in layers}) < len(layers):
        raise ValueError(
            "A network uses one activation module for several layers, whose activations cannot be told apart: "
            "give each layer a module of its own"
        )
    return layers


class _Search:
    """
    What has been found on the way through a network.

    :param order: in which its modules are called
    """

    def __init__(self, order: DefinedOrder) -> None:
        self.order = order
        self.layers: list[NeuronLayer] = []
        self._pending: NeuronLayer | None = None  # a linear layer whose activation is still to come
        self._unread: NeuronLayer | None = None  # the last layer found, as long as nothing has read it
        self._last = -1  # index of the last call
        self._ends: list[tuple[NeuronLayer | None, int]] = []  # of unread parallel parts: layer without a reader, last call

    def pass_through(self, index: int) -> None:
        """
        :param index: index of the next call
        """
        begins = self._begins_a_part(index)
        if begins:
            self._end_part(self.order.calls[index].name)
        name, leaf, pending = self.order.calls[index].name, self.order.calls[index].module, self._pending
        ahead = pending or self._unread
        check_known(name, leaf, None if ahead is None else ahead.linear)
        if pending is not None and isinstance(leaf, nn.Flatten) and not isinstance(pending.linear, nn.Linear):
            raise ValueError(f"{name!r} (Flatten) must come after the activation function of the convolution {pending.name!r}")
        if is_weighted(leaf):
            if not begins and self._is_read_by(index, name, leaf):
                self._ends = []
            self._pending, self._unread = NeuronLayer(name, leaf, leaf), None
        elif self._n_other_inputs(index) is None:
            self._complain(index)
        if pending is not None and is_norm(leaf):  # one after the activation is not incoming
            pending.norms.append(leaf)
        elif pending is not None and is_activation(leaf):
            pending.activation = leaf
            self.layers.append(pending)
            self._pending, self._unread = None, pending
        self._last = index

    def end_in(self, head: Sequence[int]) -> None:
        """
        :param head: indices of the calls of an output layer, or of the layers that it is made of
        """
        for index in head[:1]:
            reader = self.order.calls[index].module
            assert is_weighted(reader)
            self._is_read_by(index, "the output layer", reader)

    def _begins_a_part(self, index: int) -> bool:
        """Whether a call has nothing to do with what is still to be read."""
        call, is_open = self.order.calls[index], self._pending is not None or self._unread is not None
        if is_activation(call.module) or not (is_open or self._ends) or (is_open and self._last in call.reads):
            return False
        return self.order.begins_anew(index)

    def _end_part(self, name: str) -> None:
        if self._pending is not None:
            _warn_of_no_activation(self._pending.name, name)
        if self._pending or self._unread:
            self._ends.append((self._unread, self._last))
        self._pending = self._unread = None

    def _is_read_by(self, index: int, name: str, reader: Weighted) -> bool:
        """Whether the call reads the ends of parallel parts."""
        if self._pending is not None:
            _warn_of_no_activation(self._pending.name, name)
        is_open = self._pending is not None or self._unread is not None
        n_others = self._n_other_inputs(index) if is_open else None
        if n_others is not None:
            if self._unread is not None:
                self._unread.consumers.append(reader)
                self._unread.n_other_inputs = n_others
            return False
        ends = [*self._ends, (self._unread, self._last)] if is_open else self._ends
        places = self.order.places([last for _, last in ends], index)
        if places is None:
            self._complain(index)
        for (layer, _), (first, n_others) in zip(ends, places or [(0, 0)] * len(ends), strict=True):
            if layer is not None:
                layer.consumers.append(reader)
                layer.first_input, layer.n_other_inputs = first, n_others
        return True

    def _n_other_inputs(self, index: int) -> int | None:
        """How many inputs the call has beside the neurons ahead of it; None if it reads anything else."""
        layer, call = self._pending or self._unread, self.order.calls[index]
        if layer is None:
            return 0
        # Where no activation function has been seen, any function of the whole layer may have been called
        n_units = layer.features_per_neuron * layer.n_neurons
        if self._pending is not None:
            n_units = 1 if is_weighted(call.module) else layer.n_neurons
        return self.order.n_other_inputs(self._last, index, n_units)

    def _complain(self, index: int) -> None:
        """A call reads something else than what is ahead of it."""
        call = self.order.calls[index]
        problem = (
            f"{call.name!r} does not read what {self.order.calls[self._last].name!r} returns and nothing else, each number in "
            "its place. There is a residual or parallel connection, or a function that mixes the numbers: build the network "
            "as a chain of modules (nn.Sequential)"
        )
        if self._pending is not None and not is_weighted(call.module):  # an activation function
            raise ValueError(f"It cannot be told what the neurons of {self._pending.name!r} do: {problem}")
        for each in self.layers:  # any of them may be what is read, too
            each.unknown_readers = problem


def _warn_of_what_is_not_called(leaves: Sequence[tuple[str, nn.Module]], calls: Sequence[Call]) -> None:
    called = {id(call.module) for call in calls}
    unused = [name for name, leaf in leaves if id(leaf) not in called and is_weighted(leaf)]
    if unused:
        warn(f"{', '.join(map(repr, unused))}: not called in a forward pass of the network, and so without neurons")


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
