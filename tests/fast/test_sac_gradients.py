"""The gradients by hand are those of autograd, and the updates those of SB3's SAC; what they cannot do is left to autograd."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from stable_baselines3.sac.policies import Actor
from tagged_tasks import ImageTask, RecordingLogger, TaggedTask, parameters, random_states, tiny
from torch import nn

from sb3_nbsp import NBSPSAC, ContinualSAC
from sb3_nbsp.algorithms.autograd_sac import AutogradGradients
from sb3_nbsp.fast.sac_gradients import FlatInputs, MlpGradients
from sb3_nbsp.interventions import Intervention

BATCH = 32


class Wide(gym.Env):
    """Never stepped."""

    observation_space = spaces.Box(-np.inf, np.inf, (5,), np.float32)
    action_space = spaces.Box(-1, 1, (3,), np.float32)


def filled(cls: type, env: Any = None, **kwargs: Any) -> Any:
    """An agent with a replay buffer of random transitions."""
    agent = tiny(cls, Wide() if env is None else env, batch_size=BATCH, **kwargs)
    agent.set_logger(RecordingLogger())
    rng = np.random.default_rng(1)
    for name in ("observations", "next_observations", "actions", "rewards"):
        array = getattr(agent.replay_buffer, name)
        is_image = array.dtype == np.uint8
        array[:] = rng.integers(0, 256, array.shape) if is_image else rng.standard_normal(array.shape)
    agent.replay_buffer.actions[:] = np.tanh(agent.replay_buffer.actions)
    agent.replay_buffer.dones[:] = rng.random(agent.replay_buffer.dones.shape) < 0.1
    agent.replay_buffer.full = True
    return agent


def gradients_of(agent: Any) -> Any:
    return agent._make_gradients()


def grads(network: nn.Module) -> dict[str, th.Tensor]:
    found = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert None not in found.values()
    return {name: grad.clone() for name, grad in found.items() if grad is not None}


def assert_close(actual: dict[str, th.Tensor], expected: dict[str, th.Tensor], tolerance: float) -> None:
    """Within a relative tolerance, measured by each tensor's largest entry."""
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensor.abs().max() > 0, name
        assert (actual[name] - tensor).abs().max() <= tolerance * tensor.abs().max(), name


