"""Products in bfloat16 are as exact as 8 bits of mantissa allow, only the large ones of gradient steps are, and it is said why
where there are none."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_nbsp import NBSPSAC, P3O, SBPSAC, ContinualPPO, ContinualSAC
from sb3_nbsp.diagnostics import diagnostics
from sb3_nbsp.fast import matmul_precision, onednn
from sb3_nbsp.fast.matmul_precision import Bfloat16Layer, bfloat16_layers_of, layers_in, on_cuda
from sb3_nbsp.fast.perceptron import Layer, Perceptron, layers_of
from sb3_nbsp.interventions import Intervention

CPU = th.device("cpu")
# Rounding to p bits changes a number by a factor of at most 1 ± 2^-p. Those of bfloat16 are 8, of single precision 24
U, TINY = 2.0**-8, 2.0**-24


@pytest.fixture(autouse=True)
def instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch computes products of bfloat16 everywhere, only more slowly; those in single precision are to be its own."""
    monkeypatch.setattr(onednn, "_on_this_processor", lambda: False)
    monkeypatch.setattr(th.cpu, "get_capabilities", lambda: {"avx512_bf16": True})


def sequential(sizes: list[int], activation: type[nn.Module] = nn.ReLU, ends_linear: bool = True) -> nn.Sequential:
    th.manual_seed(0)
    modules = [module for before, after in pairwise(sizes) for module in (nn.Linear(before, after), activation())]
    return nn.Sequential(*modules[: len(modules) - ends_linear])


def product_error(left: th.Tensor, right: th.Tensor, rounded: int) -> th.Tensor:
    """
    Bound of the error of a product, entry by entry. Both factors are rounded, (1 + U)² - 1 of each term at most; the k terms
    are added up in single precision, k TINY more; and the result is rounded as often as told.
    """
    size, k = left.abs() @ right.abs(), left.shape[1]
    error = size * ((1 + U) ** 2 * (1 + 2 * k * TINY) - 1)
    for _ in range(rounded):
        error = error * (1 + U) + U * (left @ right).abs()
    return error


@pytest.mark.parametrize("takes", [False, True])
@pytest.mark.parametrize("gives", [False, True])
@pytest.mark.parametrize("sizes", [(64, 64), (300, 100)])
def test_the_errors_of_the_three_products(sizes: tuple[int, int], takes: bool, gives: bool) -> None:
    linear = sequential(list(sizes))[0]
    layer = Bfloat16Layer(Layer(linear), takes, gives)  # type: ignore[arg-type]
    layer.prepare()
    x, g = th.randn(128, sizes[0]), th.randn(128, sizes[1])
    with th.no_grad():
        w, b = linear.weight.double(), linear.bias.double()
        outputs = layer.forward(x)
        exact = x.double() @ w.T + b
        error = product_error(x.double(), w.T, 0) + U * b.abs()
        error = error * (1 + U) + U * exact.abs()
        assert outputs.dtype == (th.bfloat16 if gives else th.float32)
        assert ((outputs.double() - exact).abs() <= error).all()
        assert ((outputs.double() - exact).abs() > 64 * TINY * error).any(), "nothing was rounded"

        gradient = layer.before_activation(g, outputs)
        assert gradient.dtype == th.bfloat16
        layer.set_gradients(gradient, x)
        assert linear.weight.grad is not None and linear.bias.grad is not None
        assert linear.weight.grad.dtype == linear.bias.grad.dtype == th.float32
        exact = g.double().T @ x.double()
        assert ((linear.weight.grad.double() - exact).abs() <= product_error(g.double().T, x.double(), 1)).all()
        # The bias only sums rounded numbers, in single precision
        bound = g.double().abs().sum(0) * (U + 2 * 128 * TINY)
        assert ((linear.bias.grad.double() - g.double().sum(0)).abs() <= bound).all()

        for first in (0, 5):
            back = layer.input_gradient(gradient, first)
            assert back.dtype == (th.bfloat16 if takes else th.float32)
            exact = g.double() @ w[:, first:]
            assert ((back.double() - exact).abs() <= product_error(g.double(), w[:, first:], 1)).all()


def rounded(numbers: th.Tensor, error: th.Tensor) -> th.Tensor:
    """Bound of the error of numbers when they are rounded to bfloat16, too."""
    return error * (1 + U) + U * numbers.abs()


