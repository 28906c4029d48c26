"""diagnostics(): on agents of ours and of plain SB3."""

from __future__ import annotations

import copy
import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO, SAC
from torch import nn

from sb3_nbsp import P3O, SBPSAC, diagnostics
from sb3_nbsp.diagnostics.measure import MEASURES, spread
from sb3_nbsp.interventions.networks import actor_of
from sb3_nbsp.neurons.crelu import CReLU


class Still(gym.Env):
    """Nothing happens; the spaces are what matters."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


VECTOR = spaces.Box(-1, 1, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (1, 36, 36), np.uint8)
CONTINUOUS = spaces.Box(-1, 1, (2,), np.float32)
STATES = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
IMAGES = np.random.default_rng(0).integers(0, 256, size=(6, 1, 36, 36), dtype=np.uint8)


def ppo(
    algo: type[PPO] = PPO, action: spaces.Space = CONTINUOUS, observation: spaces.Space = VECTOR, seed: int = 1, **options: Any
) -> PPO:
    policy = "CnnPolicy" if len(observation.shape or ()) == 3 else "MlpPolicy"
    options.setdefault("policy_kwargs", {"net_arch": [8, 6]})
    return algo(policy, Still(observation, action), n_steps=16, batch_size=16, seed=seed, device="cpu", **options)


def sac(algo: type[SAC] = SAC, **options: Any) -> SAC:
    options.setdefault("policy_kwargs", {"net_arch": [8, 6]})
    return algo("MlpPolicy", Still(VECTOR, CONTINUOUS), seed=1, device="cpu", **options)


@pytest.mark.parametrize("algo", [PPO, P3O])
@pytest.mark.parametrize(
    "action", [CONTINUOUS, spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3)], ids=str
)
def test_ppo(algo, action):
    found = diagnostics(ppo(algo, action), STATES)
    assert found.n_neurons == 14 and found.n_states == 50
    assert set(found.scalars()) == set(MEASURES)
    assert all(np.isfinite(value) for value in found.scalars().values())
    assert found.gradient_norm > 0
    assert found.gradient_covariance.shape == (50, 50)
    assert th.allclose(found.gradient_covariance.diagonal(), th.ones(50))
    assert th.equal(found.gradient_covariance, found.gradient_covariance.T)
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    assert len(found.to_dict()["gradient_covariance"]) == 50


@pytest.mark.parametrize("algo, options", [(SAC, {}), (SBPSAC, {}), (SAC, {"use_sde": True})])
def test_sac(algo, options):
    found = diagnostics(sac(algo, **options), STATES)
    assert found.n_neurons == 14
    assert all(np.isfinite(value) for value in found.scalars().values())


def test_ppo_with_gsde():
    assert diagnostics(ppo(use_sde=True), STATES).gradient_norm > 0


def test_a_loaded_model_of_plain_sb3(tmp_path):
    for model, kind in ((ppo(), PPO), (sac(), SAC)):
        model.save(tmp_path / "model")
        assert diagnostics(kind.load(tmp_path / "model"), STATES).scalars() == diagnostics(model, STATES).scalars()


def test_numbers_worked_out_by_hand():
    model = ppo(policy_kwargs={"net_arch": [4], "activation_fn": nn.ReLU})
    hidden, head = model.policy.mlp_extractor.policy_net[0], model.policy.action_net
    with th.no_grad():
        hidden.weight.zero_()
        hidden.weight[:, 0] = th.tensor([1.0, -1.0, 2.0, 0.0])
        hidden.bias.copy_(th.tensor([0.0, 0.0, 0.0, -1.0]))
        head.weight.zero_()
    # h = (1, 0, 2, 0) and (0, 1, 0, 0)
    found = diagnostics(model, np.array([[1.0, 5.0, 5.0], [-1.0, 5.0, 5.0]]))
    assert found.dormant_ratio == 0.25
    assert found.weight_norm == pytest.approx(1.0)
    assert found.activation_norm == pytest.approx((1 + 1 + 2) / 8)
    # Singular values √5 and 1
    assert found.stable_rank == pytest.approx(6 / 5)
    p = np.array([np.sqrt(5), 1]) / (np.sqrt(5) + 1)
    assert found.effective_rank == pytest.approx(np.exp(-(p * np.log(p)).sum()))


@pytest.mark.parametrize("action", [CONTINUOUS, spaces.Discrete(3)], ids=str)
def test_gradients_are_those_of_the_log_probability_of_a_drawn_action(action):
    model = ppo(action=action)
    found = diagnostics(model, STATES, n_gradient_states=4, seed=3)
    generator = th.Generator().manual_seed(3)
    parameters = actor_of(model).parameters
    gradients = []
    for state in spread(th.as_tensor(STATES), 4):
        distribution = model.policy.get_distribution(state[None])
        with th.no_grad():
            if isinstance(action, spaces.Box):
                inner = distribution.distribution
                drawn = inner.loc + inner.scale * th.randn((1, 2), generator=generator)
            else:
                drawn = th.multinomial(distribution.distribution.probs, 1, generator=generator)[:, 0]
        parts = th.autograd.grad(distribution.log_prob(drawn).sum(), parameters)
        gradients.append(th.cat([part.flatten() for part in parts]))
    assert found.gradient_norm == pytest.approx(np.mean([each.norm().item() for each in gradients]), rel=1e-5)
    for i in range(4):
        for j in range(4):
            expected = th.cosine_similarity(gradients[i], gradients[j], dim=0).item()
            assert found.gradient_covariance[i, j].item() == pytest.approx(expected, abs=1e-5)


def test_sac_gradients_are_those_before_the_tanh():
    model = sac()
    found = diagnostics(model, STATES, n_gradient_states=3, seed=5)
    generator, norms = th.Generator().manual_seed(5), []
    actor = model.policy.actor
    for state in spread(th.as_tensor(STATES), 3):
        mean, log_std, _ = actor.get_action_dist_params(state[None])
        raw = (mean + log_std.exp() * th.randn((1, 2), generator=generator)).detach()
        log_prob = actor.action_dist.proba_distribution(mean, log_std).log_prob(raw.tanh(), raw)
        parts = th.autograd.grad(log_prob.sum(), list(actor.parameters()))
        norms.append(th.cat([part.flatten() for part in parts]).norm().item())
    assert found.gradient_norm == pytest.approx(np.mean(norms), rel=1e-5)


def test_a_shared_extractor_counts_as_layers_but_not_in_the_gradients():
    model = ppo(observation=IMAGE, policy_kwargs={"net_arch": [5]})
    found = diagnostics(model, IMAGES)
    assert found.n_neurons == 32 + 64 + 64 + 512 + 5
    assert found.gradient_covariance.shape == (6, 6)
    # Of the five neurons and the heads alone, so that the extractor's frozen weights make no difference
    for parameter in model.policy.features_extractor.parameters():
        parameter.requires_grad = False
    assert diagnostics(model, IMAGES).scalars() == found.scalars()


def test_an_image_policy_without_layers_of_its_own():
    assert diagnostics(ppo(observation=IMAGE, policy_kwargs={}), IMAGES).n_neurons == 32 + 64 + 64 + 512


def test_sac_with_a_shared_image_extractor():
    kwargs = {"net_arch": [5], "share_features_extractor": True}
    model = SAC("CnnPolicy", Still(IMAGE, CONTINUOUS), policy_kwargs=kwargs, buffer_size=10, device="cpu")
    assert diagnostics(model, IMAGES).n_neurons == 32 + 64 + 64 + 512 + 5


def test_crelu_layers():
    class Doubled(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.latent_dim_pi = self.latent_dim_vf = 2 * width
            self.policy_net = nn.Sequential(nn.Linear(3, width), CReLU())
            self.value_net = nn.Sequential(nn.Linear(3, width), CReLU())

        def forward(self, x: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
            return self.forward_actor(x), self.forward_critic(x)

        def forward_actor(self, x: th.Tensor) -> th.Tensor:
            return self.policy_net(x)

        def forward_critic(self, x: th.Tensor) -> th.Tensor:
            return self.value_net(x)

    model = ppo(policy_kwargs={"net_arch": [10]})
    model.policy.mlp_extractor = Doubled(5)
    linear = model.policy.mlp_extractor.policy_net[0]
    found = diagnostics(model, STATES)
    assert found.n_neurons == 5
    assert found.activation_norm == pytest.approx(linear(th.as_tensor(STATES)).abs().mean().item(), rel=1e-5)


def streams() -> tuple[Any, ...]:
    return th.get_rng_state().tolist(), np.random.get_state()[1].tolist()


@pytest.mark.parametrize("make", [ppo, sac])
def test_nothing_changes(make):
    model = make()
    for module in list(model.policy.modules())[::2]:
        module.training = False
    next(model.policy.parameters()).grad = th.ones_like(next(model.policy.parameters()))
    modes = [module.training for module in model.policy.modules()]
    parameters = copy.deepcopy(model.policy.state_dict())
    before = streams()
    first = diagnostics(model, STATES)
    assert streams() == before
    assert [module.training for module in model.policy.modules()] == modes
    for name, value in model.policy.state_dict().items():
        assert th.equal(value, parameters[name])
    gradients = [parameter.grad for parameter in model.policy.parameters()]
    assert (gradients[0] == 1).all() and all(each is None for each in gradients[1:])
    assert not any(module._forward_hooks for module in model.policy.modules())
    # The policy keeps no graph: such a tensor cannot be copied
    copy.deepcopy(model.policy)
    # The same call gives the same numbers, another seed other actions
    assert diagnostics(model, STATES).scalars() == first.scalars()
    assert diagnostics(model, STATES, seed=1).gradient_norm != first.gradient_norm
    assert diagnostics(model, STATES, seed=1).weight_norm == first.weight_norm


def test_tensors_and_double_precision_are_taken_too():
    model = ppo()
    expected = diagnostics(model, STATES).scalars()
    assert diagnostics(model, th.as_tensor(STATES)).scalars() == expected
    assert diagnostics(model, STATES.astype(np.float64)).scalars() == expected


def test_gradient_states_are_spread_over_the_batch():
    assert spread(th.arange(11), 3).tolist() == [0, 5, 10]
    assert spread(th.arange(3), 5).tolist() == [0, 1, 2]
    assert spread(th.arange(3), 1).tolist() == [0]
    assert diagnostics(ppo(), STATES, n_gradient_states=7).gradient_covariance.shape == (7, 7)


def test_discrete_observations():
    model = ppo(observation=spaces.Discrete(5))
    assert diagnostics(model, np.array([[0], [4], [2]])).n_states == 3


@pytest.mark.parametrize(
    "observations, options, error",
    [
        (np.zeros((5, 4)), {}, r"observations must have the shape \(states, 3\) with at least one state, not \(5, 4\)"),
        (np.zeros(3), {}, r"observations must have the shape \(states, 3\) with at least one state, not \(3,\)"),
        (np.zeros((0, 3)), {}, r"at least one state, not \(0, 3\)"),
        (np.float32(1), {}, r"at least one state, not \(\)"),
        (STATES, {"dormant_threshold": -0.1}, "dormant_threshold must be a number in"),
        (STATES, {"n_gradient_states": 0}, "n_gradient_states must be a whole number"),
        (STATES, {"seed": -1}, "seed must be a whole number"),
    ],
)
def test_bad_input_is_a_clear_error(observations, options, error):
    with pytest.raises(ValueError, match=error):
        diagnostics(ppo(), observations, **options)


def test_policies_that_cannot_be_measured():
    with pytest.raises(ValueError, match="has no hidden layer whose neurons could be measured"):
        diagnostics(ppo(policy_kwargs={"net_arch": []}), STATES)
    contrib = pytest.importorskip("sb3_contrib")
    with pytest.raises(ValueError, match=r"policy must be an ActorCriticPolicy, or one of .*, not a ARSLinearPolicy"):
        diagnostics(contrib.ARS("LinearPolicy", "CartPole-v1", device="cpu"), STATES)


def test_what_is_no_agent_and_what_is_no_number():
    model = ppo()
    with pytest.raises(ValueError, match="model must be an agent, not a"):
        diagnostics(model.policy, np.zeros((3, 4)))
    with pytest.raises(ValueError, match="observations must be finite"):
        diagnostics(model, np.full((3, *model.observation_space.shape), np.nan))
