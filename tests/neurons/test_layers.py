import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.sac.policies import CnnPolicy, SACPolicy
from torch import nn

from sb3_nbsp.neurons import find_neuron_layers
from sb3_nbsp.neurons.layers import count_neurons, split_by_layer

ACTIONS = spaces.Box(-1, 1, (2,))


def mlp_policy(net_arch: list[int], activation_fn: type[nn.Module] = nn.ReLU) -> SACPolicy:
    return SACPolicy(spaces.Box(-1, 1, (5,)), ACTIONS, lambda _: 3e-4, net_arch=net_arch, activation_fn=activation_fn)


def actor_chain(policy: SACPolicy) -> list[tuple[str, nn.Module]]:
    actor = policy.actor
    return [
        ("features", actor.features_extractor),
        ("latent_pi", actor.latent_pi),
    ]


def names_and_sizes(chain: list[tuple[str, nn.Module]]) -> list[tuple[str, int]]:
    return [(layer.name, layer.n_neurons) for layer in find_neuron_layers(chain)]


@pytest.mark.parametrize("activation_fn", [nn.ReLU, nn.Tanh, nn.ELU])
def test_actor_mlp(activation_fn: type[nn.Module]) -> None:
    policy = mlp_policy([7, 6], activation_fn)
    heads = [policy.actor.mu, policy.actor.log_std]
    layers = find_neuron_layers(actor_chain(policy), heads)
    # The two heads have no neurons
    assert layers[-1].consumers == heads
    assert [(layer.name, layer.n_neurons) for layer in layers] == [("latent_pi.0", 7), ("latent_pi.2", 6)]
    for layer, position in zip(layers, (0, 2), strict=True):
        assert layer.linear is policy.actor.latent_pi[position]
        assert layer.activation is policy.actor.latent_pi[position + 1]
        assert isinstance(layer.activation, activation_fn)
        assert layer.norms == []
    assert count_neurons(layers) == 13


def test_critic_mlp() -> None:
    critic = mlp_policy([7, 6]).critic
    for index, head in enumerate(critic.q_networks):
        chain = [("features", critic.features_extractor), (f"qf{index}", head)]
        assert names_and_sizes(chain) == [(f"qf{index}.0", 7), (f"qf{index}.2", 6)]
        assert head[-1].out_features == 1  # the output, which is none of the two


def test_linear_policy_has_no_neurons() -> None:
    assert find_neuron_layers(actor_chain(mlp_policy([]))) == []


def test_nature_cnn() -> None:
    pixels = spaces.Box(0, 255, (4, 84, 84), dtype="uint8")
    policy = CnnPolicy(pixels, ACTIONS, lambda _: 3e-4, net_arch=[9])
    # A neuron of a convolution is a channel; the 3136 flattened outputs of the last one are no neurons of their own
    assert names_and_sizes(actor_chain(policy)) == [
        ("features.cnn.0", 32),
        ("features.cnn.2", 64),
        ("features.cnn.4", 64),
        ("features.linear.0", 512),
        ("latent_pi.0", 9),
    ]
    layers = find_neuron_layers([("features", policy.critic.features_extractor), ("qf0", policy.critic.q_networks[0])])
    assert [layer.name for layer in layers][-2:] == ["features.linear.0", "qf0.0"]
    assert count_neurons(layers) == 32 + 64 + 64 + 512 + 9


def test_norms_between_linear_and_activation() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 2),
        nn.GroupNorm(2, 6),
        nn.Dropout(0.1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24, 5, bias=False),
        nn.LayerNorm(5),
        nn.Tanh(),
        nn.Linear(5, 2),
    )
    layers = find_neuron_layers([("net", net)])
    assert [(layer.name, layer.n_neurons) for layer in layers] == [("net.0", 4), ("net.3", 6), ("net.8", 5)]
    assert [layer.norms for layer in layers] == [[net[1]], [net[4]], [net[9]]]
    assert [layer.activation for layer in layers] == [net[2], net[6], net[10]]
    assert dict(layers[0].incoming()).keys() == {"linear.weight", "linear.bias", "norm0.weight", "norm0.bias"}
    last = dict(layers[2].incoming())
    assert last.keys() == {"linear.weight", "norm0.weight", "norm0.bias"}
    assert last["linear.weight"] is net[8].weight
    assert last["norm0.weight"] is net[9].weight
    assert last["norm0.bias"] is net[9].bias


def test_norm_behind_the_activation_is_not_incoming() -> None:
    net = nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 4), nn.ReLU(), nn.LayerNorm(4), nn.Linear(4, 1))
    (layer,) = find_neuron_layers([("net", net)])
    assert layer.norms == []
    assert dict(layer.incoming()).keys() == {"linear.weight", "linear.bias"}


def test_split_by_layer() -> None:
    layers = find_neuron_layers(actor_chain(mlp_policy([2, 3])))
    parts = split_by_layer(th.arange(5), layers)
    assert {name: part.tolist() for name, part in parts.items()} == {"latent_pi.0": [0, 1], "latent_pi.2": [2, 3, 4]}
