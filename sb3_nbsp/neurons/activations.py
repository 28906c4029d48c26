"""Record what neurons do on a batch of observations."""

from collections.abc import Callable, Sequence

import torch as th
from torch import nn

from sb3_nbsp.neurons.layers import NeuronLayer


def record_activations(
    forward: Callable[..., object],
    inputs: Sequence[th.Tensor],
    layers: Sequence[NeuronLayer],
    batch_size: int = 4096,
) -> th.Tensor:
    """
    Activations a(N, t) of all neurons of a network, in a few large forward passes
    (NBSP, section 3.2: the average over the positions for the channels of a convolution).

    :param forward: runs the network on one batch: ``forward(*batch)``; its result is ignored
    :param inputs: tensors whose first dimension is the T steps
    :param layers: the layers to record, in order
    :param batch_size: steps per forward pass
    :return: tensor of shape (T, total number of neurons)
    """
    recorded: dict[int, th.Tensor] = {}

    def hook(index: int) -> Callable[[nn.Module, object, th.Tensor], None]:
        def record(_module: nn.Module, _inputs: object, output: th.Tensor) -> None:
            activation = output.flatten(2).mean(2) if output.dim() > 2 else output
            if activation.shape[1] != layers[index].n_neurons:
                raise ValueError(
                    f"Layer {layers[index].name!r} has {layers[index].n_neurons} neurons but "
                    f"{type(_module).__name__} returns {activation.shape[1]} activations"
                )
            recorded[index] = activation

        return record

    handles = [layer.activation.register_forward_hook(hook(i)) for i, layer in enumerate(layers)]
    rows = []
    try:
        with th.no_grad():
            for batch in zip(*(tensor.split(batch_size) for tensor in inputs), strict=True):
                forward(*batch)
                rows.append(th.cat([recorded[i] for i in range(len(layers))], dim=1))
    finally:
        for handle in handles:
            handle.remove()
    return th.cat(rows)
