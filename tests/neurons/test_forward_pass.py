"""Modules with a forward() of their own: layers are those that a forward pass goes through; what is no chain is an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_nbsp.neurons import CReLU, NeuronLayer, find_neuron_layers
from sb3_nbsp.neurons.forward_pass import Run


class Own(nn.Module):
    """
    :param forward: gets the modules by name and the inputs
    :param modules: in the order of their definition
    """

    def __init__(self, forward: Callable[[Any, th.Tensor], th.Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: th.Tensor) -> th.Tensor:
        return self._forward(self, x)


def on(*shape: int, net: nn.Module) -> Run:
    x = th.rand(8, *shape)
    return lambda: net(x)


def found(net: nn.Module, *shape: int) -> list[NeuronLayer]:
    return find_neuron_layers([("net", net)], run=on(*shape, net=net.eval()))


def linears(*names: str, width: int = 6) -> dict[str, nn.Module]:
    return {name: nn.Linear(width, width) for name in names}


def activations(*names: str) -> dict[str, nn.Module]:
    return {name: nn.Tanh() for name in names}


CHAINS: dict[str, tuple[Own, tuple[int, ...]]] = {
    "one after another": (
        Own(
            lambda m, x: m.c(m.g(m.b(m.f(m.a(x))))),
            **linears("a"),
            **activations("f"),
            **linears("b"),
            g=nn.ReLU(),
            **linears("c"),
        ),
        (6,),
    ),
    "defined in another order": (
        Own(lambda m, x: m.c(m.g(m.b(m.f(m.a(x))))), **linears("c", "b", "a"), **activations("g", "f")),
        (6,),
    ),
    "in a list": (
        Own(
            lambda m, x: m.c(m.net[3](m.net[2](m.net[1](m.net[0](x))))),
            net=nn.ModuleList([nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh()]),
            **linears("c"),
        ),
        (6,),
    ),
    "called for its parts": (
        Own(
            lambda m, x: m.c(m.tail.forward(m.head.forward(x))),
            head=nn.Sequential(nn.Linear(6, 6), nn.Tanh()),
            tail=nn.Sequential(nn.Linear(6, 6), nn.Tanh()),
            **linears("c"),
        ),
        (6,),
    ),
    "norm and activation that write in place": (
        Own(
            lambda m, x: m.c(m.g(m.b(m.f(m.n(m.a(x)))))),
            **linears("a"),
            n=nn.LayerNorm(6),
            f=nn.ReLU(inplace=True),
            **linears("b"),
            g=nn.ELU(inplace=True),
            **linears("c"),
        ),
        (6,),
    ),
    "functions that leave each neuron where it is": (
        Own(
            lambda m, x: m.c(F.dropout(m.g(2 * m.b(m.f(m.a(x / 3)).clamp(-0.1, 0.1))), 0.1, False)),
            **linears("a", "b", "c"),
            **activations("f", "g"),
        ),
        (6,),
    ),
    "pooling and flattening by functions": (
        Own(
            lambda m, x: m.c(m.g(m.b(F.max_pool2d(m.f(F.avg_pool2d(m.a(x), 2)), 2).flatten(1)))),
            a=nn.Conv2d(2, 5, 3),
            f=nn.ReLU(),
            b=nn.Linear(5 * 2 * 2, 6),
            g=nn.ReLU(),
            c=nn.Linear(6, 6),
        ),
        (2, 10, 10),
    ),
    "mean over the positions": (
        Own(
            lambda m, x: m.c(m.g(m.b(m.f(m.a(x)).mean((2, 3))))),
            a=nn.Conv2d(2, 6, 3),
            f=nn.ReLU(),
            **linears("b", "c"),
            **activations("g"),
        ),
        (2, 5, 5),
    ),
    "halves of CReLU": (
        Own(
            lambda m, x: m.c(m.g(m.b(F.relu(m.f(m.a(x)))))),
            **linears("a"),
            f=CReLU(),
            b=nn.Linear(12, 6),
            **linears("c"),
            **activations("g"),
        ),
        (6,),
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains(name: str) -> None:
    net, shape = CHAINS[name]
    first, second = found(net, *shape)
    weights = {"a": first.linear, "b": second.linear}
    if "list" not in name and "parts" not in name:
        assert weights == {"a": net.a, "b": net.b}
        assert (first.activation, second.activation) == (net.f, net.g)
    assert (first.consumers, second.consumers) == ([second.linear], [net.c])
    for layer in (first, second):
        ((_, columns),) = layer.outgoing()
        assert sorted(columns.flatten().tolist()) == list(range(layer.consumers[0].weight.shape[1]))


def test_what_is_no_chain_without_a_pass_to_watch_is_an_error() -> None:
    net, _ = CHAINS["one after another"]
    with pytest.raises(ValueError, match=r"'net' \(Own\) has a forward\(\) of its own"):
        find_neuron_layers([("net", net)])


class Residual(nn.Sequential):
    def forward(self, x: th.Tensor) -> th.Tensor:
        return x + super().forward(x)


def before_and_after(middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), middle, nn.Linear(6, 6))


def dense(m: Any, x: th.Tensor) -> th.Tensor:
    first = m.f(m.a(x))
    return m.c(th.cat([m.g(m.b(first)), first], 1))


NO_CHAINS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "residual": (before_and_after(Residual(nn.Linear(6, 6), nn.Tanh())), (6,)),
    "residual, linear last": (before_and_after(Residual(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))), (6,)),
    "residual, activation ahead": (before_and_after(Residual(nn.Tanh(), nn.Linear(6, 6))), (6,)),
    "residual, then the activation": (
        Own(lambda m, x: m.c(m.g(m.b(m.f(m.a(x))) + x)), **linears("a", "b", "c"), **activations("f", "g")),
        (6,),
    ),
    "dense": (
        Own(dense, **linears("a", "b"), c=nn.Linear(12, 2), **activations("f", "g")),
        (6,),
    ),
    "parallel": (
        Own(lambda m, x: m.c(m.f(m.a(x)) * m.g(m.b(x))), **linears("a", "b", "c"), **activations("f", "g")),
        (6,),
    ),
    "softmax": (Own(lambda m, x: m.c(F.softmax(m.f(m.a(x)), 1)), **linears("a", "c"), **activations("f")), (6,)),
    "softmax over the positions, then flattened": (
        Own(
            lambda m, x: m.c(m.f(m.a(x)).transpose(1, 2).flatten(1)),
            a=nn.Conv1d(2, 6, 3),
            **activations("f"),
            c=nn.Linear(18, 2),
        ),
        (2, 5),
    ),
    "another order": (Own(lambda m, x: m.c(m.f(m.a(x)).flip(1)), **linears("a", "c"), **activations("f")), (6,)),
    "group of neurons": (
        Own(lambda m, x: m.c(m.f(m.a(x))[:, :3]), **linears("a"), c=nn.Linear(3, 1), **activations("f")),
        (6,),
    ),
    "pairs of neurons": (
        Own(lambda m, x: m.c(m.f(m.a(x).view(-1, 3, 2).amax(2))), **linears("a"), **activations("f"), c=nn.Linear(3, 1)),
        (6,),
    ),
    "written into": (Own(lambda m, x: m.c(m.f(m.a(x)).add_(x)), **linears("a", "c"), **activations("f")), (6,)),
    "normalized ahead of the activation": (
        Own(lambda m, x: m.c(m.f(F.layer_norm(m.a(x), [6]))), **linears("a", "c"), **activations("f")),
        (6,),
    ),
}


NEURON_UNKNOWN = ("residual, then the activation", "pairs of neurons", "normalized ahead of the activation")


@pytest.mark.parametrize("name", NO_CHAINS)
def test_what_is_no_chain_is_an_error_that_names_the_modules(name: str) -> None:
    """When neurons are searched for, if it concerns what they do; when their outgoing weights are asked for otherwise."""
    net, shape = NO_CHAINS[name]
    message = r"'net\..*' does not read what 'net\..*' returns and nothing else"
    if name in NEURON_UNKNOWN:
        with pytest.raises(ValueError, match=f"what the neurons of 'net..*' do: {message}"):
            found(net, *shape)
        return
    for layer in found(net, *shape):
        with pytest.raises(ValueError, match=f"which weights read the neurons of {layer.name!r}: {message}"):
            list(layer.outgoing())


def test_layers_past_a_residual_connection_are_known() -> None:
    """And incoming weights everywhere."""
    net = nn.Sequential(Residual(nn.Linear(6, 6), nn.Tanh()), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    first, second = found(net, 6)
    assert [first.linear, second.linear] == [net[0][0], net[1]]
    with pytest.raises(ValueError, match=r"'net.1' does not read what 'net.0.1' returns"):
        list(first.outgoing())
    assert [consumer for consumer, _ in second.outgoing()] == [net[3]]


def test_heads_that_read_something_else() -> None:
    body, head = nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Linear(6, 2)
    x = th.rand(8, 6)
    (layer,) = find_neuron_layers([("net", body)], [head], lambda: head(body(x)))
    assert layer.consumers == [head]
    (layer,) = find_neuron_layers([("net", body)], [head], lambda: head(body(x) + x))
    with pytest.raises(ValueError, match=r"'the output layer' does not read what 'net.1' returns"):
        list(layer.outgoing())


def test_inputs_beside_the_neurons_are_counted() -> None:
    front, head, x, action = nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Linear(8, 1), th.rand(8, 6), th.zeros(8, 2)
    (layer,) = find_neuron_layers([("front", front), ("head", head)], run=lambda: head(th.cat([front(x), action], 1)))
    ((_, columns),) = layer.outgoing()
    assert columns.flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_an_activation_in_forward_is_warned_about() -> None:
    net = Own(lambda m, x: m.c(m.g(m.b(F.relu(m.a(x))))), **linears("a", "b", "c"), **activations("g"))
    with pytest.warns(UserWarning, match=r"'net.a' is followed by 'net.b' without an activation function that could be seen"):
        assert [layer.name for layer in found(net, 6)] == ["net.b"]
    assert len(list(found(net, 6)[0].outgoing())) == 1


def test_a_layer_that_is_not_called_is_warned_about() -> None:
    net = Own(lambda m, x: m.c(m.f(m.a(x))), **linears("a", "unused", "c"), **activations("f"))
    with pytest.warns(UserWarning, match="'net.unused': not called in a forward pass"):
        (layer,) = found(net, 6)
    assert (layer.linear, layer.consumers) == (net.a, [net.c])


def test_one_activation_module_for_several_layers_is_an_error() -> None:
    net = Own(lambda m, x: m.c(m.f(m.b(m.f(m.a(x))))), **linears("a", "b", "c"), **activations("f"))
    with pytest.raises(ValueError, match="one activation module for several layers"):
        found(net, 6)


def test_neurons_that_never_act_are_told_apart_too() -> None:
    """Their outputs alone do not tell what becomes of them."""
    net = Own(lambda m, x: m.c(m.f(m.a(x)).flip(1)), **linears("a", "c"), f=nn.ReLU())
    nn.init.constant_(net.a.bias, -9.0)
    assert not net.f(net.a(th.rand(8, 6))).any()
    with pytest.raises(ValueError, match="does not read what"):
        list(found(net, 6)[0].outgoing())


def test_what_passes_an_activation_in_forward_by_is_noticed() -> None:
    def forward(m: Any, x: th.Tensor) -> th.Tensor:
        x = m.f(m.a(x))
        return m.d(F.relu(m.b(x)) + x if m.skips else F.relu(m.b(x)))

    net = Own(forward, **linears("a", "b", "d"), **activations("f"))
    for net.skips in (False, True):  # type: ignore[assignment]
        with pytest.warns(UserWarning, match="'net.b' is followed by 'net.d' without an activation function"):
            (layer,) = found(net, 6)
        assert bool(layer.unknown_readers) == net.skips


# Parallel parts, put side by side


class SideBySide(nn.Module):
    """As SB3's ``CombinedExtractor``: each part reads numbers of its own, and the head all of them."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.head = nn.Sequential(nn.LazyLinear(3), nn.ReLU(), nn.Linear(3, 2))

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return self.head(th.cat([part(inputs) for part in self.parts], dim=1))


