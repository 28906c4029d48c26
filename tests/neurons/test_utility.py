"""Use of neurons and cutting their outgoing weights, against loops over neurons."""

from __future__ import annotations

import numpy as np
import pytest
import torch as th
from torch import nn

from sb3_nbsp.neurons import CReLU, contribution_utility, find_neuron_layers, record_activations, redo_score
from sb3_nbsp.neurons.crelu import widen_after
from sb3_nbsp.neurons.renewal import cut_outgoing
from sb3_nbsp.neurons.utility import feature_means, neuron_magnitudes


def mlp(activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(3, 5), activation(), nn.Linear(5, 4), activation(), nn.Linear(4, 2))
    widen_after(net)
    return net


def cnn(activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    factor = 2 if activation is CReLU else 1
    return nn.Sequential(
        nn.Conv2d(2, 3, 2),
        activation(),
        nn.Conv2d(3 * factor, 4, 2),
        activation(),
        nn.Flatten(),
        nn.Linear(4 * factor * 9, 5),
        activation(),
        nn.Linear(5 * factor, 2),
    )


NETS = {
    f"{make.__name__} {activation.__name__}": (make, activation)
    for make in (mlp, cnn)
    for activation in (nn.Tanh, nn.ReLU, CReLU)
}


def build(name: str) -> tuple[nn.Sequential, th.Tensor]:
    th.manual_seed(0)
    make, activation = NETS[name]
    return make(activation).double(), th.randn(7, 3) if make is mlp else th.randn(7, 2, 5, 5)


def outputs_of(net: nn.Sequential, x: th.Tensor) -> list[th.Tensor]:
    found = []
    for module in net:
        x = module(x)
        if isinstance(module, (nn.Tanh, nn.ReLU, CReLU)):
            found.append(x.detach())
    return found


@pytest.mark.parametrize("name", NETS)
def test_against_loops(name: str) -> None:
    net, x = build(name)
    x = x.double()
    layers = find_neuron_layers([("net", net)])
    linears = [module for module in net if isinstance(module, (nn.Linear, nn.Conv2d))]
    recorded = record_activations(net, [x], layers, batch_size=3, read=neuron_magnitudes).mean(0)
    magnitudes = recorded.split([layer.n_neurons for layer in layers])
    for index, (layer, output) in enumerate(zip(layers, outputs_of(net, x), strict=True)):
        n, factor = layer.n_neurons, 2 if "CReLU" in name else 1
        reader = linears[index + 1].weight.tolist()
        utilities, sizes = [], []
        for j in range(n):
            utility = size = 0.0
            for feature in range(j, factor * n, n):
                values = [abs(v) for step in range(len(x)) for v in output[step, feature].flatten().tolist()]
                mean = sum(values) / len(values)
                size += mean
                width = len(reader[0]) // (factor * n)  # positions
                weights = [
                    np.abs(row[column]).sum() for row in reader for column in range(feature * width, (feature + 1) * width)
                ]
                utility += mean * sum(weights) / len(reader)
            utilities.append(utility)
            sizes.append(size)
        means = feature_means(layer, output)
        np.testing.assert_allclose(contribution_utility(layer, means[0]).numpy(), utilities, rtol=1e-10)
        np.testing.assert_allclose(magnitudes[index].numpy(), sizes, rtol=1e-10)
        np.testing.assert_allclose(redo_score(magnitudes[index]).numpy(), np.array(sizes) / np.mean(sizes), rtol=1e-10)


def test_several_readers_count_as_one() -> None:
    body, heads = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), [nn.Linear(2, 1), nn.Linear(2, 3)]
    heads[0].weight.data = th.tensor([[1.0, -2.0]])
    heads[1].weight.data = th.tensor([[0.0, 1.0], [-3.0, 0.0], [0.0, 1.0]])
    (layer,) = find_neuron_layers([("body", body)], heads)
    assert contribution_utility(layer, th.tensor([[2.0], [0.5]])).tolist() == [2.0, 0.5]


def test_score_of_a_silent_layer_is_zero() -> None:
    assert redo_score(th.zeros(3)).tolist() == [0, 0, 0]
    assert redo_score(th.tensor([0.0, 1.0, 3.0, 4.0])).tolist() == [0, 0.5, 1.5, 2]


@pytest.mark.parametrize("name", NETS)
def test_cut_with_means_the_next_layer_does_not_notice_on_the_mean_activation(name: str) -> None:
    net, x = build(name)
    layers = find_neuron_layers([("net", net)])
    linears = [module for module in net if isinstance(module, (nn.Linear, nn.Conv2d))]
    for index, output in enumerate(outputs_of(net, x.double())):
        layer = layers[index]
        # Every feature at its mean, at all positions
        mean = output.mean([0, *range(2, output.dim())])
        constant = mean.view(1, -1, *[1] * (output.dim() - 2)).expand(1, *output.shape[1:])
        behind = linears[index + 1]
        signal = constant if isinstance(behind, nn.Conv2d) else constant.flatten(1)
        before, weight = behind(signal), behind.weight.detach().clone()
        neurons = th.tensor([2, 0])
        cut_outgoing(layer, neurons, feature_means(layer, output)[1])
        th.testing.assert_close(behind(signal), before, rtol=1e-12, atol=1e-12)
        changed = (behind.weight != weight).flatten(2).any(2).any(0) if weight.dim() > 2 else (behind.weight != weight).any(0)
        by_feature = changed.view(-1, 1 if weight.dim() > 2 else changed.numel() // output.shape[1])
        owned = [feature % layer.n_neurons in (0, 2) for feature in range(output.shape[1])]
        assert by_feature.any(1).tolist() == owned
        assert not behind.weight[:, changed].any()


def test_widening() -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), CReLU(), nn.Linear(4, 2, bias=False))
    kept = [net[0], net[2]]
    state = th.get_rng_state()
    assert widen_after(net[:4]) == 2
    assert th.equal(th.get_rng_state(), state)
    assert widen_after(net) == 1
    assert [net[0], net[2]] == kept
    assert (net[4].in_features, net[4].out_features, net[4].bias) == (8, 2, None)
    assert net(th.randn(6, 3)).shape == (6, 2)
