"""What is an activation function is known by name; what is not known is an error that names the module."""

from __future__ import annotations

from typing import Any

import pytest
import torch as th
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils import spectral_norm as old_spectral_norm

from sb3_nbsp.neurons import CReLU, find_neuron_layers, module_kinds, register_activation
from sb3_nbsp.neurons.activations import record_activations
from sb3_nbsp.neurons.layers import NeuronLayer
from sb3_nbsp.neurons.renewal import Initializer, renew_incoming


def layers_of(*modules: nn.Module) -> list[NeuronLayer]:
    return find_neuron_layers([("net", nn.Sequential(*modules))])


ACTIVATIONS = [
    *(nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.PReLU(), nn.PReLU(5), nn.RReLU(), nn.ELU(), nn.CELU(), nn.SELU(), nn.GELU()),
    *(nn.SiLU(), nn.Mish(), nn.Tanh(), nn.Sigmoid(), nn.LogSigmoid(), nn.Softplus(), nn.Softsign(), nn.Hardtanh()),
    *(nn.Hardsigmoid(), nn.Hardswish(), nn.Tanhshrink(), nn.Softshrink(), nn.Hardshrink(), nn.Threshold(0.1, 0.0)),
]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activation_functions_act_on_each_element_alone(activation: nn.Module) -> None:
    net = nn.Sequential(nn.Linear(3, 5), activation, nn.Linear(5, 2))
    (layer,) = find_neuron_layers([("net", net)])
    assert layer.activation is activation
    assert layer.consumers == [net[2]]
    x = th.randn(4, 3)
    with th.no_grad():
        expected = activation.eval()(net[0](x))
        assert th.equal(record_activations(net.eval(), (x,), [layer]), expected)
        before = net[0](x)
        before[:, 2] += 1
        assert ((activation(before) != expected).any(0) == th.arange(5).eq(2)).all() or isinstance(activation, nn.Threshold)


NORMS = {
    "rms": ([nn.Linear(3, 5), nn.RMSNorm(5)], {"weight"}),
    "layer": ([nn.Linear(3, 5), nn.LayerNorm(5)], {"weight", "bias"}),
    "batch": ([nn.Linear(3, 5), nn.BatchNorm1d(5)], {"weight", "bias"}),
    "synchronized": ([nn.Linear(3, 5), nn.SyncBatchNorm(5)], {"weight", "bias"}),
    "instance": ([nn.Conv2d(3, 5, 3), nn.InstanceNorm2d(5, affine=True)], {"weight", "bias"}),
    "instance without parameters": ([nn.Conv2d(3, 5, 3), nn.InstanceNorm2d(5)], set()),
    "group": ([nn.Conv1d(3, 5, 3), nn.GroupNorm(1, 5)], {"weight", "bias"}),
    "over channels and positions": ([nn.Conv1d(3, 5, 3), nn.LayerNorm((5, 8))], {"weight", "bias"}),
    "over positions, as many as channels": ([nn.Conv1d(3, 5, 3), nn.LayerNorm(5)], set()),
    "local response": ([nn.Conv2d(3, 5, 3), nn.LocalResponseNorm(2)], set()),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_is_no_activation(name: str) -> None:
    modules, own = NORMS[name]
    relu = nn.ReLU()
    (layer,) = layers_of(*modules, relu)
    assert (layer.activation, layer.norms) == (relu, modules[1:])
    found = {key for key, _ in layer.incoming()}
    assert found == {"linear.weight", "linear.bias", *(f"norm0.{each}" for each in own)}


@pytest.mark.parametrize("between", [nn.AlphaDropout(0.1), nn.Dropout1d(0.1), nn.Identity()], ids=str)
def test_dropout_is_no_activation(between: nn.Module) -> None:
    relu = nn.ReLU()
    (layer,) = layers_of(nn.Linear(3, 5), between, relu, nn.Linear(5, 1))
    assert layer.activation is relu


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(2), nn.ZeroPad2d(1), nn.Upsample(scale_factor=2)], ids=str
)
@pytest.mark.parametrize("ahead", [True, False])
def test_pooling_is_no_activation(pool: nn.Module, ahead: bool) -> None:
    relu = nn.ReLU()
    middle = [pool, relu] if ahead else [relu, pool]
    net = nn.Sequential(nn.Conv2d(1, 3, 3), *middle, nn.Flatten(), nn.LazyLinear(2))
    x = th.randn(2, 1, 8, 8)
    net(x)
    (layer,) = find_neuron_layers([("net", net)])
    assert layer.activation is relu
    ((_, columns),) = layer.outgoing()
    assert columns.shape == (3, 1, net[-1].in_features // 3)


@pytest.mark.parametrize(("convolution", "dimensions"), [(nn.Conv1d, 1), (nn.Conv3d, 3)])
def test_convolutions_of_other_dimensions_have_neurons(convolution: Any, dimensions: int) -> None:
    net = nn.Sequential(convolution(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4), nn.ReLU(), nn.Linear(4, 1))
    x = th.randn(3, 2, *[6] * dimensions)
    net(x)
    layers = find_neuron_layers([("net", net)])
    assert [layer.n_neurons for layer in layers] == [5, 4]
    recorded = record_activations(net, (x,), layers)
    th.testing.assert_close(recorded[:, :5], net[:2](x).detach().flatten(2).mean(2))
    before = net[0].weight.detach().clone()
    renew_incoming(layers[0], th.tensor([1]), Initializer(), th.Generator().manual_seed(0))
    assert (net[0].weight != before).flatten(1).any(1).tolist() == [False, True, False, False, False]


def test_a_slope_of_each_neuron_is_an_incoming_parameter_and_renewed() -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.PReLU(5), nn.Linear(5, 4), nn.PReLU(), nn.Linear(4, 1))
    own, shared = find_neuron_layers([("net", net)])
    assert dict(own.incoming())["activation.weight"] is net[1].weight
    assert {name for name, _ in shared.incoming()} == {"linear.weight", "linear.bias"}
    nn.init.constant_(net[1].weight, 0.7)
    renew_incoming(own, th.tensor([1]), Initializer(), th.Generator())
    th.testing.assert_close(net[1].weight.detach(), th.tensor([0.7, 0.25, 0.7, 0.7, 0.7]))