def convolution(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, channels, 3), nn.ReLU(), nn.Flatten())


def layers_side_by_side(*parts: nn.Module) -> tuple[SideBySide, dict[str, NeuronLayer]]:
    network, inputs = SideBySide(*parts), th.randn(8, 4, generator=th.Generator().manual_seed(0))
    network(inputs)
    return network, {layer.name: layer for layer in find_neuron_layers([("net", network)], run=lambda: network(inputs))}


@pytest.mark.parametrize("n_others", [0, 1, 2])
def test_parallel_parts_are_read_side_by_side(n_others: int) -> None:
    """Flat parts before, between and after those with neurons shift the columns of their weights only."""
    flat = [nn.Flatten()] * n_others
    hidden = nn.Sequential(nn.Linear(4, 5), nn.Tanh())
    network, layers = layers_side_by_side(*flat, hidden, *flat, convolution(2), *flat)
    names = [f"net.parts.{n_others}.0", f"net.parts.{2 * n_others + 1}.1", "net.head.0"]
    assert list(layers) == names
    n_flat, reader = 4 * n_others, network.head[0]
    ((consumer, columns),) = layers[names[0]].outgoing()
    assert consumer is reader and columns.flatten().tolist() == list(range(n_flat, n_flat + 5))
    first = 2 * n_flat + 5
    ((consumer, columns),) = layers[names[1]].outgoing()
    assert consumer is reader and columns.squeeze(1).tolist() == [[first, first + 1], [first + 2, first + 3]]
    assert reader.weight.shape[1] == 3 * n_flat + 9
    ((consumer, _),) = layers["net.head.0"].outgoing()
    assert consumer is network.head[2]


