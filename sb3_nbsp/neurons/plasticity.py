"""Signs of lost plasticity in a network's weights and activations."""

from __future__ import annotations

from collections.abc import Sequence

import torch as th

from sb3_nbsp.neurons.layers import NeuronLayer
from sb3_nbsp.neurons.utility import redo_score


def layer_features(layer: NeuronLayer, output: th.Tensor) -> th.Tensor:
    """
    What a layer hands on, as one vector per step: of a convolution all positions of all channels, of CReLU both halves.

    :param layer: the layer
    :param output: what its activation module returned, shape (batch, ...)
    :return: shape (batch, features)
    """
    return output.flatten(1)


def dormant_neurons(magnitudes: th.Tensor, threshold: float = 0.1) -> th.Tensor:
    r"""
    The τ-dormant neurons of one layer (Sokar et al., *The Dormant Neuron Phenomenon in Deep Reinforcement Learning*,
    2023, definition 3.1): those with

    .. math:: s_i = \frac{E_x |h_i(x)|}{\frac1H \sum_k E_x |h_k(x)|} \le \tau

    In a layer whose activations are all zero, every neuron is dormant.

    :param magnitudes: :math:`|h_i(x)|` of the layer's H neurons, shape (T, H)
    :param threshold: τ; the P3O paper has 0.1
    :return: boolean, shape (H,)
    """
    return redo_score(magnitudes.mean(dim=0, dtype=th.float64)) <= threshold


def dormant_ratio(magnitudes: Sequence[th.Tensor], threshold: float = 0.1) -> float:
    """
    Share of dormant neurons among all hidden neurons; whether a neuron is dormant is decided within its layer
    (P3O paper, figures 12 and 24).

    :param magnitudes: for each layer |h| of its neurons, shape (T, neurons)
    :param threshold: see :func:`dormant_neurons`
    :return: in [0, 1]
    """
    return th.cat([dormant_neurons(each, threshold) for each in magnitudes]).double().mean().item()


def activation_norm(magnitudes: Sequence[th.Tensor]) -> float:
    """
    Mean |a| over steps and hidden neurons, every neuron counted alike (P3O paper, figures 14, 15 and 25).

    :param magnitudes: for each layer |a| of its neurons, shape (T, neurons)
    :return: at least 0
    """
    return th.cat([each.mean(dim=0, dtype=th.float64) for each in magnitudes]).mean().item()


def weight_norm(layers: Sequence[NeuronLayer]) -> float:
    r"""
    Mean over the hidden neurons of the L1 norm of their incoming weights (P3O paper, figures 5, 16 and 26).

    .. math:: \frac1N \sum_j \sum_k |w_{jk}|

    with :math:`w_{jk}` row j of its layer's weight; of a convolution, all entries of the channel's kernel. Biases,
    norm layers and output layers are not counted.

    :param layers: the neuron layers of one network
    :return: at least 0
    """
    norms = [layer.linear.weight.detach().flatten(1).abs().sum(dim=1, dtype=th.float64) for layer in layers]
    return th.cat(norms).mean().item()


def effective_rank(features: th.Tensor) -> float:
    r"""
    Roy and Vetterli, *The effective rank: a measure of effective dimensionality*, 2007.

    .. math:: \exp\left(-\sum_k p_k \log p_k\right), \quad p_k = \frac{\sigma_k}{\sum_i \sigma_i}

    :param features: a matrix A with singular values σ, shape (T, features)
    :return: from 1 to the rank of A; 0 for a matrix of zeros
    """
    singular_values = th.linalg.svdvals(features.double())
    total = singular_values.sum()
    return th.special.entr(singular_values / total).sum().exp().item() if total > 0 else 0.0


def stable_rank(features: th.Tensor) -> float:
    r"""
    .. math:: \frac{\|A\|_F^2}{\|A\|_2^2} = \frac{\sum_k \sigma_k^2}{\max_k \sigma_k^2}

    :param features: a matrix A with singular values σ, shape (T, features)
    :return: from 1 to the rank of A; 0 for a matrix of zeros
    """
    squares = th.linalg.svdvals(features.double()).square()
    return (squares.sum() / squares.max()).item() if squares.max() > 0 else 0.0
