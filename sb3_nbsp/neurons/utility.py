"""How much use a neuron is on a batch: the score of ReDo, and the contribution utility of continual backpropagation."""

from collections.abc import Callable, Sequence

import torch as th

from sb3_nbsp.neurons.activations import check_outputs, observed
from sb3_nbsp.neurons.layers import NeuronLayer


def feature_means(layer: NeuronLayer, output: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    r"""
    Means over a batch, and over the positions of a convolution.

    :param layer: a layer
    :param output: what its activation module returned, h, shape (batch, features) or (batch, features, height, width)
    :return: mean of \|h\| and mean of h, by neuron and the features that it owns, both of shape
        (neurons, features per neuron)
    :raises ValueError: if the number of outputs is not that of the layer
    """
    check_outputs(layer, output)
    steps = [0, *range(2, output.dim())]
    shape = (layer.features_per_neuron, layer.n_neurons)
    return output.abs().mean(steps).view(shape).t(), output.mean(steps).view(shape).t()


def mean_magnitudes(
    forward: Callable[..., object], inputs: Sequence[th.Tensor], layers: Sequence[NeuronLayer], batch_size: int = 4096
) -> list[th.Tensor]:
    r"""
    Mean of \|h\| over all steps (and positions), summed over the features that a neuron owns.

    :param forward: runs the network on one batch: ``forward(*batch)``; its result is ignored
    :param inputs: tensors whose first dimension is the steps
    :param layers: the layers, in order
    :param batch_size: steps per forward pass
    :return: for each layer a vector in double precision, shape (neurons,)
    """
    sums = [th.zeros(layer.n_neurons, dtype=th.float64, device=layer.linear.weight.device) for layer in layers]

    def add(index: int, output: th.Tensor) -> None:
        sums[index] += feature_means(layers[index], output.double())[0].sum(1) * len(output)

    with th.no_grad(), observed(layers, add):
        for batch in zip(*(tensor.split(batch_size) for tensor in inputs), strict=True):
            forward(*batch)
    return [each / len(inputs[0]) for each in sums]


def redo_score(magnitudes: th.Tensor) -> th.Tensor:
    r"""
    Score of ReDo (Sokar et al., 2023, equation 1), for one layer of l neurons:

    .. math:: s_i = \frac{E_x |h_i(x)|}{\frac1l \sum_k E_x |h_k(x)|}

    In a layer without any activation every neuron has a score of 0.

    :param magnitudes: :math:`E_x |h_i(x)|`, shape (neurons,)
    :return: shape (neurons,)
    """
    mean = magnitudes.mean()
    return th.where(mean > 0, magnitudes / mean, th.zeros_like(magnitudes))


@th.no_grad()
def contribution_utility(layer: NeuronLayer, magnitudes: th.Tensor) -> th.Tensor:
    r"""
    Contribution utility of continual backpropagation (Dohare et al., 2024, equation 1, without the running average):

    .. math:: u_i = E_x |h_i(x)| \cdot \frac1m \sum_{k=1}^m |w_{i,k}|

    where the m units k are all those that read the layer. What a neuron owns is summed: its features
    (:class:`~sb3_nbsp.neurons.crelu.CReLU`), the entries of a kernel, the positions of a convolution in front of a flatten.

    :param layer: the layer
    :param magnitudes: :math:`E_x |h_i(x)|`, shape (neurons, features per neuron)
    :return: shape (neurons,)
    """
    weights, n_units = th.zeros_like(magnitudes), 0
    for consumer, columns in layer.outgoing():
        by_column = consumer.weight.abs().sum(0)
        by_column = by_column.flatten(1).sum(1) if by_column.dim() > 1 else by_column  # the entries of a kernel
        weights = weights + by_column[columns].sum(2)
        n_units += len(consumer.weight)
    return (magnitudes * weights).sum(1) / max(n_units, 1)
