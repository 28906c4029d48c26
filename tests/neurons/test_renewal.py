import math

import pytest
import torch as th
from torch import nn

from sb3_nbsp.neurons import NeuronLayer, find_neuron_layers
from sb3_nbsp.neurons.crelu import CReLU
from sb3_nbsp.neurons.renewal import (
    Initializer,
    clear_incoming_moments,
    clear_outgoing_moments,
    cut_outgoing,
    renew_incoming,
)

ORTHOGONAL = Initializer(math.sqrt(2))
UNIFORM = Initializer()
CHOSEN = th.tensor([1, 3])


def generator(seed: int = 0) -> th.Generator:
    return th.Generator().manual_seed(seed)


def networks() -> dict[str, nn.Sequential]:
    th.manual_seed(0)
    return {
        "mlp": nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)),
        "crelu": nn.Sequential(nn.Linear(5, 6), CReLU(), nn.Linear(12, 3)),
        "layer norm": nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3)),
        "conv to conv": nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 3, 2)),
        "conv to flatten": nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 3)),
        "crelu conv to flatten": nn.Sequential(nn.Conv2d(2, 6, 3), CReLU(), nn.Flatten(), nn.Linear(12 * 16, 3)),
    }


def inputs(name: str) -> th.Tensor:
    th.manual_seed(1)
    return th.randn(7, 2, 6, 6) if "conv" in name else th.randn(7, 5)


def first_layer(network: nn.Sequential) -> NeuronLayer:
    return find_neuron_layers([("net", network)])[0]


def snapshot(network: nn.Module) -> dict[str, th.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("initializer", [ORTHOGONAL, UNIFORM])
def test_only_the_incoming_parameters_of_the_chosen_neurons_change(name: str, initializer: Initializer) -> None:
    network = networks()[name]
    if name == "layer norm":
        nn.init.constant_(network[1].weight, 2.0)
        nn.init.constant_(network[1].bias, 0.5)
    before = snapshot(network)
    renew_incoming(first_layer(network), CHOSEN, initializer, generator(5))
    others = [0, 2, 4, 5]
    n_first = 4 if name == "layer norm" else 2
    for index, (parameter_name, parameter) in enumerate(network.named_parameters()):
        if index >= n_first:
            assert th.equal(parameter, before[parameter_name])
            continue
        assert th.equal(parameter[others], before[parameter_name][others])
        assert not th.isclose(parameter[CHOSEN], before[parameter_name][CHOSEN]).any()
    if name == "layer norm":
        assert network[1].weight.tolist() == [2, 1, 2, 1, 2, 2]
        assert network[1].bias.tolist() == [0.5, 0, 0.5, 0, 0.5, 0.5]


def test_the_statistics_of_a_batch_norm_begin_anew() -> None:
    norm = nn.BatchNorm1d(6)
    layer = first_layer(nn.Sequential(nn.Linear(5, 6), norm, nn.ReLU(), nn.Linear(6, 3)))
    for buffer, value in ((norm.running_mean, 3.0), (norm.running_var, 5.0)):
        assert buffer is not None
        buffer.fill_(value)
    renew_incoming(layer, CHOSEN, UNIFORM, generator())
    assert norm.running_mean is not None and norm.running_mean.tolist() == [3, 0, 3, 0, 3, 3]
    assert norm.running_var is not None and norm.running_var.tolist() == [5, 1, 5, 1, 5, 5]


def test_orthogonal_rows() -> None:
    layer = first_layer(nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 1)))
    renew_incoming(layer, th.arange(6), ORTHOGONAL, generator())
    th.testing.assert_close(layer.linear.weight @ layer.linear.weight.T, 2 * th.eye(6))
    assert (layer.linear.bias == 0).all()


def test_uniform_bounds_are_those_of_pytorch() -> None:
    layer = first_layer(nn.Sequential(nn.Conv2d(4, 400, 5), nn.ReLU(), nn.Conv2d(400, 1, 1)))
    renew_incoming(layer, th.arange(400), UNIFORM, generator())
    for parameter in (layer.linear.weight, layer.linear.bias):
        assert parameter.abs().max() <= 0.1  # 1 / sqrt(4 * 25)
        assert parameter.abs().max() > 0.099
        assert abs(parameter.mean()) < 0.01


def test_draws_do_not_touch_the_global_stream_and_follow_the_seed() -> None:
    state = th.get_rng_state()
    drawn = [ORTHOGONAL.draw(nn.Linear(5, 6), generator(seed))[0] for seed in (1, 1, 2)]
    assert th.equal(drawn[0], drawn[1])
    assert not th.isclose(drawn[0], drawn[2]).any()
    th.set_rng_state(state)
    linear = nn.Linear(5, 6)
    state = th.get_rng_state()
    UNIFORM.draw(linear, generator())
    assert th.equal(th.get_rng_state(), state)


