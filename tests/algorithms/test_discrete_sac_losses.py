"""The losses of SAC for discrete actions, against numbers worked out by hand and CleanRL's structure written plainly."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from discrete_tasks import tiny
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_nbsp import ContinualDiscreteSAC
from sb3_nbsp.algorithms.autograd_discrete_sac import DiscreteGradients
from sb3_nbsp.fast.discrete_sac_gradients import MlpDiscreteGradients
from sb3_nbsp.interventions import Intervention
from tools.speed import discrete_sac as speed

PROBS, Q, ALPHA = (0.75, 0.25), (1.0, 2.0), 0.2
ENTROPY = 0.562335  # 0.75 log(4/3) + 0.25 log 4


def handmade(**kwargs: Any) -> tuple[ContinualDiscreteSAC, Any, ReplayBufferSamples]:
    """An agent whose policy is (0.75, 0.25) and whose critics say (1, 2) everywhere; its losses; a transition."""
    agent = tiny(ContinualDiscreteSAC, policy_kwargs={"net_arch": []}, **kwargs)
    for parameter in agent.policy.parameters():
        parameter.data.zero_()
    agent.actor.action_net.bias.data = th.tensor(PROBS).log()
    for critic in (agent.critic, agent.critic_target):
        for (head,) in critic.q_networks:
            head.bias.data = th.tensor(Q)
    state, number = th.zeros(1, 4), th.zeros(1, 1)
    data = ReplayBufferSamples(state, th.tensor([[1]]), state, number, number + 1)
    return agent, agent._make_gradients(), data


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    ("reduction", "actor", "temperature"), [("mean", -0.681234, -0.005457), ("sum", -1.362467, -0.010913)]
)
def test_against_numbers_by_hand(reduction: str, actor: float, temperature: float, fused: bool) -> None:
    agent, losses, data = handmade(loss_reduction=reduction, fused=fused)
    alpha = th.tensor(ALPHA)
    log_prob = losses.sample_actions(data)
    assert log_prob.exp().tolist() == [pytest.approx(PROBS)]
    assert agent.target_entropy == pytest.approx(0.616901, abs=1e-6), "0.89 log 2, positive"
    assert agent._entropy(log_prob).item() == pytest.approx(ENTROPY, abs=1e-6)

    log_alpha = alpha.log().requires_grad_(True)
    assert losses.ent_coef_loss(log_alpha, log_prob, agent.target_entropy).item() == pytest.approx(temperature, abs=1e-6)
    assert log_alpha.grad is not None
    assert log_alpha.grad.item() == pytest.approx(temperature, abs=1e-6), "it rises; through α, its own derivative"

    values = losses.next_values(data, alpha)
    assert values.tolist() == [[pytest.approx(1.362467, abs=1e-6)]]
    target = 1 + 0.99 * values
    assert target.item() == pytest.approx(2.348842, abs=1e-6)
    error = 2 - target.item()
    assert losses.critic_loss(data, target).item() == pytest.approx(2 * error**2, abs=1e-6), "without a factor of ½"
    for (head,) in agent.critic.q_networks:
        assert head.bias.grad.tolist() == pytest.approx([0, 2 * error], abs=1e-6), "of the action taken only"

    assert losses.actor_loss(data, alpha).item() == pytest.approx(actor, abs=1e-6)
    gradient = 0.228698 / (2 if reduction == "mean" else 1)
    assert agent.actor.action_net.bias.grad.tolist() == pytest.approx([gradient, -gradient], abs=1e-6)
    assert agent.actor_loss_scale == (0.5 if reduction == "mean" else 1)


def test_the_smaller_critic_counts_for_each_action() -> None:
    agent, losses, data = handmade()
    for critic in (agent.critic, agent.critic_target):
        critic.q_networks[0][0].bias.data = th.tensor([1.0, 5.0])
        critic.q_networks[1][0].bias.data = th.tensor([4.0, 2.0])
    losses.sample_actions(data)
    assert losses.next_values(data, th.tensor(ALPHA)).item() == pytest.approx(1.362467, abs=1e-6)
    assert losses.actor_loss(data, th.tensor(ALPHA)).item() == pytest.approx(-0.681234, abs=1e-6)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("net_arch", [[], [8], [16, 8]])
def test_gradients_by_hand_are_those_of_autograd(net_arch: list[int], reduction: str, activation: type[nn.Module]) -> None:
    agents = [
        tiny(
            ContinualDiscreteSAC,
            "Acrobot-v1",  # three actions
            policy_kwargs={"net_arch": net_arch, "activation_fn": activation, "n_critics": 3},
            loss_reduction=reduction,
            fused=fused,
        )
        for fused in (True, False)
    ]
    agents[1].policy.load_state_dict(agents[0].policy.state_dict())
    kinds = [type(agent._make_gradients()) for agent in agents]
    assert kinds == [MlpDiscreteGradients, DiscreteGradients]
    rng = np.random.default_rng(0)
    states = [th.tensor(rng.standard_normal((32, 6))) for _ in range(2)]
    data = ReplayBufferSamples(states[0], th.tensor(rng.integers(0, 3, (32, 1))), states[1], th.zeros(32, 1), th.zeros(32, 1))
    found: list[dict[str, th.Tensor]] = []
    for agent in agents:
        losses, alpha = agent._make_gradients(), th.tensor(rng.random((32, 1)) * 0 + 0.3)
        log_alpha = th.tensor([0.3]).log().requires_grad_(True)
        log_prob = losses.sample_actions(data)
        values = {"temperature": losses.ent_coef_loss(log_alpha, log_prob, 0.7), "log_alpha": log_alpha.grad}
        values["next"] = losses.next_values(data, alpha)
        values["critic"] = losses.critic_loss(data, states[0][:, :1])
        values["actor"] = losses.actor_loss(data, alpha)
        values |= {name: each.grad.clone() for name, each in agent.policy.named_parameters() if "target" not in name}
        found.append({name: value.detach().squeeze() for name, value in values.items()})
    for name, value in found[0].items():
        assert value.abs().max() > 0
        th.testing.assert_close(value, found[1][name], rtol=1e-6, atol=1e-9)


def test_gradients_by_hand_on_images_that_are_flattened() -> None:
    """MinAtar's, which are of bits and not divided by 255."""
    pytest.importorskip("minatar")
    ends = []
    for fused in (True, False):
        env = gym.make("MinAtar-Asterix-Freeway-v0", steps_per_task=30)
        agent = tiny(ContinualDiscreteSAC, env, learning_starts=20, policy_kwargs={"net_arch": [32]}, fused=fused)
        assert isinstance(agent._make_gradients(), MlpDiscreteGradients) == fused
        agent.learn(30)
        ends.append(nn.utils.parameters_to_vector(agent.policy.parameters()))
    assert not th.equal(*ends)
    th.testing.assert_close(*ends, rtol=1e-3, atol=1e-5)


