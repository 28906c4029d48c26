"""Plasticity injection: nothing changes when it happens, and then a new head learns in the place of the old one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.envs import FakeImageEnv
from tagged_tasks import TaggedTask, differing, parameters, tagged_sequence, tiny
from torch import nn

from sb3_nbsp import PISAC, ContinualSAC, PIDiscreteSAC
from sb3_nbsp.interventions import ClonEx, CycleReset, FullReset, Phase, PlasticityInjection, ShrinkPerturb
from sb3_nbsp.neurons.injection import InjectedBody, InjectedOutput


def linear(weight: float) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(weight)
    return layer


def test_by_hand() -> None:
    """
    h(x) = 2x and θ′: 0.5x. At the injection 2x, with the derivative 2 = 2 + 0.5 - 0.5 (2.5 if the third head were detached);
    once θ′₁ is 0.7, 2.2x with the derivative 2.2.
    """
    body, output = InjectedBody(nn.Sequential()), InjectedOutput(linear(2.0))
    body.bodies.extend([nn.Sequential(), nn.Sequential()])
    output.outputs.extend([linear(0.5), linear(0.5)])
    for weight, expected in ((0.5, 2.0), (0.7, 2.2)):
        output.outputs[1].weight.data.fill_(weight)  # type: ignore[operator, union-attr]
        x = th.tensor([[3.0]], requires_grad=True)
        y = output(body(x))
        y.backward()
        assert x.grad is not None
        assert (y.item(), x.grad.item()) == pytest.approx((3 * expected, expected))


def says(agent: Any) -> list[th.Tensor]:
    """What all networks say of some observations."""
    generator = th.Generator().manual_seed(1)
    observations, actions = th.randn(50, 4, generator=generator), th.randn(50, 2, generator=generator).tanh()
    if isinstance(agent, PIDiscreteSAC):
        found = [agent.actor.logits(observations), *agent.critic(observations), *agent.critic_target(observations)]
    else:
        policy = agent.actor.get_action_dist_params(observations)[:2]
        found = [*policy, *agent.critic(observations, actions), *agent.critic_target(observations, actions)]
    return [each.detach() for each in found]


def inject(agent: Any) -> None:
    phase = agent.phase.index + 1
    agent.phase = Phase(phase, f"task {phase}")
    agent.all_interventions.on_phase_start(agent.phase)


def optimized(agent: Any) -> list[nn.Parameter]:
    return [each for name in ("actor", "critic") for each in getattr(agent, name).optimizer.param_groups[0]["params"]]


def train(agent: Any, steps: int) -> None:
    agent.phase = Phase(0, "")
    agent.learn(steps, reset_num_timesteps=False)


CASES: dict[str, tuple[type, Any, dict[str, Any]]] = {
    "sac": (PISAC, TaggedTask, {}),
    "output layer": (PISAC, TaggedTask, {"head_layers": 1}),
    "whole networks": (PISAC, TaggedTask, {"head_layers": 3}),
    "layer norm": (PISAC, TaggedTask, {"policy_kwargs": {"net_arch": [8, 8], "layer_norm": True}}),
    "discrete": (PIDiscreteSAC, gym.make, {}),
}


def make(case: str, **options: Any) -> Any:
    cls, env, own = CASES[case]
    return tiny(cls, env("CartPole-v1") if cls is PIDiscreteSAC else env(1.0), **{**own, **options})


@pytest.mark.parametrize("case", CASES)
def test_what_networks_say_does_not_change_and_a_new_head_learns(case: str) -> None:
    agent = make(case)
    agent.learn(35)
    trained, widths = optimized(agent), sum(each.numel() for each in optimized(agent))
    for number in (1, 2):
        before = says(agent)
        inject(agent)
        assert all(th.equal(old, new) for old, new in zip(before, says(agent), strict=True))
        replaced = [new for old, new in zip(trained, optimized(agent), strict=True) if old is not new]
        assert replaced and not any(agent.actor.optimizer.state.get(each) for each in replaced)
        trained = optimized(agent)
        assert sum(each.numel() for each in trained) == widths
        own = [*agent.actor.parameters(), *agent.critic.parameters()]
        assert {id(each) for each in own if each.requires_grad} == {id(each) for each in trained}
        assert agent.all_interventions.find(PlasticityInjection).n_injections == number
        frozen = {id(each): each.detach().clone() for each in own if not each.requires_grad}
        learned = {id(each): each.detach().clone() for each in trained}
        train(agent, 25)
        assert all(th.equal(each, frozen[id(each)]) for each in own if id(each) in frozen)
        assert not any(th.equal(each, learned[id(each)]) for each in trained)
        assert not agent._is_by_hand()
        shapes = [[each.shape for each in net.parameters()] for net in (agent.critic, agent.critic_target)]
        assert shapes[0] == shapes[1]


def test_only_some_networks_at_some_steps_and_not_too_often() -> None:
    agent = make("sac", injection_networks="critic", injection_steps=[30, 50, 90], max_injections=2)
    agent.learn(40)
    found = agent.all_interventions.find(PlasticityInjection)
    assert found.n_injections == 1 and not any(isinstance(each, InjectedBody) for each in agent.actor.modules())
    train(agent, 80)
    assert found.n_injections == 2


def test_steps_that_are_given_at_load_are_those_to_come(tmp_path: Path) -> None:
    """However often the agent has injected before."""
    agent = make("sac", injection_steps=[20, 30]).learn(40)
    agent.save(tmp_path / "model")
    agent = PISAC.load(tmp_path / "model", env=agent.env, injection_steps=[30, 60])
    found = agent.all_interventions.find(PlasticityInjection)
    agent.learn(15, reset_num_timesteps=False)
    assert (agent.num_timesteps, found.n_injections) == (55, 2)
    agent.learn(10, reset_num_timesteps=False)
    assert (agent.num_timesteps, found.n_injections) == (65, 3)


def test_it_acts_at_phase_starts_and_until_then_is_sb3() -> None:
    agent = tiny(PISAC, tagged_sequence(), fused=False).learn(59)
    assert differing(parameters(agent), parameters(tiny(SAC, tagged_sequence()).learn(59))) == []
    agent.learn(100, reset_num_timesteps=False)
    assert agent.all_interventions.find(PlasticityInjection).n_injections == agent.phase.index == 2


@pytest.mark.parametrize("case", ["sac", "discrete"])
def test_files_and_copies_have_the_heads(case: str, tmp_path: Path) -> None:
    agent = make(case)
    agent.learn(35)
    inject(agent)
    train(agent, 20)
    agent.save(tmp_path / "model")
    for same in (type(agent).load(tmp_path / "model"), copy.deepcopy(agent)):
        assert all(th.equal(old, new) for old, new in zip(says(agent), says(same), strict=True))
        inject(same)
        assert same.all_interventions.find(PlasticityInjection).n_injections == 2
    assert agent.all_interventions.find(PlasticityInjection).n_injections == 1
    if case == "sac":
        with pytest.raises(ValueError, match=r"heads that plasticity injection has added.*PlasticityInjection"):
            ContinualSAC.load(tmp_path / "model")


def test_images() -> None:
    """The convolutions are the encoder, the fully connected layer behind them and the output layer are the head."""
    env = FakeImageEnv(screen_height=40, screen_width=40, discrete=True)
    small = {"features_extractor_kwargs": {"features_dim": 16}, "net_arch": [8]}
    agent = tiny(PIDiscreteSAC, env, policy="CnnPolicy", policy_kwargs=small, buffer_size=50, batch_size=4)
    agent.learn(25)
    inject(agent)
    train(agent, 5)
    assert [len(each.bodies) for each in agent.critic.modules() if isinstance(each, InjectedBody)] == [3, 3]


def test_gradient_descent_with_momentum() -> None:
    """Its fused kernel wants a buffer of every parameter or of none, and without it a new head begins with none."""
    kwargs = {"net_arch": [8, 8], "optimizer_class": th.optim.SGD, "optimizer_kwargs": {"momentum": 0.9}}
    found = []
    for fused in (True, False):
        agent = tiny(PISAC, tagged_sequence(), policy_kwargs=kwargs, fused=fused).learn(25)
        inject(agent)
        train(agent, 2)
        found.append(parameters(agent))
    for first, second in zip(*(each.values() for each in found), strict=True):
        th.testing.assert_close(first, second)


def test_what_cannot_go_with_it_is_refused() -> None:
    with pytest.raises(ValueError, match="PlasticityInjection replaces networks, of which CycleReset keeps account"):
        tiny(ContinualSAC, TaggedTask(1.0), interventions=[PlasticityInjection(), CycleReset()])
    for other in (ShrinkPerturb(), FullReset()):
        with pytest.raises(ValueError, match=f"further heads, of which {type(other).__name__} knows nothing"):
            tiny(ContinualSAC, tagged_sequence(), interventions=[other, PlasticityInjection()])
    both = [PlasticityInjection(), ClonEx(best_return_exploration=True)]
    with pytest.raises(ValueError, match="of which ClonEx knows nothing: do without best_return_exploration"):
        tiny(ContinualSAC, tagged_sequence(), interventions=both)
    tiny(ContinualSAC, tagged_sequence(), interventions=[PlasticityInjection("critic"), both[1]]).learn(90)
    with pytest.raises(ValueError, match="head_layers must be at most 3"):
        make("sac", head_layers=4)
    with pytest.raises(ValueError, match="use_sde"):
        make("sac", use_sde=True)
    with pytest.raises(ValueError, match="injection_steps must be in ascending order"):
        PlasticityInjection(injection_steps=[5, 3])
    for steps in (30, [], "30"):
        with pytest.raises(ValueError, match="injection_steps must be"):
            PlasticityInjection(injection_steps=steps)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_injections must be a whole number of at least 1"):
        PlasticityInjection(max_injections=0)