def multiplied(left: th.Tensor, left_error: th.Tensor, right: th.Tensor, right_error: th.Tensor) -> th.Tensor:
    """Bound of the error of a product of factors with errors, added up in single precision."""
    sizes = (left.abs() + left_error) @ (right.abs() + right_error)
    return sizes - left.abs() @ right.abs() + 2 * left.shape[1] * TINY * sizes


class Bounds:
    """Double precision with a bound for the error of every number, layer by layer, of a network with ReLU."""

    def __init__(self, net: nn.Sequential) -> None:
        linears = [each for each in net if isinstance(each, nn.Linear)]
        self.weights = [(each.weight.detach().double(), each.bias.detach().double()) for each in linears]
        self.large = [min(each.weight.shape) >= 64 for each in linears]

    def forward(self, inputs: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        x, error = inputs, th.zeros_like(inputs)
        self.inputs, self.before = [], []
        for i, ((w, b), large) in enumerate(zip(self.weights, self.large, strict=True)):
            factor = rounded(x, error) if large else error
            self.inputs.append((x, factor))
            weight_error, bias_error = ((U if large else 0) * each.abs() for each in (w, b))
            z, error = x @ w.T + b, multiplied(x, factor, w.T, weight_error.T) + bias_error + 2 * TINY * b.abs()
            error = rounded(z, error) if large else error
            self.before.append((z, error))
            x = z.relu() if i < len(self.weights) - 1 else z
        return x, error

    def backward(self, g: th.Tensor, error: th.Tensor) -> list[tuple[th.Tensor, th.Tensor]]:
        """Gradients of weight and bias, from the first layer to the last, then of the inputs."""
        results = []
        for i in reversed(range(len(self.weights))):
            (w, _), large = self.weights[i], self.large[i]
            if i < len(self.weights) - 1:
                z, uncertainty = self.before[i]
                # Where z may be on the other side of 0, all of the gradient may be wrong
                error = th.where(z.abs() <= uncertainty, error + g.abs(), error * (z > 0))
                g = g * (z > 0)
            error = rounded(g, error) if large else error
            x, input_error = self.inputs[i]
            weight_gradient, weight_error = g.T @ x, multiplied(g.T, error.T, x, input_error)
            results[:0] = [
                (weight_gradient, rounded(weight_gradient, weight_error) if large else weight_error),
                (g.sum(0), error.sum(0) + 2 * len(g) * TINY * (g.abs() + error).sum(0)),
            ]
            back, back_error = g @ w, multiplied(g, error, w, (U if large else 0) * w.abs())
            g, error = back, rounded(back, back_error) if large else back_error
        return [*results, (g, error)]


@pytest.mark.parametrize("sizes", [[10, 64, 64, 1], [80, 64, 32, 64, 64, 3], [80, 64]])
def test_all_gradients_are_within_the_bound(sizes: list[int]) -> None:
    net, inputs = sequential(sizes), th.randn(256, sizes[0])
    bounds, perceptron = Bounds(net), Perceptron(bfloat16_layers_of(net.children()))
    gradient = th.randn(256, sizes[-1])
    perceptron.prepare()
    with th.no_grad():
        signals = perceptron.forward(inputs)
        assert th.equal(perceptron.outputs(inputs), signals[-1])
        perceptron.backward(gradient, signals)
        found = [signals[-1], *(p.grad for p in net.parameters()), perceptron.input_gradient(gradient, signals, 0)]
        expected = [bounds.forward(inputs.double()), *bounds.backward(gradient.double(), th.zeros_like(gradient).double())]
    rounded_somewhere = False
    for tensor, (exact, bound) in zip(found, expected, strict=True):
        assert tensor is not None and tensor.dtype == th.float32 and exact.abs().max() > 0
        assert ((tensor.double() - exact).abs() <= bound).all()
        rounded_somewhere |= bool((tensor.double() - exact).norm() > 1e-4 * exact.norm())
    assert rounded_somewhere


def test_small_layers_and_double_precision_stay_as_they_are() -> None:
    kinds = [type(each) for each in bfloat16_layers_of(sequential([63, 64, 64, 63, 64]).children())]
    assert kinds == [Layer, Bfloat16Layer, Layer, Layer]
    assert all(type(each) is Layer for each in bfloat16_layers_of(sequential([64, 64, 64]).double().children()))
    assert layers_in("highest", CPU) is layers_of and layers_in("medium", CPU) is bfloat16_layers_of
    assert layers_in("medium", th.device("meta")) is layers_of


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_numbers_that_are_none_behave_as_in_single_precision(activation: type[nn.Module]) -> None:
    net, inputs = sequential([64, 64, 64, 2], activation), th.randn(5, 64)
    inputs[1, 3], inputs[2, 4], inputs[3, 5] = th.nan, th.inf, -th.inf
    results = []
    for make_layers in (layers_of, bfloat16_layers_of):
        perceptron = Perceptron(make_layers(net.children()))
        perceptron.prepare()
        with th.no_grad():
            signals = perceptron.forward(inputs)
            perceptron.backward(signals[-1], signals)
        results.append([signals[-1], *(p.grad.clone() for p in net.parameters())])  # type: ignore[union-attr]
    for plain, rounded in zip(*results, strict=True):
        assert th.equal(plain.isnan(), rounded.isnan()) and th.equal(plain.isinf(), rounded.isinf())
    assert results[0][0][0].isfinite().all() and results[0][0][1].isnan().all()


class Wide(gym.Env):
    """Noise, with more observations than a small layer has; half of the episodes succeed."""

    observation_space = spaces.Box(-np.inf, np.inf, (70,), np.float32)
    action_space = spaces.Box(-1, 1, (3,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._left = 10
        return self.np_random.standard_normal(70).astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._left -= 1
        observation = self.np_random.standard_normal(70).astype(np.float32)
        return observation, float(action @ observation[:3]), False, self._left == 0, {"success": float(observation[0] > 1)}


OFF_POLICY: dict[str, Any] = {"learning_starts": 20, "batch_size": 32, "buffer_size": 300}
ON_POLICY: dict[str, Any] = {"n_steps": 64, "batch_size": 32, "n_epochs": 2}
RESETS: dict[str, Any] = {"reset_frequency": 50, "reset_rate": 0.1, "max_distill_epochs": 3, "distill_threshold": 0.0}
AGENTS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "SAC": (ContinualSAC, OFF_POLICY),
    "NBSP": (NBSPSAC, OFF_POLICY),
    "SBP": (SBPSAC, {**OFF_POLICY, **RESETS}),
    "PPO": (ContinualPPO, ON_POLICY),
    "P3O": (P3O, {**ON_POLICY, **RESETS}),
}


def make(name: str, precision: str = "medium", **kwargs: Any) -> Any:
    cls, options = AGENTS[name]
    options = {"policy_kwargs": {"net_arch": [64, 64]}, **options, **kwargs}
    return cls("MlpPolicy", Wide(), seed=0, device="cpu", matmul_precision=precision, **options)


def flat(agent: Any) -> th.Tensor:
    return th.cat([parameter.detach().flatten() for parameter in agent.policy.parameters()])


@pytest.mark.parametrize("name", AGENTS)
def test_it_acts_on_every_agent_and_changes_little(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="The environment is no task sequence")
        plain, medium, again = (make(name, precision).learn(130) for precision in ("highest", "medium", "medium"))
    assert th.equal(flat(medium), flat(again)), "the same seed, another run"
    start = flat(make(name))
    difference, moved = (flat(medium) - flat(plain)).norm(), (flat(plain) - start).norm()
    assert 0 < difference < 0.5 * moved


def test_the_default_is_single_precision() -> None:
    options: dict[str, Any] = {"policy_kwargs": {"net_arch": [64, 64]}, **OFF_POLICY}
    default = ContinualSAC("MlpPolicy", Wide(), seed=0, device="cpu", **options).learn(40)
    assert th.equal(flat(default), flat(make("SAC", "highest").learn(40)))
    assert default.matmul_precision == "highest" and ContinualPPO("MlpPolicy", Wide()).matmul_precision == "highest"


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: Any) -> None:
        raise AssertionError("bfloat16")

    monkeypatch.setattr(Bfloat16Layer, "forward", forbid)


@pytest.mark.usefixtures("forbidden")
@pytest.mark.parametrize("name", ["SAC", "P3O"])
def test_what_is_reported_is_in_single_precision(name: str) -> None:
    found = []
    for precision in ("highest", "medium"):
        agent = make(name, precision)
        observations = np.random.default_rng(1).standard_normal((300, 70)).astype(np.float32)
        found.append((agent.predict(observations, deterministic=True)[0], diagnostics(agent, observations)))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    th.testing.assert_close(vars(found[0][1]), vars(found[1][1]), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["SAC", "PPO"])
def test_weights_are_rounded_once_for_an_optimizer_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make(name).learn(64)
    rounded: list[th.Tensor] = []
    prepare = Bfloat16Layer.prepare
    monkeypatch.setattr(Bfloat16Layer, "prepare", lambda layer: (rounded.append(layer.weight), prepare(layer)))
    if name == "SAC":
        agent.train(3, 32)
        nets = [agent.actor.latent_pi, *agent.critic_target.q_networks]
        # Critics step between their own loss and the actor's, and anybody may change them between two steps
        expected = {net[i].weight: 3 for net in nets for i in (0, 2)}
        expected |= {net[i].weight: 6 for net in agent.critic.q_networks for i in (0, 2)}
    else:
        agent.train()
        nets = [agent.policy.mlp_extractor.policy_net, agent.policy.mlp_extractor.value_net]
        expected = {net[i].weight: 2 * 64 // 32 for net in nets for i in (0, 2)}
    assert {weight: sum(each is weight for each in rounded) for weight in expected} == expected
    assert len(rounded) == sum(expected.values())


class Penalty(Intervention):
    def penalty(self, network: Any) -> th.Tensor | None:
        return None


WITHOUT_EFFECT: dict[str, tuple[str, Callable[..., Any], str]] = {
    "not fused": ("SAC", lambda: {"fused": False}, "by hand"),
    "a penalty": ("PPO", lambda: {"interventions": [Penalty()]}, "by hand"),
    "small": ("SAC", lambda: {"policy_kwargs": {"net_arch": [63]}}, "at least 64"),
    "other activation": ("P3O", lambda: {"policy_kwargs": {"activation_fn": nn.ELU}}, "by hand"),
}


@pytest.mark.parametrize("case", WITHOUT_EFFECT)
def test_it_is_said_once_where_it_has_no_effect(case: str) -> None:
    name, options, reason = WITHOUT_EFFECT[case]
    agent = make(name, **options())
    with pytest.warns(UserWarning, match=f"matmul_precision.*no effect.*{reason}") as caught:
        agent.learn(70)
    assert len([each for each in caught if "matmul_precision" in str(each.message)]) == 1


@pytest.mark.parametrize("name", ["SAC", "PPO"])
@pytest.mark.usefixtures("forbidden")
def test_a_processor_without_the_instructions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(th.cpu, "get_capabilities", lambda: {"avx512_f": True, "avx512_bf16": False})
    agent = make(name)
    with pytest.warns(UserWarning, match="no instructions"):
        agent.learn(70)
    assert th.equal(flat(agent), flat(make(name, "highest").learn(70)))


def test_set_later_and_loaded(tmp_path: Any) -> None:
    agent = make("SAC", "highest").learn(30)
    agent.matmul_precision = "medium"
    agent.save(tmp_path / "agent.zip")
    loaded = ContinualSAC.load(tmp_path / "agent.zip", Wide(), device="cpu")
    assert loaded.matmul_precision == "medium"
    assert type(loaded._make_gradients()._critics[0].layers[0]) is Bfloat16Layer  # type: ignore[attr-defined]
    again = ContinualSAC.load(tmp_path / "agent.zip", Wide(), device="cpu", matmul_precision="highest")
    assert type(again._make_gradients()._critics[0].layers[0]) is Layer  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="matmul_precision must be one of 'highest', 'medium'"):
        agent.matmul_precision = "low"
    assert agent.matmul_precision == "medium"


def test_pytorchs_own_setting_is_for_cuda_only_and_is_put_back() -> None:
    seen = []
    for device in ("cpu", "cuda"):
        with on_cuda("medium", th.device(device)):
            seen.append(th.get_float32_matmul_precision())
    with pytest.raises(RuntimeError, match="inside"), on_cuda("medium", th.device("cuda")):
        raise RuntimeError("inside")
    assert seen == ["highest", "medium"] and th.get_float32_matmul_precision() == "highest"
    assert matmul_precision.PRECISIONS == ("highest", "medium")
