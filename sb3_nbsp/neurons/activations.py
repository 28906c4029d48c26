"""Record what neurons do on a batch of observations."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch as th
from torch import nn

from sb3_nbsp.batches import n_rows, split
from sb3_nbsp.neurons.layers import NeuronLayer


def neuron_activations(layer: NeuronLayer, output: th.Tensor) -> th.Tensor:
    """
    One number per neuron and step from what a layer's activation module returns: the average over the positions of a
    convolution; for CReLU, relu(x) − relu(−x).

    :param layer: the layer
    :param output: shape (batch, features) or (batch, channels, height, width)
    :return: shape (batch, neurons)
    :raises ValueError: if the number of outputs is not that of the layer
    """
    check_outputs(layer, output)
    averaged = output.flatten(2).mean(2) if output.dim() > 2 else output
    if layer.features_per_neuron == 1:
        return averaged
    positive, negative = averaged.split(layer.n_neurons, dim=1)
    return positive - negative


def check_outputs(layer: NeuronLayer, output: th.Tensor) -> None:
    """
    :param layer: a layer
    :param output: what its activation module returned
    :raises ValueError: if the number of outputs is not that of the layer
    """
    if output.shape[1] != layer.features_per_neuron * layer.n_neurons:
        raise ValueError(
            f"Layer {layer.name!r} has {layer.n_neurons} neurons but "
            f"{type(layer.activation).__name__} returns {output.shape[1]} activations"
        )


def never_called(layer: NeuronLayer) -> ValueError:
    """
    :param layer: a layer whose activation a forward pass of its network has not called
    :return: the error to raise
    """
    return ValueError(
        f"Layer {layer.name!r}: its activation function, a {type(layer.activation).__name__}, is not called when the network "
        "runs, so nothing is known of its neurons. Is it a part that forward() does not use, or is the network compiled?"
    )


@contextmanager
def observed(layers: Sequence[NeuronLayer], observe: Callable[[int, th.Tensor], None]) -> Iterator[None]:
    """
    Look at what layers do in the forward passes inside a ``with`` block.

    :param layers: the layers
    :param observe: called with the index of a layer and what its activation module returned
    """

    def hook(index: int) -> Callable[[nn.Module, object, th.Tensor], None]:
        return lambda _module, _inputs, output: observe(index, output)

    handles = [layer.activation.register_forward_hook(hook(i)) for i, layer in enumerate(layers)]
    try:
        with th.compiler.set_stance("force_eager"):  # compiled networks may never call a hook
            yield
    finally:
        for handle in handles:
            handle.remove()


def record_activations(
    forward: Callable[..., object],
    inputs: Sequence[th.Tensor | dict[str, th.Tensor]],
    layers: Sequence[NeuronLayer],
    batch_size: int = 512,
    read: Callable[[NeuronLayer, th.Tensor], th.Tensor] = neuron_activations,
) -> th.Tensor:
    """
    Activations a(N, t) of all neurons of a network, in a few large forward passes
    (NBSP, section 3.2: the average over the positions for the channels of a convolution).

    :param forward: runs the network on one batch: ``forward(*batch)``; its result is ignored
    :param inputs: tensors whose first dimension is the T steps, or dictionaries of such
    :param layers: the layers to record, in order
    :param batch_size: steps per forward pass
    :param read: what to record of a layer and the output of its activation module, shape (batch, numbers)
    :return: tensor of shape (T, total number of neurons)
    :raises ValueError: if the network does not use a layer's activation function
    """
    recorded: dict[int, th.Tensor] = {}

    def record(index: int, output: th.Tensor) -> None:
        recorded[index] = read(layers[index], output)

    result: th.Tensor | None = None
    filled = 0
    with th.no_grad(), observed(layers, record):
        for batch in zip(*(split(each, batch_size) for each in inputs), strict=True):
            forward(*batch)
            for index, layer in enumerate(layers):
                if index not in recorded:
                    raise never_called(layer)
            parts = [recorded[i] for i in range(len(layers))]
            if result is None:
                result = parts[0].new_empty(n_rows(inputs[0]), sum(part.shape[1] for part in parts))
            th.cat(parts, dim=1, out=result[filled : filled + len(parts[0])])
            filled += len(parts[0])
    assert result is not None
    return result