def test_a_part_without_neurons_of_its_own() -> None:
    with pytest.warns(UserWarning, match=r"'net.parts.0' is followed by 'net.parts.1.0' without an activation"):
        _, layers = layers_side_by_side(nn.Linear(4, 6), nn.Sequential(nn.Linear(4, 5), nn.Tanh()))
    ((_, columns),) = layers["net.parts.1.0"].outgoing()
    assert columns.flatten().tolist() == list(range(6, 11))


class Mixed(SideBySide):
    """The head reads a sum of two parts."""

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return self.head(sum(part(inputs) for part in self.parts))


def test_channels_side_by_side_have_no_known_reader() -> None:
    """Columns of a convolution's weight are channels, of several inputs each."""
    parts = [nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 3), nn.ReLU()) for _ in range(2)]
    network, inputs = SideBySide(*parts), th.randn(8, 4)
    network.head = nn.Sequential(nn.Conv1d(4, 3, 2), nn.ReLU())
    layers = find_neuron_layers([("net", network)], run=lambda: network(inputs))
    for layer in layers[:2]:
        with pytest.raises(ValueError, match="residual or parallel connection"):
            list(layer.outgoing())


def test_parts_that_are_mixed_have_no_known_reader() -> None:
    network, inputs = Mixed(*(nn.Sequential(nn.Linear(4, 5), nn.Tanh()) for _ in range(2))), th.randn(8, 4)
    network(inputs)
    layers = find_neuron_layers([("net", network)], run=lambda: network(inputs))
    assert len(layers) == 3
    for layer in layers[:2]:
        with pytest.raises(ValueError, match="residual or parallel connection"):
            list(layer.outgoing())
    assert len(list(layers[2].outgoing())) == 1