class Penalty(Intervention):
    def penalty(self, network: str) -> th.Tensor:
        return th.tensor(6.0)


@pytest.mark.parametrize(("reduction", "added"), [("mean", 3.0), ("sum", 6.0)])
def test_a_penalty_on_the_actor_is_scaled_with_its_loss(reduction: str, added: float) -> None:
    found = []
    for interventions in ([], [Penalty()]):
        _, losses, data = handmade(loss_reduction=reduction, interventions=interventions)
        losses.sample_actions(data)
        found.append((losses.actor_loss(data, th.tensor(ALPHA)), losses.critic_loss(data, th.zeros(1, 1))))
    assert (found[1][0] - found[0][0]).item() == pytest.approx(added)
    assert (found[1][1] - found[0][1]).item() == pytest.approx(6)


def images(**kwargs: Any) -> ContinualDiscreteSAC:
    return speed.make(DummyVecEnv([speed.Images]), 16, seed=0, **kwargs)


def plain(agent: ContinualDiscreteSAC) -> speed.Plain:
    """CleanRL's structure, with the same parameters and transitions."""
    buffer = ReplayBuffer(2000, agent.observation_space, agent.action_space, device="cpu")
    speed.fill(buffer)
    other = speed.Plain(buffer, 6, 16)
    for theirs, ours in ((other.actor, agent.actor), *zip((other.q1, other.q2), _critics(agent), strict=True)):
        with th.no_grad():
            for new, old in zip(theirs.parameters(), ours.parameters(), strict=True):
                new.copy_(old)
    other.target1.load_state_dict(other.q1.state_dict())
    other.target2.load_state_dict(other.q2.state_dict())
    return other


