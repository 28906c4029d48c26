"""Switch neurons off for a while."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch as th
from torch import nn

from sb3_nbsp.neurons.activations import check_outputs
from sb3_nbsp.neurons.layers import NeuronLayer, count_neurons


@contextmanager
def zeroed(layers: Sequence[NeuronLayer], neurons: th.Tensor) -> Iterator[None]:
    """
    Context manager that sets the activations of some neurons to zero; for a convolution, whole channels.

    :param layers: neuron layers of one network, in order
    :param neurons: which of them, in the order of the layers: boolean, shape (total number of neurons,)
    :raises ValueError: if the vector is not boolean or of another length; in a forward pass, if an activation
        module has another number of outputs than its layer has neurons
    """
    if neurons.dtype != th.bool or neurons.shape != (count_neurons(layers),):
        raise ValueError(
            f"neurons must be a boolean vector of length {count_neurons(layers)}, one entry per neuron of the layers "
            f"{[layer.name for layer in layers]}, not {neurons.dtype} of shape {tuple(neurons.shape)}"
        )
    parts = neurons.split([layer.n_neurons for layer in layers])
    handles = []
    try:
        for layer, part in zip(layers, parts, strict=True):
            handles.append(layer.activation.register_forward_hook(_zero(layer, part)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _zero(layer: NeuronLayer, neurons: th.Tensor) -> Callable[[nn.Module, object, th.Tensor], th.Tensor]:
    def hook(_module: nn.Module, _inputs: object, output: th.Tensor) -> th.Tensor:
        check_outputs(layer, output)
        features = neurons.to(output.device).repeat(layer.features_per_neuron)
        # Over the batch, and over the positions of a convolution
        return output.masked_fill(features.view(1, -1, *[1] * (output.dim() - 2)), 0.0)

    return hook
