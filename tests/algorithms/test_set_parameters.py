"""Parameters that do not fit an agent change nothing of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch as th
from tagged_tasks import TaggedTask, differing, tagged_sequence, tiny

from sb3_nbsp import NBSPSAC, PISAC, ContinualPPO, ContinualSAC


def everything(agent: Any) -> dict[str, Any]:
    moments = {
        f"{name}.{index}.{key}": value.clone()
        for name, optimizer in enumerate(agent._optimizers())
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }
    return {**{name: value.clone() for name, value in agent.policy.state_dict().items()}, **moments}


def wider(cls: type) -> dict[str, Any]:
    """Its first layers would fit."""
    return dict(tiny(cls, TaggedTask(1.0), policy_kwargs={"net_arch": [8, 9]}, seed=1).learn(30).get_parameters())


@pytest.mark.parametrize("cls", [ContinualSAC, ContinualPPO])
@pytest.mark.parametrize("exact_match", [True, False])
def test_parameters_of_other_networks(cls: type, exact_match: bool) -> None:
    agent = tiny(cls, TaggedTask(1.0)).learn(30)
    own, before = tiny(cls, TaggedTask(1.0), seed=1).get_parameters(), everything(agent)
    misnamed = {**own, "no_network": own["policy"]}
    for wrong in (wider(cls), {**own, "policy": wider(cls)["policy"]}, misnamed):
        with pytest.raises((RuntimeError, ValueError), match=r"size mismatch|doesn't match|no_network"):
            agent.set_parameters(wrong, exact_match=exact_match)
        assert differing(before, everything(agent)) == []
    del own["policy.optimizer" if cls is ContinualPPO else "actor.optimizer"]
    if exact_match:
        with pytest.raises(ValueError, match="Names of parameters do not match"):
            agent.set_parameters(own)
        assert differing(before, everything(agent)) == []
    else:
        agent.set_parameters(own, exact_match=False)
        assert all(th.equal(value, own["policy"][name]) for name, value in agent.policy.state_dict().items())
    agent.learn(10)


def test_a_file_whose_interventions_are_others(tmp_path: Path) -> None:
    nbsp = tiny(NBSPSAC, tagged_sequence(cycles=1, steps_per_task=30), seed=1).learn(100)
    nbsp.save(tmp_path / "nbsp")
    agent = tiny(ContinualSAC, TaggedTask(1.0)).learn(30)
    before = everything(agent)
    with pytest.raises(ValueError, match="GradientMasking"):
        agent.set_parameters(tmp_path / "nbsp")
    assert differing(before, everything(agent)) == []


def test_networks_with_another_number_of_heads() -> None:
    injected = tiny(PISAC, tagged_sequence(cycles=1, steps_per_task=30)).learn(100)
    agent = tiny(PISAC, TaggedTask(1.0)).learn(30)
    before = everything(agent)
    with pytest.raises(RuntimeError):
        agent.set_parameters(injected.get_parameters())
    assert differing(before, everything(agent)) == []