def _critics(agent: ContinualDiscreteSAC) -> list[nn.Module]:
    pairs = zip(agent.critic.features_extractors, agent.critic.q_networks, strict=True)
    return [nn.Sequential(*pair) for pair in pairs]


def trained(agent: ContinualDiscreteSAC, steps: int = 3) -> list[th.Tensor]:
    """The steps of all parameters, flat, by network."""
    networks = [agent.actor, *_critics(agent)]
    before = [nn.utils.parameters_to_vector(each.parameters()).detach().clone() for each in networks]
    np.random.seed(7)
    agent.train(gradient_steps=steps, batch_size=speed.BATCH)
    return [
        nn.utils.parameters_to_vector(each.parameters()).detach() - old for each, old in zip(networks, before, strict=True)
    ]


@pytest.mark.parametrize("fused", [False, True])
def test_three_steps_are_those_of_the_plain_structure(fused: bool) -> None:
    agent = images(fused=fused)
    other = plain(agent)
    networks = [other.actor, other.q1, other.q2]
    before = [nn.utils.parameters_to_vector(each.parameters()).detach().clone() for each in networks]
    np.random.seed(7)
    other.train(3)
    steps = [
        nn.utils.parameters_to_vector(each.parameters()).detach() - old for each, old in zip(networks, before, strict=True)
    ]
    for ours, theirs in zip(trained(agent), steps, strict=True):
        assert theirs.abs().max() > 1e-6
        th.testing.assert_close(ours, theirs, rtol=0.02, atol=1e-6)
    assert agent.log_ent_coef is not None
    assert agent.log_ent_coef.item() == pytest.approx(other.log_alpha.item(), abs=1e-7) and other.log_alpha.item() != 0


@pytest.mark.skipif(not th.cpu.get_capabilities().get("avx512_bf16", False), reason="no instructions for bfloat16")
def test_medium_rounds_the_convolutions_only() -> None:
    exact, rounded = (trained(images(matmul_precision=precision), 1) for precision in ("highest", "medium"))
    for one, other in zip(exact, rounded, strict=True):
        assert not th.equal(one, other)
        assert th.cosine_similarity(one, other, dim=0) > 0.97
    agent = images(matmul_precision="medium")
    losses: Any = agent._make_gradients()
    assert losses.sample_actions(agent.replay_buffer.sample(4)).dtype == th.float32


def test_a_shared_features_extractor_is_the_critics() -> None:
    kwargs: dict[str, Any] = {
        "net_arch": [8],
        "share_features_extractor": True,
        "features_extractor_kwargs": {"features_dim": 8},
    }
    agent = speed.make(DummyVecEnv([speed.Images]), 8, policy_kwargs=kwargs)
    shared = set(agent.actor.features_extractor.parameters())
    assert shared <= set(agent.critic.parameters()) and len(agent.critic.features_extractors) == 1
    assert not shared & {each for group in agent.actor.optimizer.param_groups for each in group["params"]}
    calls: list[bool] = []
    agent.actor.features_extractor.register_forward_hook(lambda *_: calls.append(th.is_grad_enabled()))
    data = agent.replay_buffer.sample(4)
    losses: Any = agent._make_gradients()
    losses.sample_actions(data)
    losses.critic_loss(data, th.zeros(4, 1))
    gradients = [parameter.grad.clone() for parameter in agent.actor.features_extractor.parameters()]
    assert calls == [True], "once for actor and critics"
    losses.actor_loss(data, th.tensor(ALPHA))
    assert calls == [True, False], "after their step anew"
    for before, parameter in zip(gradients, agent.actor.features_extractor.parameters(), strict=True):
        assert before.abs().max() > 0 and th.equal(before, parameter.grad), "the actor's gradient stops"


@pytest.mark.parametrize(("n", "scale", "expected"), [(6, 0.89, 1.5947), (18, 0.89, 2.5724), (6, 0.5, 0.5 * math.log(6))])
def test_target_entropy(n: int, scale: float, expected: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed.Images, "action_space", speed.spaces.Discrete(n))
    agent = images(target_entropy_scale=scale)
    assert agent.target_entropy == pytest.approx(expected, abs=1e-4)