@th.no_grad()
def spread_log_std(agent: Any, observations: th.Tensor) -> th.Tensor:
    """Make the actor's log standard deviation vary by 4 about 1.5."""
    head, features = agent.actor.log_std, agent.actor.latent_pi(observations.to(agent.actor.log_std.weight.dtype))
    head.bias.zero_()
    head.weight.mul_(4 / head(features).abs().max())
    head.bias.fill_(1.5)
    return head(features)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("activation_fn", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("n_critics", [1, 2, 3])
@pytest.mark.parametrize("net_arch", [[], [7], [8, 6], [8, 7, 6], {"pi": [9], "qf": [6, 7]}])
@pytest.mark.parametrize("ent_coef", [th.full((1,), 0.7), th.linspace(0.1, 2, BATCH).reshape(-1, 1)], ids=["one", "each"])
def test_gradients_are_those_of_autograd(
    activation_fn: type[nn.Module], n_critics: int, net_arch: Any, ent_coef: th.Tensor
) -> None:
    policy_kwargs = {"net_arch": net_arch, "n_critics": n_critics, "activation_fn": activation_fn}
    agent = filled(ContinualSAC, policy_kwargs=policy_kwargs)
    data = agent.replay_buffer.sample(BATCH)
    log_std = spread_log_std(agent, data.observations)
    assert (log_std > 2).any() and (log_std < 2).any()  # clamped for some samples only
    results = []
    networks = agent.actor, agent.critic, agent.critic_target
    for gradients in (MlpGradients(*networks), AutogradGradients(*networks, agent.all_interventions)):
        th.manual_seed(3)
        log_prob = gradients.sample_actions(data)
        ent_coef_loss = gradients.ent_coef_loss(agent.log_ent_coef, log_prob, -2.5)
        next_values = gradients.next_values(data, ent_coef)
        critic_loss = gradients.critic_loss(data, next_values + data.rewards)
        of_critic = grads(agent.critic)
        actor_loss = gradients.actor_loss(data, ent_coef)
        named = {"log_prob": log_prob, "next": next_values, "critic": critic_loss, "actor": actor_loss}
        losses = {name: tensor.detach().clone() for name, tensor in named.items()}
        assert all(not tensor.requires_grad for name, tensor in named.items() if name != "log_prob")
        assert all(th.equal(tensor, of_critic[name]) for name, tensor in grads(agent.critic).items())
        ent_coef_grad = {"log_ent_coef": agent.log_ent_coef.grad.clone()}
        assert ent_coef_loss == pytest.approx((agent.log_ent_coef * ent_coef_grad["log_ent_coef"]).item(), abs=1e-12)
        assert ent_coef_grad["log_ent_coef"].item() == pytest.approx(agent._entropy(log_prob).item() - -2.5, abs=1e-12)
        results.append((losses, of_critic, grads(agent.actor), ent_coef_grad, th.get_rng_state()))
    for ours, theirs in zip(*(result[:4] for result in results), strict=True):
        assert_close(ours, theirs, 1e-10)
    assert th.equal(results[0][4], results[1][4])


@pytest.mark.usefixtures("double_precision")
def test_no_gradient_passes_the_lower_end_of_the_standard_deviation() -> None:
    agent = filled(ContinualSAC)
    with th.no_grad():
        agent.actor.log_std.bias.copy_(th.tensor([-25.0, -5.0, 2.5]))
        agent.actor.log_std.weight.mul_(0.01)
    data, gradients = agent.replay_buffer.sample(BATCH), gradients_of(agent)
    gradients.sample_actions(data)
    gradients.actor_loss(data, th.ones(1))
    assert (agent.actor.log_std.bias.grad != 0).tolist() == [False, True, False]


CASES: dict[str, dict[str, Any]] = {
    "auto": {},
    "fixed": {"ent_coef": 0.2},
    "target_update_interval": {"target_update_interval": 2},
    "one critic": {"policy_kwargs": {"net_arch": [8, 8], "n_critics": 1}},
    "three critics, tanh": {"policy_kwargs": {"net_arch": [8, 4], "n_critics": 3, "activation_fn": nn.Tanh}},
    "shared features extractor": {"policy_kwargs": {"net_arch": [8], "share_features_extractor": True}},
    "SGD": {"policy_kwargs": {"net_arch": [8, 8], "optimizer_class": th.optim.SGD}},
    "RMSprop": {"policy_kwargs": {"net_arch": [8, 8], "optimizer_class": th.optim.RMSprop}},
    "n_steps": {"n_steps": 3},
}
CNN: dict[str, Any] = {"policy": "CnnPolicy", "buffer_size": 60}
SMALL_CNN: dict[str, Any] = {"net_arch": [8], "features_extractor_kwargs": {"features_dim": 16}}
# What the gradients by hand do not know
AUTOGRAD_CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "gSDE": (Wide, {"use_sde": True}),
    "gSDE, fixed": (Wide, {"use_sde": True, "ent_coef": 0.2, "target_update_interval": 2}),
    "gSDE, n_steps": (Wide, {"use_sde": True, "n_steps": 3}),
    "images": (ImageTask, {**CNN, "policy_kwargs": SMALL_CNN}),
    "images, fixed": (ImageTask, {**CNN, "policy_kwargs": SMALL_CNN, "ent_coef": 0.2, "target_update_interval": 2}),
    "images, one critic, n_steps": (ImageTask, {**CNN, "policy_kwargs": {**SMALL_CNN, "n_critics": 1}, "n_steps": 3}),
    "images, shared extractor": (ImageTask, {**CNN, "policy_kwargs": {**SMALL_CNN, "share_features_extractor": True}}),
}


