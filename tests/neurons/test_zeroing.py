"""Neurons that are switched off, worked out by hand."""

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.sac.policies import SACPolicy
from torch import nn

from sb3_nbsp.neurons import NeuronLayer, find_neuron_layers, zeroed


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


@pytest.fixture
def mlp() -> nn.Sequential:
    """2 -> 2 -> 2 -> 1 with all weights one and without bias: (1, 2) gives 3, 3, then 6, 6, then 12."""
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    for parameter in network.parameters():
        nn.init.constant_(parameter, float(parameter.dim() == 2))
    return network


@pytest.mark.parametrize(
    ("off", "expected"),
    [
        ([0, 0, 0, 0], 12.0),
        ([1, 0, 0, 0], 6.0),  # 3 reaches each of the second layer's two
        ([0, 0, 0, 1], 6.0),
        ([1, 0, 1, 0], 3.0),
        ([1, 1, 0, 0], 0.0),
        ([1, 1, 1, 1], 0.0),
    ],
)
def test_mlp_by_hand(mlp: nn.Sequential, off: list[int], expected: float) -> None:
    inputs = th.tensor([[1.0, 2.0], [2.0, 4.0]])
    layers = find_neuron_layers([("net", mlp)])
    with zeroed(layers, th.tensor(off, dtype=th.bool)):
        assert mlp(inputs).flatten().tolist() == [expected, 2 * expected]
    assert mlp(inputs).flatten().tolist() == [12.0, 24.0] and hooks(mlp) == 0


def test_a_neuron_that_is_not_finite_is_zero_too(mlp: nn.Sequential) -> None:
    with th.no_grad():
        mlp[0].bias[0] = float("inf")
    with zeroed(find_neuron_layers([("net", mlp)]), th.tensor([True, False, False, False])):
        assert mlp(th.tensor([[1.0, 2.0]])).item() == 6


def test_channel_of_a_convolution_by_hand() -> None:
    """1×1 convolutions: channel c of the first layer is (c + 1) times the pixel; the head adds up everything."""
    conv, head = nn.Conv2d(1, 3, 1, bias=False), nn.Linear(12, 1, bias=False)
    network = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), head)
    with th.no_grad():
        conv.weight.copy_(th.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1))
        head.weight.fill_(1)
    pixels = th.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 2, 2)  # sum 10
    layers = find_neuron_layers([("net", network)])
    assert network(pixels).item() == 60
    with zeroed(layers, th.tensor([False, True, False])):
        assert network(pixels).item() == 40
        channels = network[1](conv(pixels))
    assert (channels[0, 1] == 0).all() and channels[0, 2].flatten().tolist() == [3, 6, 9, 12]
    assert network(pixels).item() == 60


def test_restored_after_an_exception(mlp: nn.Sequential) -> None:
    layers = find_neuron_layers([("net", mlp)])
    with pytest.raises(RuntimeError, match="inside"), zeroed(layers, th.ones(4, dtype=th.bool)):
        assert hooks(mlp) == 2
        raise RuntimeError("inside")
    assert hooks(mlp) == 0 and mlp(th.tensor([[1.0, 2.0]])).item() == 12


def test_blocks_add_up(mlp: nn.Sequential) -> None:
    layers = find_neuron_layers([("net", mlp)])
    with zeroed(layers, th.tensor([True, False, False, False])):
        with zeroed(layers, th.tensor([False, False, True, False])):
            assert mlp(th.tensor([[1.0, 2.0]])).item() == 3
        assert mlp(th.tensor([[1.0, 2.0]])).item() == 6


def test_the_actor_of_a_policy() -> None:
    th.manual_seed(0)
    policy = SACPolicy(spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,)), lambda _: 3e-4, net_arch=[5, 4])
    layers = find_neuron_layers([("latent_pi", policy.actor.latent_pi)])
    observations = th.randn(6, 3)
    with zeroed(layers, th.tensor([False] * 5 + [True] * 4)):
        actions = policy.actor(observations, deterministic=True)
    # Only the head's bias is left
    th.testing.assert_close(actions, th.tanh(policy.actor.mu.bias).expand(6, 2))


@pytest.mark.parametrize("wrong", [th.zeros(3, dtype=th.bool), th.zeros(4), th.zeros(4, 1, dtype=th.bool), th.tensor([0, 1])])
def test_another_vector_is_an_error(mlp: nn.Sequential, wrong: th.Tensor) -> None:
    layers = find_neuron_layers([("net", mlp)])
    with pytest.raises(ValueError, match="neurons must be a boolean vector of length 4"), zeroed(layers, wrong):
        pytest.fail("not to be entered")
    assert hooks(mlp) == 0


class CReLU(nn.Module):
    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return th.cat([inputs, -inputs], 1).relu()


def test_another_number_of_activations_is_an_error() -> None:
    network = nn.Sequential(nn.Linear(2, 3), CReLU(), nn.Linear(6, 1))
    layer = NeuronLayer("net.0", network[0], network[1])  # as if somebody had registered it
    with pytest.raises(ValueError, match="has 3 neurons but CReLU returns 6 activations"):
        with zeroed([layer], th.ones(3, dtype=th.bool)):
            network(th.zeros(1, 2))
    assert hooks(network) == 0
