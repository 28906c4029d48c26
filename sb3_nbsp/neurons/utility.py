"""How much use a neuron is on a batch: the score of ReDo, and the contribution utility of continual backpropagation."""

import torch as th

from sb3_nbsp.neurons.activations import check_outputs
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


def neuron_magnitudes(layer: NeuronLayer, output: th.Tensor) -> th.Tensor:
    """
    |a| of each neuron and step, shape (batch, neurons), where :func:`~sb3_nbsp.neurons.activations.neuron_activations` has a:
    the average of |a| over the positions of a convolution; for CReLU, |relu(x) − relu(−x)| = relu(x) + relu(−x).
    """
    check_outputs(layer, output)
    magnitudes = output.abs().flatten(2).mean(2) if output.dim() > 2 else output.abs()
    return magnitudes.view(len(output), layer.features_per_neuron, layer.n_neurons).sum(1)


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

    where the m units k are all those that read the layer. The sum runs over all that belongs to a neuron: its features
    (:class:`~sb3_nbsp.neurons.crelu.CReLU`), the entries of a kernel, the positions of a convolution before a flatten.

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


def taylor_importance(layer: NeuronLayer, activation: th.Tensor, gradient: th.Tensor) -> th.Tensor:
    r"""
    How much the loss would change without a neuron, to first order (Molchanov et al., 2017), relative to the quadratic mean of
    its layer, so that widths do not matter. With the activation :math:`a_i(b)` and the gradient :math:`g_i(b)` of the loss of
    sample b,

    .. math:: \hat c_i = \frac1B \sum_b \left| a_i(b) \, g_i(b) \right|, \quad
        \tilde c_i = \hat c_i \Big/ \sqrt{\tfrac1n \textstyle\sum_j \hat c_j^2}

    Of a convolution, the product is averaged over the positions before its absolute value is taken; of neurons with two
    features (CReLU), it is summed over these.

    :param layer: a layer of n neurons
    :param activation: shape (batch, features) or (batch, channels, height, width)
    :param gradient: of the mean of the samples' losses, which is 1/B of theirs; of the same shape
    :return: :math:`\tilde c`, shape (neurons,); 0 in a layer that does nothing
    """
    check_outputs(layer, activation)
    product = activation * gradient
    product = product.flatten(2).mean(2) if product.dim() > 2 else product
    taken = product.view(len(product), layer.features_per_neuron, layer.n_neurons).sum(1).abs().sum(0)
    return taken / taken.square().mean().sqrt().clamp_min(th.finfo(taken.dtype).tiny)
