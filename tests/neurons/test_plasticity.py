"""Measures of plasticity, on networks and matrices made by hand."""

import math

import pytest
import torch as th
from torch import nn

from sb3_nbsp.neurons.activations import record_activations
from sb3_nbsp.neurons.crelu import CReLU
from sb3_nbsp.neurons.layers import find_neuron_layers
from sb3_nbsp.neurons.plasticity import (
    activation_norm,
    dormant_neurons,
    dormant_ratio,
    effective_rank,
    layer_features,
    stable_rank,
    weight_norm,
)
from sb3_nbsp.neurons.utility import neuron_magnitudes


def magnitudes_of(network: nn.Module, inputs: th.Tensor) -> list[th.Tensor]:
    layers = find_neuron_layers([("net", network)])
    recorded = record_activations(network, [inputs], layers, read=neuron_magnitudes)
    return list(recorded.split([layer.n_neurons for layer in layers], dim=1))


def partly_dead() -> nn.Sequential:
    """The first layer has 1 dead neuron of 4, the second 3 of 6."""
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    with th.no_grad():
        for linear, dead in ((network[0], [1]), (network[2], [0, 2, 5])):
            linear.weight.fill_(0.0)
            linear.bias.fill_(1.0)
            linear.bias[dead] = -1.0
    return network


def test_a_network_made_partly_dead_has_that_dormant_ratio():
    magnitudes = magnitudes_of(partly_dead(), th.randn(7, 3))
    assert [dormant_neurons(each).sum().item() for each in magnitudes] == [1, 3]
    assert dormant_ratio(magnitudes) == pytest.approx(4 / 10)
    assert activation_norm(magnitudes) == pytest.approx(6 / 10)


def test_dormancy_is_relative_to_the_layer():
    # Means 0.1, 1.9, 1: the layer's mean is 1, and 0.1 is on the threshold
    magnitudes = th.tensor([[0.2, 3.8, 0.0], [0.0, 0.0, 2.0]], dtype=th.float64)
    assert dormant_neurons(magnitudes, threshold=0.1).tolist() == [True, False, False]
    assert dormant_neurons(1e-6 * magnitudes, threshold=0.09).tolist() == [False, False, False]
    assert dormant_neurons(magnitudes, threshold=1.0).tolist() == [True, False, True]


def test_a_layer_of_zeros_is_dormant_as_a_whole():
    assert dormant_ratio([th.zeros(5, 3), th.ones(5, 1)]) == 0.75


def test_negative_activations_count_by_magnitude():
    network = nn.Sequential(nn.Linear(1, 2), nn.Tanh())
    with th.no_grad():
        network[0].weight.copy_(th.tensor([[1.0], [-1.0]]))
        network[0].bias.zero_()
    (magnitudes,) = magnitudes_of(network, th.tensor([[3.0], [-3.0]]))
    assert th.allclose(magnitudes, th.full((2, 2), math.tanh(3.0)))
    assert not dormant_neurons(magnitudes).any()


def test_a_channel_counts_by_the_magnitude_of_its_positions():
    network = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Tanh(), nn.Flatten(), nn.Linear(8, 1))
    with th.no_grad():
        network[0].weight.copy_(th.tensor([1.0, 0.0]).view(2, 1, 1, 1))
    image = th.tensor([[1.0, -1.0], [1.0, -1.0]]).view(1, 1, 2, 2)
    (magnitudes,) = magnitudes_of(network, image)
    # The mean activation of the first channel is 0, but it is anything but dormant
    assert magnitudes.tolist() == [[pytest.approx(math.tanh(1.0)), 0.0]]
    layers = find_neuron_layers([("net", network)])
    assert record_activations(network, [image], layers, read=layer_features).shape == (1, 8)


def test_crelu_counts_both_halves_once():
    network = nn.Sequential(nn.Linear(1, 2, bias=False), CReLU(), nn.Linear(4, 1))
    with th.no_grad():
        network[0].weight.copy_(th.tensor([[2.0], [-3.0]]))
    (magnitudes,) = magnitudes_of(network, th.tensor([[1.0], [-1.0]]))
    assert magnitudes.tolist() == [[2.0, 3.0], [2.0, 3.0]]
    layers = find_neuron_layers([("net", network)])
    features = record_activations(network, [th.tensor([[1.0]])], layers, read=layer_features)
    assert features.tolist() == [[2.0, 0.0, 0.0, 3.0]]


def test_crelu_on_a_convolution():
    network = nn.Sequential(nn.Conv2d(1, 3, 1), CReLU(), nn.Flatten(), nn.Linear(24, 1))
    image = th.randn(5, 1, 2, 2)
    (magnitudes,) = magnitudes_of(network, image)
    assert th.allclose(magnitudes, network[0](image).abs().mean((2, 3)))


def test_weight_norm_counts_rows_of_hidden_layers():
    network = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.ReLU(), nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1))
    with th.no_grad():
        network[0].weight.copy_(th.tensor([[1.0, -2.0], [0.5, 0.5]]))
        network[3].weight.copy_(th.tensor([[-4.0, 4.0]]))
        network[5].weight.fill_(100.0)  # an output layer has no neurons
        network[0].bias.fill_(100.0)
    assert weight_norm(find_neuron_layers([("net", network)])) == pytest.approx((3 + 1 + 8) / 3)


def test_weight_norm_of_a_convolution_counts_the_kernel():
    network = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU())
    nn.init.constant_(network[0].weight, -0.5)
    assert weight_norm(find_neuron_layers([("net", network)])) == pytest.approx(2 * 2 * 2 * 0.5)


@pytest.mark.parametrize(
    "matrix, effective, stable",
    [
        (th.eye(5), 5.0, 5.0),
        (3 * th.eye(5)[:, :2], 2.0, 2.0),
        (th.outer(th.arange(1.0, 7.0), th.tensor([1.0, -2.0, 0.5])), 1.0, 1.0),
        # p = 3/4, 1/4
        (th.diag(th.tensor([3.0, 1.0, 0.0])), math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)), 10 / 9),
        (th.zeros(4, 3), 0.0, 0.0),
    ],
)
def test_ranks_of_known_matrices(matrix, effective, stable):
    assert effective_rank(matrix) == pytest.approx(effective, rel=1e-6)
    assert stable_rank(matrix) == pytest.approx(stable, rel=1e-6)