@pytest.mark.parametrize("name", networks())
def test_cut_outgoing_is_the_network_with_these_activations_at_zero(name: str) -> None:
    network = networks()[name]
    layer = first_layer(network)
    mask = th.zeros(6 * layer.features_per_neuron)
    mask[CHOSEN] = 1
    if layer.features_per_neuron == 2:
        mask[6 + CHOSEN] = 1

    def zero(_module: nn.Module, _inputs: object, output: th.Tensor) -> th.Tensor:
        return output * (1 - mask).view(1, -1, *[1] * (output.dim() - 2))

    handle = layer.activation.register_forward_hook(zero)
    expected = network(inputs(name))
    handle.remove()
    before = snapshot(network)
    cut_outgoing(layer, CHOSEN)
    th.testing.assert_close(network(inputs(name)), expected)
    changed = [key for key, value in network.named_parameters() if not th.equal(value, before[key])]
    assert changed == [list(before)[-2]]  # the weight of the last module


@pytest.mark.parametrize("name", networks())
def test_on_the_mean_activation_nothing_changes(name: str) -> None:
    """Each chosen feature is replaced by its mean: a network that sees that mean gives the same before and after."""
    network = networks()[name].double()
    layer = first_layer(network)
    n_features = layer.features_per_neuron
    th.manual_seed(2)
    means = th.rand(6, n_features, dtype=th.float64)
    flat = means.T.flatten()

    def fix(_module: nn.Module, _inputs: object, output: th.Tensor) -> th.Tensor:
        fixed = output.clone()
        for feature in range(n_features):
            for neuron in CHOSEN.tolist():
                fixed[:, feature * 6 + neuron] = flat[feature * 6 + neuron]
        return fixed

    layer.activation.register_forward_hook(fix)
    x = inputs(name).double()
    expected = network(x)
    cut_outgoing(layer, CHOSEN, means)
    th.testing.assert_close(network(x), expected, rtol=1e-10, atol=1e-12)


def test_heads_are_consumers() -> None:
    body, mu, log_std = nn.Sequential(nn.Linear(5, 6), nn.ReLU()), nn.Linear(6, 2), nn.Linear(6, 2)
    (layer,) = find_neuron_layers([("net", body)], heads=[nn.Sequential(mu, nn.Hardtanh()), log_std])
    assert layer.consumers == [mu, log_std]
    cut_outgoing(layer, CHOSEN)
    for head in (mu, log_std):
        assert (head.weight[:, CHOSEN] == 0).all()
        assert (head.weight[:, [0, 2, 4, 5]] != 0).all()


def test_a_consumer_of_something_else_too_is_an_error() -> None:
    layer = first_layer(nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6 + 3, 1)))
    with pytest.raises(ValueError, match="6 outputs, but the layer after it reads 9 inputs"):
        cut_outgoing(layer, CHOSEN)


@pytest.mark.parametrize("optimizer_class", [th.optim.Adam, th.optim.RMSprop, th.optim.SGD])
def test_moments(optimizer_class: type[th.optim.Optimizer]) -> None:
    for name, network in networks().items():
        options = {"momentum": 0.9} if optimizer_class is th.optim.SGD else {}
        optimizer = optimizer_class(network.parameters(), lr=1e-3, **options)  # type: ignore[call-arg]
        network(inputs(name)).square().sum().backward()
        for parameter in network.parameters():
            parameter.grad = th.ones_like(parameter)
        optimizer.step()
        layer = first_layer(network)
        clear_incoming_moments(optimizer, layer, CHOSEN)
        clear_outgoing_moments(optimizer, layer, th.tensor([0]))
        incoming = {id(parameter) for _, parameter in layer.incoming()}
        consumer = layer.consumers[0]
        for parameter in network.parameters():
            expected = th.ones_like(parameter, dtype=th.bool)  # which moments are left
            if id(parameter) in incoming:
                expected[CHOSEN] = False
            if parameter is consumer.weight:
                per_feature = consumer.weight.shape[1] // (6 * layer.features_per_neuron)
                for feature in range(layer.features_per_neuron):
                    start = feature * 6 * per_feature
                    expected[:, start : start + per_feature] = False
            moments = [m for m in optimizer.state[parameter].values() if isinstance(m, th.Tensor) and m.dim() > 0]
            assert moments
            assert all(th.equal(moment != 0, expected) for moment in moments), name
