"""``reset_critics`` draws the critics anew: what keeps account of them begins anew as well, or is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from tagged_tasks import TaggedTask, differing, tagged_sequence, tiny
from torch import nn

from sb3_nbsp import NBSPSAC, NPCSAC, PISAC, ContinualSAC, FullResetPPO, FullResetSAC
from sb3_nbsp.interventions import ContinualBackprop, L2Init
from sb3_nbsp.interventions.fresh_networks import fresh_policy


@pytest.mark.parametrize(
    ("cls", "without"),
    [
        (NBSPSAC, {"mask_networks": "actor"}),
        (NPCSAC, {"npc_beta": float("inf")}),
        (PISAC, {"injection_networks": "actor"}),
    ],
)
def test_what_holds_critics_is_refused(cls: type, without: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="reset_critics=True draws the critics anew, but "):
        tiny(cls, tagged_sequence(), reset_critics=True)
    agent = tiny(cls, TaggedTask(1.0)).learn(30)
    with pytest.raises(ValueError, match="reset_critics=True draws the critics anew, but "):
        agent.reset_critics = True
    assert not agent.reset_critics
    agent = tiny(cls, TaggedTask(1.0), **without).learn(1)
    agent.reset_critics = True
    agent.start_phase("other")


class Features(BaseFeaturesExtractor):
    """A layer that does not learn in front of one that does, whose weight may be a computed one."""

    def __init__(self, space: spaces.Box, is_known: bool = True) -> None:
        super().__init__(space, 6)
        self.frozen = nn.Linear(4, 6).requires_grad_(False)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))
        self.factor = nn.Parameter(th.ones(6)) if not is_known else 1.0

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.factor * self.normed(self.frozen(observations))


def policy_kwargs(**options: Any) -> dict[str, Any]:
    return {"net_arch": [8], "features_extractor_class": Features, "features_extractor_kwargs": options}


def test_neurons_of_new_critics_have_no_age_and_no_utility() -> None:
    cbp = ContinualBackprop(0.01, maturity_threshold=5, networks="both")
    agent = tiny(ContinualSAC, tagged_sequence(), reset_critics=True, interventions=[cbp]).learn(55)
    assert all((ages > 0).any() for ages in cbp.ages.values()) and all(each.owed > 0 for each in cbp._averages)
    agent.learn(16, reset_num_timesteps=False)
    assert agent.phase.index == 1
    for name, ages in cbp.ages.items():
        assert bool((ages == 0).all()) == name.startswith("critic"), name
        assert bool((cbp.utilities[name] == 0).all()) == name.startswith("critic"), name
    assert [each.owed > 0 for each in cbp._averages] == [not name.startswith("critic") for name in cbp.ages]
    agent.learn(30, reset_num_timesteps=False)
    assert all((ages > 0).any() for ages in cbp.ages.values())


def test_new_critics_are_pulled_to_where_they_begin() -> None:
    agent = tiny(ContinualSAC, tagged_sequence(), reset_critics=True, interventions=[L2Init()]).learn(55)
    l2_init = agent.all_interventions.find(L2Init)
    first = {name: value.clone() for name, value in l2_init.state_dict()["initial"].items()}
    agent.learn(16, reset_num_timesteps=False)
    second, now = l2_init.state_dict()["initial"], dict(agent.policy.named_parameters())
    assert agent.phase.index == 1 and first.keys() == second.keys()
    for name, value in second.items():
        assert th.equal(value, now[name] if name.startswith("critic.") else first[name]), name
    changed = [name for name in differing(first, second) if name.endswith("weight")]
    assert changed == [name for name in first if name.startswith("critic.") and name.endswith("weight")]


@pytest.mark.parametrize("cls", [FullResetSAC, FullResetPPO])
def test_new_networks_are_pulled_to_where_they_begin(cls: type) -> None:
    agent = tiny(cls, tagged_sequence(), interventions=[L2Init()]).learn(100)
    expected = dict(fresh_policy(agent, 1, 310).named_parameters())
    initial = agent.all_interventions.find(L2Init).state_dict()["initial"]
    assert agent.phase.index == 1 and len(initial) > 8
    assert differing(initial, {name: expected[name].detach() for name in initial}) == []


@pytest.mark.parametrize(("cls", "options"), [(ContinualSAC, {"reset_critics": True}), (FullResetSAC, {})])
def test_frozen_layers_stay_and_computed_weights_are_drawn(cls: type, options: dict[str, Any]) -> None:
    agent = tiny(cls, tagged_sequence(), policy_kwargs=policy_kwargs(), **options).learn(55)
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    agent.learn(16, reset_num_timesteps=False)
    after = agent.policy.state_dict()
    for part in ("critic", "critic_target"):
        same = {name for name in before if name.startswith(f"{part}.") and th.equal(before[name], after[name])}
        assert same == {f"{part}.features_extractor.frozen.{name}" for name in ("weight", "bias")}
    if cls is FullResetSAC:
        assert not differing(agent.critic.state_dict(), agent.critic_target.state_dict())


def test_what_cannot_be_drawn_is_named_at_once() -> None:
    options = {"policy_kwargs": policy_kwargs(is_known=False)}
    with pytest.raises(ValueError, match=r"'features_extractor.factor' cannot be drawn again: give its module"):
        tiny(ContinualSAC, tagged_sequence(), reset_critics=True, **options)
    agent = tiny(ContinualSAC, tagged_sequence(), **options)
    with pytest.raises(ValueError, match=r"'features_extractor.factor' cannot be drawn again: give its module"):
        agent.reset_critics = True
    # A layer may be exchanged after the agent has been made
    agent = tiny(ContinualSAC, tagged_sequence(), reset_critics=True)
    agent.critic.qf0[0].factor = nn.Parameter(th.ones(1))
    with pytest.raises(ValueError, match=r"'qf0.0.factor' cannot be drawn again"):
        agent.learn(1)
