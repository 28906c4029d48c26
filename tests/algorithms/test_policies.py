"""Policies with CReLU; with any other activation they are SB3's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.envs import SimpleMultiObsEnv
from tagged_tasks import ImageTask, TaggedTask, differing
from torch import nn

from sb3_nbsp import CBPPPO, CBPSAC, NBSPSAC, P3O, SBPSAC, ContinualPPO, ContinualSAC, ReDoPPO, ReDoSAC
from sb3_nbsp.neurons import CReLU

ARCH = {"pi": [7, 6], "vf": [5, 4], "qf": [5, 4]}


def shapes(net: nn.Module) -> list[tuple[int, int]]:
    return [(each.in_features, each.out_features) for each in net.modules() if isinstance(each, nn.Linear)]


def slow_forward(net: nn.Module, x: list[float]) -> list[float]:
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            weight, bias = layer.weight.tolist(), layer.bias.tolist()
            x = [sum(w * value for w, value in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
        elif isinstance(layer, CReLU):
            x = [max(value, 0.0) for value in x] + [max(-value, 0.0) for value in x]
    return x


def test_ppo() -> None:
    agent = ContinualPPO("MlpPolicy", TaggedTask(1.0), policy_kwargs={"net_arch": ARCH, "activation_fn": CReLU})
    policy = agent.policy
    assert shapes(policy.mlp_extractor.policy_net) == [(4, 7), (14, 6)]
    assert shapes(policy.mlp_extractor.value_net) == [(4, 5), (10, 4)]
    assert shapes(policy.action_net) == [(12, 2)]
    assert shapes(policy.value_net) == [(8, 1)]
    # Initialized as SB3 does it, and moved by the optimizer
    weight = policy.mlp_extractor.policy_net[2].weight
    th.testing.assert_close(weight @ weight.t(), 2 * th.eye(6), rtol=0, atol=1e-5)
    assert policy.action_net.weight.abs().max() <= 0.01
    assert not policy.mlp_extractor.policy_net[2].bias.any()
    optimized = {id(parameter) for group in policy.optimizer.param_groups for parameter in group["params"]}
    assert optimized == {id(parameter) for parameter in policy.parameters()}
    observation = [0.3, -0.2, 0.9, -1.4]
    expected = slow_forward(policy.action_net, slow_forward(policy.mlp_extractor.policy_net, observation))
    found = policy.get_distribution(th.tensor([observation])).distribution.mean[0]
    np.testing.assert_allclose(found.tolist(), expected, rtol=1e-4, atol=1e-6)


def test_sac() -> None:
    agent = ContinualSAC("MlpPolicy", TaggedTask(1.0), policy_kwargs={"net_arch": ARCH, "activation_fn": CReLU})
    assert shapes(agent.actor) == [(4, 7), (14, 6), (12, 2), (12, 2)]
    assert shapes(agent.critic) == [(6, 5), (10, 4), (8, 1)] * 2 == shapes(agent.critic_target)
    assert differing(dict(agent.critic.state_dict()), dict(agent.critic_target.state_dict())) == []
    for net in (agent.actor, agent.critic):
        optimized = {id(parameter) for group in net.optimizer.param_groups for parameter in group["params"]}
        assert optimized == {id(parameter) for parameter in net.parameters()}
    observation = [0.3, -0.2, 0.9, -1.4]
    expected = slow_forward(agent.actor.mu, slow_forward(agent.actor.latent_pi, observation))
    found = agent.actor.get_action_dist_params(th.tensor([observation]))[0][0]
    np.testing.assert_allclose(found.tolist(), expected, rtol=1e-4, atol=1e-6)


AGENTS = {
    P3O: {"reset_frequency": 64, "reset_rate": 0.3, "max_distill_epochs": 1},
    CBPPPO: {"replacement_rate": 0.1, "maturity_threshold": 2},
    ReDoPPO: {"reset_frequency": 64, "reset_rate": 0.3},
    SBPSAC: {"reset_frequency": 40, "reset_rate": 0.3, "max_distill_epochs": 1, "distill_states": 32},
    CBPSAC: {"replacement_rate": 0.1, "maturity_threshold": 2},
    ReDoSAC: {"reset_frequency": 40, "reset_rate": 0.3},
    NBSPSAC: {"identification_data": "training"},
}


@pytest.mark.parametrize("cls", [ContinualPPO, ContinualSAC, *AGENTS])
@pytest.mark.parametrize("kind", ["MlpPolicy", "CnnPolicy", "MultiInputPolicy", "gSDE"])
def test_runs_saves_and_loads(cls: Any, kind: str, tmp_path: Any) -> None:
    options: dict[str, Any] = dict(AGENTS.get(cls, {}))
    env = {"CnnPolicy": ImageTask(), "MultiInputPolicy": SimpleMultiObsEnv(discrete_actions=False)}.get(kind, TaggedTask(1.0))
    policy_kwargs: dict[str, Any] = {"net_arch": ARCH, "activation_fn": CReLU}
    if kind == "CnnPolicy":
        policy_kwargs["features_extractor_kwargs"] = {"features_dim": 8}
    if kind == "gSDE":
        options["use_sde"] = True
    if issubclass(cls, ContinualPPO):
        options.update(n_steps=64, n_epochs=1, batch_size=32)
    else:
        options.update(learning_starts=20, batch_size=8, buffer_size=100, train_freq=4)
    policy = "MlpPolicy" if kind == "gSDE" else kind
    agent = cls(policy, env, policy_kwargs=policy_kwargs, seed=0, device="cpu", **options)
    agent.learn(64)
    agent.save(tmp_path / "model")
    loaded = cls.load(tmp_path / "model", env=env)
    assert differing(dict(agent.policy.state_dict()), dict(loaded.policy.state_dict())) == []
    observation = env.observation_space.sample()
    np.testing.assert_array_equal(
        agent.predict(observation, deterministic=True)[0], loaded.predict(observation, deterministic=True)[0]
    )
    loaded.learn(64, reset_num_timesteps=False)
    # The policy alone, too
    agent.policy.save(tmp_path / "policy")
    alone = type(agent.policy).load(tmp_path / "policy")
    assert differing(dict(agent.policy.state_dict()), dict(alone.state_dict())) == []
    if isinstance(agent, ContinualSAC):
        agent.actor.save(tmp_path / "actor")
        actor = type(agent.actor).load(tmp_path / "actor")
        assert differing(dict(agent.actor.state_dict()), dict(actor.state_dict())) == []


@pytest.mark.parametrize("activation_fn", [nn.ReLU, nn.Tanh, nn.ELU])
@pytest.mark.parametrize("cls", [ContinualPPO, ContinualSAC])
@pytest.mark.parametrize("use_sde", [False, True])
def test_with_other_activations_it_is_the_policy_of_sb3(cls: type, activation_fn: Any, use_sde: bool) -> None:
    plain = PPO if cls is ContinualPPO else SAC
    policy_kwargs = {"net_arch": ARCH, "activation_fn": activation_fn}
    states = []
    for kind in (cls, plain):
        agent = kind("MlpPolicy", TaggedTask(1.0), policy_kwargs=policy_kwargs, seed=1, use_sde=use_sde)
        states.append((dict(agent.policy.state_dict()), th.get_rng_state()))
    assert list(states[0][0]) == list(states[1][0])
    assert differing(states[0][0], states[1][0]) == []
    assert th.equal(states[0][1], states[1][1])
