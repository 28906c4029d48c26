"""Shrink and perturb: numbers, noise, and when it acts."""

from __future__ import annotations

from typing import Any

import pytest
import torch as th
from stable_baselines3 import PPO, SAC
from tagged_tasks import TaggedTask, differing, parameters, random_states, tagged_sequence, tiny

from sb3_nbsp import ShrinkPerturbPPO, ShrinkPerturbSAC
from sb3_nbsp.interventions import Phase, ShrinkPerturb, shrink_perturb
from sb3_nbsp.interventions.fresh_networks import fresh_policy

CLASSES = [ShrinkPerturbSAC, ShrinkPerturbPPO]


def start_phase(agent: Any) -> None:
    agent.all_interventions.on_phase_start(Phase(1, "blue"))
    agent.all_interventions.after_train()


@pytest.mark.parametrize("cls", CLASSES)
def test_by_hand(cls: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """θ = 1, ε = 0.2, p = 0.9, σ = 0.1: 0.92. Target critics and a standard deviation of its own stay at 1."""
    agent, fresh = tiny(cls, TaggedTask(1.0), shrink_factor=0.9, perturb_scale=0.1), tiny(cls, TaggedTask(1.0))
    for model, value in ((agent, 1.0), (fresh, 0.2)):
        for each in model.policy.parameters():
            each.data.fill_(value)
    monkeypatch.setattr(shrink_perturb, "fresh_policy", lambda *_: fresh.policy)
    start_phase(agent)
    for name, each in agent.policy.named_parameters():
        expected = 1.0 if "target" in name or name == "log_std" else 0.92
        th.testing.assert_close(each, th.full_like(each, expected))


@pytest.mark.parametrize("cls", CLASSES)
def test_the_noise_is_a_new_network_and_leaves_the_random_streams_alone(cls: type) -> None:
    agent = tiny(cls, TaggedTask(1.0), policy_kwargs={"net_arch": [100, 100]}, shrink_factor=0, perturb_scale=1)
    before, states = parameters(agent), random_states()
    start_phase(agent)
    assert random_states() == states
    other = tiny(cls, TaggedTask(1.0), policy_kwargs={"net_arch": [100, 100]}, seed=5)
    for name, each in agent.policy.named_parameters():
        if "weight" in name and "target" not in name:
            assert not th.equal(each, before[name])
            th.testing.assert_close(each.std(), parameters(other)[name].std(), rtol=0.3, atol=0.0)
    first, again, later = (fresh_policy(agent, phase, 320) for phase in (1, 1, 2))
    assert differing(first.state_dict(), again.state_dict()) == [] != differing(first.state_dict(), later.state_dict())
    assert differing(first.state_dict(), agent.policy.state_dict() | _targets(first)) == []


def _targets(policy: Any) -> dict[str, th.Tensor]:
    return {name: each for name, each in policy.state_dict().items() if "target" in name or name == "log_std"}


def test_it_acts_at_phase_starts_or_every_so_many_steps() -> None:
    acted: list[tuple[int, int]] = []

    class Recorded(ShrinkPerturb):
        def _apply(self, occasion: int, purpose: int) -> None:
            acted.append((occasion, purpose))
            super()._apply(occasion, purpose)

    for options, n_steps in (({}, 150), ({"shrink_interval": 15}, 50)):
        agent = tiny(ShrinkPerturbSAC.__bases__[-1], tagged_sequence(), interventions=[Recorded(**options)])
        agent.learn(n_steps)
    assert acted == [(1, 320), (2, 320), (15, 321), (30, 321)]


@pytest.mark.parametrize(("cls", "plain"), [(ShrinkPerturbSAC, SAC), (ShrinkPerturbPPO, PPO)])
def test_inactive_it_is_sb3(cls: type, plain: type) -> None:
    options = {"shrink_factor": 1, "perturb_scale": 0, "shrink_interval": 3, "fused": False}
    agents = [tiny(cls, TaggedTask(1.0), **options).learn(60), tiny(plain, TaggedTask(1.0)).learn(60)]
    assert differing(*map(parameters, agents)) == []


@pytest.mark.parametrize(("name", "value"), [("shrink_factor", 1.1), ("perturb_scale", -1), ("shrink_interval", 0)])
def test_a_wrong_option_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        ShrinkPerturb(**{name: value})
