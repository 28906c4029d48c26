"""oneDNN's products are those of single precision, and are taken where MKL is slow only."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import pytest
import torch as th
from stable_baselines3 import SAC
from torch import nn

from sb3_nbsp import NBSPSAC, P3O, ContinualDiscreteSAC, ContinualSAC
from sb3_nbsp.fast import onednn
from sb3_nbsp.fast.matmul_precision import layers_in
from sb3_nbsp.fast.onednn import OneDnnLayer, onednn_is_faster, onednn_layers_of
from sb3_nbsp.fast.perceptron import Layer, Perceptron, layers_of

CPU = th.device("cpu")
TINY = 2.0**-24  # of single precision

pytestmark = pytest.mark.skipif(not th.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")


@pytest.fixture(autouse=True)
def ask_again() -> Any:
    onednn._on_this_processor.cache_clear()
    yield
    onednn._on_this_processor.cache_clear()


def pretend(monkeypatch: pytest.MonkeyPatch, vendor: str, capability: str = "AVX512") -> None:
    monkeypatch.setattr(onednn, "_vendor", lambda: vendor)
    monkeypatch.setattr(th.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(th.backends.mkl, "is_available", lambda: True)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh(), None])
@pytest.mark.parametrize(("batch", "inputs", "outputs"), [(256, 64, 48), (7, 300, 100), (1, 16, 16), (33, 17, 90)])
def test_the_three_products(batch: int, inputs: int, outputs: int, activation: nn.Module | None) -> None:
    th.manual_seed(0)
    linear = nn.Linear(inputs, outputs)
    layer = OneDnnLayer(Layer(linear, activation))
    x, g = th.randn(batch, inputs), th.randn(batch, outputs)
    with th.no_grad():
        w, b = linear.weight.double(), linear.bias.double()
        error = (x.double().abs() @ w.T.abs() + b.abs()) * 2 * (inputs + 2) * TINY + 4 * TINY
        exact = x.double() @ w.T + b
        exact = exact if activation is None else activation(exact)
        found = layer.forward(x)
        assert found.dtype == th.float32 and ((found.double() - exact).abs() <= error).all()
        layer.set_gradients(g, x)
        assert linear.weight.grad is not None and linear.bias.grad is not None
        error = (g.double().T.abs() @ x.double().abs()) * 2 * batch * TINY + TINY
        assert ((linear.weight.grad.double() - g.double().T @ x.double()).abs() <= error).all()
        assert th.equal(linear.bias.grad, g.sum(0))
        for first in (0, 5):
            error = (g.double().abs() @ w.abs())[:, first:] * 2 * outputs * TINY + TINY
            found = layer.input_gradient(g, first)
            assert found.is_contiguous() and ((found.double() - (g.double() @ w)[:, first:]).abs() <= error).all()


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_nan_and_infinity_go_where_they_go_in_plain_layers(activation: type[nn.Module]) -> None:
    th.manual_seed(0)
    modules = [nn.Linear(20, 32), activation(), nn.Linear(32, 24), activation()]
    x = th.randn(6, 20)
    x[0, 3], x[1, 2], x[2, 1] = th.nan, th.inf, -th.inf
    with th.no_grad():
        plain, ours = (Perceptron(make(modules)).outputs(x) for make in (layers_of, onednn_layers_of))
    assert th.equal(plain.isnan(), ours.isnan()) and plain.isnan().any()
    th.testing.assert_close(ours, plain, equal_nan=True, rtol=1e-4, atol=1e-5)


def test_heads_and_double_precision_stay_as_they_are() -> None:
    wide, head = onednn_layers_of([nn.Linear(17, 64), nn.ReLU(), nn.Linear(64, 1)])
    assert type(wide) is OneDnnLayer and type(head) is Layer
    assert type(onednn_layers_of([nn.Linear(64, 64).double()])[0]) is Layer


@pytest.mark.parametrize(
    ("vendor", "capability", "expected"),
    [
        ("AuthenticAMD", "AVX512", True),
        ("GenuineIntel", "AVX512", False),
        ("AuthenticAMD", "AVX2", False),
        ("", "AVX512", False),
    ],
)
def test_where_it_is_taken(monkeypatch: pytest.MonkeyPatch, vendor: str, capability: str, expected: bool) -> None:
    pretend(monkeypatch, vendor, capability)
    assert onednn_is_faster(CPU) is expected and not onednn_is_faster(th.device("cuda"))
    assert (layers_in("highest", CPU) is onednn_layers_of) is expected


@pytest.mark.parametrize("problem", [AttributeError, RuntimeError, TypeError])
def test_another_pytorch_may_not_have_the_operation(monkeypatch: pytest.MonkeyPatch, problem: type[Exception]) -> None:
    pretend(monkeypatch, "AuthenticAMD")

    def fails(*_: Any) -> th.Tensor:
        raise problem("no such operation")

    monkeypatch.setattr(onednn, "_linear", fails)
    assert not onednn_is_faster(CPU)


def test_the_processor_is_asked() -> None:
    assert isinstance(onednn._vendor(), str) and onednn_is_faster(CPU) in (True, False)


@pytest.mark.parametrize("cls", [NBSPSAC, P3O, ContinualDiscreteSAC])
def test_agents_learn_the_same_up_to_rounding(cls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def learned(vendor: str) -> th.Tensor:
        onednn._on_this_processor.cache_clear()
        pretend(monkeypatch, vendor)
        made: list[bool] = []
        layer = OneDnnLayer.forward
        monkeypatch.setattr(OneDnnLayer, "forward", lambda self, inputs: made.append(True) or layer(self, inputs))
        options: dict[str, Any] = {"policy_kwargs": {"net_arch": [32, 32]}, "seed": 3, "device": "cpu"}
        options |= (
            {"n_steps": 32, "batch_size": 16, "n_epochs": 2} if cls is P3O else {"learning_starts": 30, "batch_size": 32}
        )
        env = gym.make("CartPole-v1" if cls is ContinualDiscreteSAC else "Pendulum-v1")
        agent = cls("MlpPolicy", env, **options).learn(64)
        monkeypatch.setattr(OneDnnLayer, "forward", layer)
        assert bool(made) is (vendor == "AuthenticAMD")
        return th.cat([parameter.detach().flatten() for parameter in agent.policy.parameters()])

    plain, first, second = learned("GenuineIntel"), learned("AuthenticAMD"), learned("AuthenticAMD")
    assert th.equal(first, second), "the same seed gives the same run"
    th.testing.assert_close(first, plain, rtol=1e-3, atol=1e-4)


def test_forward_passes_of_any_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    th.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(20, 32), nn.ReLU(), nn.LayerNorm(32), nn.Linear(32, 2), nn.Linear(2, 40, bias=False), nn.Tanh()
    )
    inputs, images = th.randn(50, 20), th.randn(3, 5, 20)
    taken: list[th.Tensor] = []
    linear = onednn._linear
    monkeypatch.setattr(onednn, "_linear", lambda *args: taken.append(args[1]) or linear(*args))
    with th.no_grad():
        expected, of_images = net(inputs), net(images)
        for vendor, layers in (("GenuineIntel", []), ("AuthenticAMD", [net[0].weight])):
            pretend(monkeypatch, vendor)
            onednn._on_this_processor.cache_clear()
            assert onednn_is_faster(CPU) is (vendor == "AuthenticAMD")
            taken.clear()
            with onednn.onednn_in(CPU):
                th.testing.assert_close(net(inputs), expected, rtol=1e-4, atol=1e-5)
                assert len(taken) == len(layers) and all(a is b for a, b in zip(taken, layers, strict=True))
                assert th.equal(net(images), of_images), "of more dimensions than two"
        taken.clear()
        assert th.equal(net(inputs), expected) and not taken


def test_sb3_bit_for_bit_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "AuthenticAMD")
    assert onednn_is_faster(CPU)
    options: dict[str, Any] = {"learning_starts": 20, "batch_size": 16, "policy_kwargs": {"net_arch": [16, 16]}, "seed": 1}
    ours = ContinualSAC("MlpPolicy", "Pendulum-v1", fused=False, device="cpu", **options).learn(30)
    plain = SAC("MlpPolicy", "Pendulum-v1", device="cpu", **options).learn(30)
    for own, expected in zip(ours.policy.parameters(), plain.policy.parameters(), strict=True):
        assert th.equal(own, expected)
