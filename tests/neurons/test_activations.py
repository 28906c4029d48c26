from collections.abc import Callable

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.sac.policies import SACPolicy
from torch import nn

from sb3_nbsp.neurons import NeuronLayer, find_neuron_layers, record_activations


def relu(x: float) -> float:
    return max(x, 0.0)


def slow_mlp(linears: list[nn.Linear], observation: list[float], function: Callable[[float], float]) -> list[float]:
    """Activations of all hidden neurons for one step, neuron by neuron."""
    activations: list[float] = []
    signal = observation
    for linear in linears:
        weight, bias = linear.weight.tolist(), linear.bias.tolist()
        signal = [
            function(sum(w * x for w, x in zip(row, signal, strict=True)) + b) for row, b in zip(weight, bias, strict=True)
        ]
        activations += signal
    return activations


@pytest.mark.parametrize(("module", "function"), [(nn.ReLU, relu), (nn.Tanh, np.tanh)])
def test_equals_slow_forward_one_step_at_a_time(module: type[nn.Module], function: Callable[[float], float]) -> None:
    th.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 6), module(), nn.Linear(6, 4), module(), nn.Linear(4, 2)).double()
    observations = th.randn(11, 3, dtype=th.float64)
    recorded = record_activations(net, [observations], find_neuron_layers([("net", net)]))
    expected = [slow_mlp([net[0], net[2]], step, function) for step in observations.tolist()]
    assert recorded.shape == (11, 10)
    np.testing.assert_allclose(recorded.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_sb3_actor_and_critic_with_observations_and_actions() -> None:
    th.manual_seed(0)
    policy = SACPolicy(spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,)), lambda _: 3e-4, net_arch=[5, 4])
    observations, actions = th.randn(7, 3), th.rand(7, 2) * 2 - 1

    latent = policy.actor.latent_pi
    layers = find_neuron_layers([("latent_pi", latent)])
    recorded = record_activations(lambda obs, _: policy.actor.get_action_dist_params(obs), [observations, actions], layers)
    expected = [slow_mlp([latent[0], latent[2]], step, relu) for step in observations.tolist()]
    np.testing.assert_allclose(recorded.numpy(), expected, rtol=1e-4, atol=1e-6)

    head = policy.critic.q_networks[1]
    layers = find_neuron_layers([("qf1", head)])
    # The forward pass of all critics: only the layers asked for are recorded
    recorded = record_activations(policy.critic, [observations, actions], layers)
    steps = [o + a for o, a in zip(observations.tolist(), actions.tolist(), strict=True)]
    expected = [slow_mlp([head[0], head[2]], step, relu) for step in steps]
    np.testing.assert_allclose(recorded.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_channel_is_the_mean_over_its_positions() -> None:
    conv = nn.Conv2d(1, 2, 1)
    conv.weight.data = th.tensor([2.0, -1.0]).view(2, 1, 1, 1)
    conv.bias.data = th.tensor([0.0, 1.0])
    net = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(8, 1), nn.Tanh(), nn.Linear(1, 1))
    net[3].weight.data.fill_(0.01)
    net[3].bias.data.fill_(0.5)
    images = th.tensor([[[[1.0, -2.0], [3.0, 4.0]]], [[[0.0, 0.0], [0.0, -1.0]]]])
    recorded = record_activations(net, [images], find_neuron_layers([("net", net)]))
    # Channel 0: relu(2x): 2, 0, 6, 8 and 0, 0, 0, 0. Channel 1: relu(1 - x): 0, 3, 0, 0 and 1, 1, 1, 2
    expected = [[4, 0.75, np.tanh(0.5 + 0.01 * 19)], [0, 1.25, np.tanh(0.5 + 0.01 * 5)]]
    np.testing.assert_allclose(recorded.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 5, 10, 11])
def test_batching_does_not_change_the_result(batch_size: int) -> None:
    th.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4), nn.Tanh()).double()
    images = th.randn(10, 1, 3, 3, dtype=th.float64)
    layers = find_neuron_layers([("net", net)])
    batches: list[int] = []

    def forward(batch: th.Tensor) -> None:
        batches.append(len(batch))
        net(batch)

    recorded = record_activations(forward, [images], layers, batch_size)
    assert max(batches) <= batch_size
    assert sum(batches) == 10
    assert recorded.shape == (10, 7)
    th.testing.assert_close(recorded, record_activations(net, [images], layers), rtol=1e-12, atol=1e-12)


def n_hooks(net: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in net.modules())


def test_hooks_are_removed() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    layers = find_neuron_layers([("net", net)])
    during: list[int] = []

    def forward(batch: th.Tensor) -> None:
        during.append(n_hooks(net))
        net(batch)

    recorded = record_activations(forward, [th.randn(4, 3)], layers)
    assert during == [1]
    assert n_hooks(net) == 0
    assert not recorded.requires_grad


def test_hooks_are_removed_after_an_error() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))

    def forward(batch: th.Tensor) -> None:
        net(batch)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        record_activations(forward, [th.randn(4, 3)], find_neuron_layers([("net", net)]))
    assert n_hooks(net) == 0


class CReLU(nn.Module):
    def forward(self, x: th.Tensor) -> th.Tensor:
        return th.cat([x.relu(), (-x).relu()], dim=1)


def test_activation_of_another_width_is_refused() -> None:
    net = nn.Sequential(nn.Linear(3, 4), CReLU(), nn.Linear(8, 2))
    layer = NeuronLayer("net.0", net[0], net[1])  # as if somebody had registered it
    with pytest.raises(ValueError, match=r"'net\.0' has 4 neurons but CReLU returns 8"):
        record_activations(net, [th.randn(4, 3)], [layer])
    assert n_hooks(net) == 0


class Unused(nn.Module):
    """Its forward pass goes past the activation function that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.ReLU())

    def forward(self, x: th.Tensor) -> th.Tensor:
        return nn.functional.silu(self.net[0](x))


def test_a_layer_that_is_not_used_is_named() -> None:
    network = Unused()
    layers = find_neuron_layers([("net", network.net)])
    with pytest.raises(ValueError, match=r"Layer 'net\.0': its activation function, a ReLU, is not called"):
        record_activations(network, [th.randn(4, 3)], layers)
    assert n_hooks(network) == 0