def assert_same_updates(cls: type, env: Callable[[], Any], tolerance: float, by_hand: bool = True, **kwargs: Any) -> None:
    theirs, ours = filled(SAC, env(), **copy.deepcopy(kwargs)), filled(cls, env(), **copy.deepcopy(kwargs))
    start = parameters(theirs)
    assert ours._is_by_hand() == by_hand
    states = []
    for agent in (theirs, ours):
        th.manual_seed(5)
        np.random.seed(5)
        agent.train(4, BATCH)
        agent.train(6, BATCH)
        states.append(random_states())
    assert states[0] == states[1]
    expected, actual = parameters(theirs), parameters(ours)
    for name, tensor in expected.items():
        assert (tensor - actual[name]).abs().max() < tolerance, name
    moved = [(tensor - start[name]).abs().max().item() for name, tensor in expected.items()]
    assert np.median(moved) > 1e3 * tolerance
    assert len(ours.logger.values("train/entropy")) == 2
    for key in ("ent_coef", "actor_loss", "critic_loss", "ent_coef_loss"):
        values = theirs.logger.values(f"train/{key}")
        assert len(values) == (0 if key == "ent_coef_loss" and "ent_coef" in kwargs else 2)
        np.testing.assert_allclose(ours.logger.values(f"train/{key}"), values, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("cls", [ContinualSAC, NBSPSAC])
@pytest.mark.parametrize("name", CASES)
def test_ten_updates_are_those_of_sb3(name: str, cls: type) -> None:
    own: dict[str, Any] = {"replay": False} if cls is NBSPSAC and name == "n_steps" else {}
    agent = (lambda *args, **kwargs: NBSPSAC(*args, **kwargs, **own)) if own else cls
    assert_same_updates(agent, Wide, 1e-8, **CASES[name])  # type: ignore[arg-type]


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", AUTOGRAD_CASES)
def test_ten_updates_with_autograd_are_those_of_sb3(name: str) -> None:
    env, options = AUTOGRAD_CASES[name]
    assert_same_updates(ContinualSAC, env, 1e-8, by_hand=False, **options)


def normalized() -> VecNormalize:
    env = VecNormalize(DummyVecEnv([Wide]))
    env.obs_rms.mean, env.obs_rms.var = np.arange(5.0), np.full(5, 4.0)  # type: ignore[union-attr]
    return env


class Matrix(Wide):
    observation_space = spaces.Box(-1, 1, (5, 2), np.float32)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("env", [Matrix, ImageTask])
def test_ten_updates_on_arrays_that_are_flattened(env: Callable[[], Any]) -> None:
    assert_same_updates(ContinualSAC, env, 1e-8, buffer_size=60)


@pytest.mark.parametrize("normalize_images", [True, False])
def test_inputs_are_what_the_features_extractor_returns(normalize_images: bool) -> None:
    agent = filled(ContinualSAC, ImageTask(), buffer_size=60, policy_kwargs={"normalize_images": normalize_images})
    images, actor = agent.replay_buffer.sample(4).observations, agent.actor
    inputs = FlatInputs(actor)(images)
    assert inputs.max() > 1 or normalize_images
    assert th.equal(inputs, actor.extract_features(images, actor.features_extractor))


@pytest.mark.usefixtures("double_precision")
def test_ten_updates_on_normalized_observations() -> None:
    assert_same_updates(ContinualSAC, normalized, 1e-8)


def test_ten_updates_in_single_precision() -> None:
    assert_same_updates(ContinualSAC, Wide, 2e-5)


class Harmless(Intervention):
    def before_step(self, network: Any) -> None:
        pass


class Penalty(Intervention):
    def penalty(self, network: Any) -> th.Tensor | None:
        return None


class OwnActor(Actor):
    pass


def arch(**kwargs: Any) -> dict[str, Any]:
    return {"policy_kwargs": {"net_arch": [8, 8], **kwargs}}


def with_layer_norm(agent: Any) -> None:
    net = agent.critic.q_networks[1]
    agent.critic.qf1 = agent.critic.q_networks[1] = nn.Sequential(net[0], nn.LayerNorm(8), *net[1:])


def share_a_layer(agent: Any) -> None:
    agent.critic.qf1[2] = agent.critic.qf0[2]


def own_actor(agent: Any) -> None:
    agent.actor.__class__ = OwnActor


def own_forward(agent: Any) -> None:
    agent.critic.forward = agent.critic.forward


def weight_norm(agent: Any) -> None:
    nn.utils.parametrizations.weight_norm(agent.actor.mu)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "layer norm": with_layer_norm,
    "shared layer": share_a_layer,
    "dropout": lambda agent: agent.actor.latent_pi.append(nn.Dropout()),
    "frozen": lambda agent: agent.actor.latent_pi[0].requires_grad_(False),
    "forward hook": lambda agent: agent.critic.qf0[1].register_forward_hook(lambda *_: None),
    "hook of a target": lambda agent: agent.critic_target.qf0.register_forward_pre_hook(lambda *_: None),
    "backward hook": lambda agent: agent.actor.register_full_backward_hook(lambda *_: None),
    "hook of a parameter": lambda agent: agent.actor.mu.weight.register_hook(lambda grad: 2 * grad),
    "hook of a gradient": lambda agent: agent.critic.qf0[0].bias.register_post_accumulate_grad_hook(lambda _: None),
    "own actor": own_actor,
    "own forward": own_forward,
    "own penalty": lambda agent: setattr(agent.all_interventions._all[0], "penalty", lambda network: None),
    "mixed precision": lambda agent: agent.critic.double(),
    "half precision": lambda agent: agent.policy.bfloat16(),
    "weight norm": weight_norm,
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_networks_are_left_to_autograd(name: str) -> None:
    agent = filled(ContinualSAC, interventions=[Harmless()])
    assert isinstance(gradients_of(agent), MlpGradients)
    CHANGES[name](agent)
    assert isinstance(gradients_of(agent), AutogradGradients)


def test_global_hooks_are_left_to_autograd() -> None:
    agent = filled(ContinualSAC)
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert isinstance(gradients_of(agent), AutogradGradients)
    finally:
        handle.remove()
    assert isinstance(gradients_of(agent), MlpGradients)


class Numbered(Wide):
    observation_space = spaces.Discrete(5)  # type: ignore[assignment]


class OwnExtractor(FlattenExtractor):
    pass


OPTIONS: dict[str, tuple[type[gym.Env] | Callable[[], gym.Env], dict[str, Any], type]] = {
    "default": (Wide, {}, MlpGradients),
    "NBSP": (Wide, {"cls": NBSPSAC}, MlpGradients),
    "tanh": (Wide, arch(activation_fn=nn.Tanh), MlpGradients),
    "not fused": (Wide, {"fused": False}, AutogradGradients),
    "gSDE": (Wide, {"use_sde": True}, AutogradGradients),
    "images": (
        ImageTask,
        {"policy": "CnnPolicy", "policy_kwargs": {"features_extractor_kwargs": {"features_dim": 4}}, "buffer_size": 50},
        AutogradGradients,
    ),
    "penalty": (Wide, {"interventions": [Harmless(), Penalty()]}, AutogradGradients),
    "GELU": (Wide, arch(activation_fn=nn.GELU), AutogradGradients),
    "matrices": (Matrix, {}, MlpGradients),
    "numbers": (Numbered, {}, AutogradGradients),
    "own extractor": (Wide, arch(features_extractor_class=OwnExtractor), AutogradGradients),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_way_follows_the_options(name: str) -> None:
    env, kwargs, expected = OPTIONS[name]
    agent = tiny(**{"cls": ContinualSAC, **kwargs}, env=env())
    assert type(gradients_of(agent)) is expected
    agent.set_logger(RecordingLogger())
    agent.replay_buffer.full = True
    agent.train(1, 4)
    assert np.isfinite(agent.logger.values("train/actor_loss")).all()


def test_an_agent_that_learns_takes_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    actor_loss = MlpGradients.actor_loss

    def counted(self: MlpGradients, *args: Any) -> th.Tensor:
        calls.append(1)
        return actor_loss(self, *args)

    monkeypatch.setattr(MlpGradients, "actor_loss", counted)
    tiny(ContinualSAC, TaggedTask(1.0)).learn(40)
    assert len(calls) == 20