class OwnNorm(nn.Module):
    def __init__(self, learned: bool) -> None:
        super().__init__()
        if learned:
            self.gain = nn.Parameter(th.ones(5))

    def forward(self, x: th.Tensor) -> th.Tensor:
        return x / x.norm(dim=1, keepdim=True)


class Gated(nn.Module):
    """A container with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(th.ones(5))
        self.linear = nn.Linear(3, 5)


def pruned() -> nn.Module:
    return prune.random_unstructured(nn.Linear(3, 5), "weight", amount=0.5)


class Leaky(nn.ReLU):
    """Computes something else than the activation function that it is derived from."""

    def forward(self, x: th.Tensor) -> th.Tensor:
        return x - x.mean(1, keepdim=True)


class Noisy(nn.Linear):
    def forward(self, x: th.Tensor) -> th.Tensor:
        return super().forward(x) + th.randn(())


class Standardized(nn.Conv2d):
    def _conv_forward(self, x: th.Tensor, weight: th.Tensor, bias: th.Tensor | None) -> th.Tensor:
        return super()._conv_forward(x, weight / weight.std(), bias)


class OverNeurons(nn.LayerNorm):
    def forward(self, x: th.Tensor) -> th.Tensor:
        return super().forward(x).flip(1)


class Rearranged(nn.Flatten):
    def forward(self, x: th.Tensor) -> th.Tensor:
        return super().forward(x.transpose(1, 2))


class Residual(nn.Sequential):
    def forward(self, x: th.Tensor) -> th.Tensor:
        return x + super().forward(x)


def replaced(module: nn.Module) -> nn.Module:
    """What a module computes, replaced for this one object."""
    module.forward = lambda x: x.flip(1)  # type: ignore[method-assign]
    return module


UNKNOWN: dict[str, tuple[list[nn.Module], str]] = {
    "activation derived": ([nn.Linear(3, 5), Leaky()], r"'net.1' \(Leaky\) is not known"),
    "layer derived": ([Noisy(3, 5), nn.ReLU()], r"'net.0' \(Noisy\) has parameters of its own"),
    "convolution derived": ([Standardized(3, 5, 3), nn.ReLU()], r"'net.0' \(Standardized\) has parameters of its own"),
    "norm derived": ([nn.Linear(3, 5), OverNeurons(5), nn.ReLU()], r"'net.1' \(OverNeurons\) has parameters of its own"),
    "flatten derived": ([nn.Conv1d(3, 5, 3), nn.ReLU(), Rearranged()], r"'net.2' \(Rearranged\) is not known"),
    "sequence derived": ([Residual(nn.Linear(5, 5), nn.ReLU())], r"'net.0' \(Residual\) has a forward\(\) of its own"),
    "activation replaced": ([nn.Linear(3, 5), replaced(nn.ReLU())], r"'net.1' \(ReLU\) is not known"),
    "sequence replaced": ([replaced(nn.Sequential(nn.Linear(5, 5)))], r"'net.0' \(Sequential\) has a forward\(\) of its own"),
    "own norm": ([nn.Linear(3, 5), OwnNorm(False), nn.ReLU()], r"'net.1' \(OwnNorm\) is not known"),
    "own norm behind": ([nn.Linear(3, 5), nn.ReLU(), OwnNorm(False)], r"'net.1' \(OwnNorm\)|'net.2' \(OwnNorm\) is not known"),
    "own learned norm": ([nn.Linear(3, 5), OwnNorm(True), nn.ReLU()], r"'net.1' \(OwnNorm\) has parameters of its own"),
    "own layer": ([OwnNorm(True), nn.ReLU()], r"'net.0' \(OwnNorm\) has parameters"),
    "gate": ([Gated(), nn.ReLU()], r"'net.0' \(Gated\) has parameters"),
    "softmax": ([nn.Linear(3, 5), nn.Softmax(1)], r"'net.1' \(Softmax\) is not known"),
    "glu": ([nn.Linear(3, 6), nn.GLU()], r"'net.1' \(GLU\) is not known"),
    "unflatten": ([nn.Linear(3, 6), nn.Unflatten(1, (2, 3)), nn.ReLU()], r"'net.1' \(Unflatten\) is not known"),
    "shuffle": ([nn.Conv2d(1, 4, 3), nn.ReLU(), nn.PixelShuffle(2)], r"'net.2' \(PixelShuffle\) is not known"),
    "pool of features": ([nn.Linear(3, 6), nn.MaxPool1d(2), nn.ReLU()], r"'net.1' \(MaxPool1d\) is not known"),
    "flatten ahead of the activation": ([nn.Conv2d(1, 4, 3), nn.Flatten(), nn.ReLU()], r"'net.1' \(Flatten\) must come after"),
    "transposed": ([nn.ConvTranspose2d(1, 4, 3), nn.ReLU()], r"'net.0' \(ConvTranspose2d\) has parameters"),
    "recurrent": ([nn.Linear(3, 6), nn.ReLU(), nn.GRU(6, 5)], r"'net.2' \(GRU\) has parameters"),
    "attention": ([nn.MultiheadAttention(4, 2)], r"'net.0' \(MultiheadAttention\) has parameters"),
    "old spectral norm": (
        [old_spectral_norm(nn.Linear(3, 5)), nn.ReLU()],
        r"'net.0' \(Linear\) computes its weight with a hook",
    ),
    "pruned": ([pruned(), nn.ReLU()], r"'net.0' \(Linear\) computes its weight with a hook"),
    "lazy": ([nn.LazyLinear(5), nn.ReLU()], r"'net.0' \(LazyLinear\) has no weight yet"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_an_error_that_names_it(name: str) -> None:
    modules, message = UNKNOWN[name]
    with pytest.raises(ValueError, match=message):
        layers_of(*modules)


@pytest.mark.parametrize("parametrize", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrized_layers_have_neurons(parametrize: Any) -> None:
    net = nn.Sequential(parametrize(nn.Linear(3, 5)), nn.ReLU(), nn.Linear(5, 2)).eval()
    (layer,) = find_neuron_layers([("net", net)])
    assert layer.n_neurons == 5
    owned = [parameter for _, parameter in layer.incoming()]
    assert {id(each) for each in owned} == {id(each) for each in net[0].parameters()}
    before = net[0].weight.detach().clone()
    with th.no_grad():
        for parameter in owned:
            parameter[2] += 1
    changed = (net[0].weight != before).any(1)
    assert module_kinds.mixes_rows(net[0]) == (parametrize is parametrizations.spectral_norm)
    assert changed.tolist() == [module_kinds.mixes_rows(net[0]) or j == 2 for j in range(5)]


def test_a_head_with_pruning_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"'an output layer'.* computes its weight with a hook"):
        find_neuron_layers([("net", nn.Sequential(nn.Linear(3, 5), nn.ReLU()))], [pruned()])


def test_what_comes_ahead_of_all_layers_or_is_frozen_may_be_anything() -> None:
    (layer,) = layers_of(OwnNorm(False), OwnNorm(True).requires_grad_(False), nn.BatchNorm1d(3), nn.Linear(3, 5), nn.ReLU())
    assert layer.name == "net.3"


def test_an_activation_of_one_s_own_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_kinds, "_ACTIVATIONS", list(module_kinds._ACTIVATIONS))

    @register_activation
    class Square(nn.Module):
        def forward(self, x: th.Tensor) -> th.Tensor:
            return x**2

    square = Square()
    (layer,) = layers_of(nn.Linear(3, 5), square)
    assert layer.activation is square
    with pytest.raises(ValueError, match="needs a class of modules"):
        register_activation(square)  # type: ignore[arg-type]


class ReLUByAnotherName(nn.ReLU):
    pass


class Square(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Tanh()

    def forward(self, x: th.Tensor) -> th.Tensor:
        return self.inner(x) ** 2


class SquareByAnotherName(Square):
    pass


def test_a_subclass_that_computes_the_same_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_kinds, "_ACTIVATIONS", [*module_kinds._ACTIVATIONS, Square])
    first, second, third = ReLUByAnotherName(), SquareByAnotherName(), Square()
    layers = layers_of(nn.Linear(3, 5), first, nn.Linear(5, 5), second, nn.Linear(5, 5), third)
    assert [layer.activation for layer in layers] == [first, second, third]


def test_an_activation_in_forward_is_not_seen_and_warned_about() -> None:
    with pytest.warns(UserWarning, match=r"'net.0' is followed by 'net.1' without an activation function that could be seen"):
        assert [layer.name for layer in layers_of(nn.Linear(3, 4), nn.Linear(4, 5), CReLU())] == ["net.1"]
    with pytest.warns(UserWarning, match="'net' is followed by 'the output layer' without"):
        assert find_neuron_layers([("net", nn.Linear(3, 4))], [nn.Linear(4, 1)]) == []
