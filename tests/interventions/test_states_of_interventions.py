"""The state of interventions in files: written, read back, told apart or refused."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from tagged_tasks import TaggedTask, differing, parameters, tagged_sequence, tiny

from sb3_nbsp import ContinualPPO, ContinualSAC
from sb3_nbsp.interventions import CycleReset, ExperienceReplay, GradientMasking, Intervention, Interventions


def masks_of_training(**options: Any) -> GradientMasking:
    return GradientMasking(identification_data="training", **options)


class Keeps(Intervention):
    """Has any state."""

    def attach(self, agent: Any) -> None:
        super().attach(agent)
        self._state: Any = None

    def state_dict(self) -> dict[str, Any]:
        return {"state": self._state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._state = state["state"]


@pytest.mark.parametrize("state", [np.float64(1), np.ones(2), {"a": [range(3)]}, lambda: 1, th.nn.Linear(2, 2)])
def test_a_state_that_a_file_could_not_give_back_is_refused_before_anything_is_written(state: Any, tmp_path: Path) -> None:
    agent = tiny(ContinualSAC, TaggedTask(1.0), interventions=[Keeps()])
    agent.save(tmp_path / "model")
    before = (tmp_path / "model.zip").read_bytes()
    agent.all_interventions.find(Keeps)._state = state
    with pytest.raises(
        ValueError, match=r"interventions: state_dict\(\) of Keeps holds .* cannot be read from a model's file"
    ):
        agent.save(tmp_path / "model")
    assert [each.name for each in tmp_path.iterdir()] == ["model.zip"] and (tmp_path / "model.zip").read_bytes() == before


@pytest.mark.parametrize(
    "state", [None, (1, 2.0, "a", True), {3: [{"a", "b"}]}, th.nn.Linear(2, 2).state_dict(), th.Size([2])]
)
def test_a_state_that_is_written_comes_back(state: Any, tmp_path: Path) -> None:
    agent = tiny(ContinualSAC, TaggedTask(1.0), interventions=[Keeps()])
    agent.all_interventions.find(Keeps)._state = state
    agent.save(tmp_path / "model")
    found = ContinualSAC.load(tmp_path / "model").all_interventions.find(Keeps)._state
    assert repr(found) == repr(state) or found == state


def test_two_of_a_kind_keep_their_states_apart() -> None:
    everyone = {"min_active_share": 0}
    first = masks_of_training(skill_proportion=0.1, **everyone)
    second = masks_of_training(skill_proportion=0.5, mask_type="hard", **everyone)
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[first, ExperienceReplay(50), second])
    agent.learn(100)
    state = agent.all_interventions.state_dict()
    assert list(state) == ["GradientMasking", "ExperienceReplay", "GradientMasking 2"]
    counts = [int((th.cat([*masking.masks.values()]) < 1).sum()) for masking in (first, second)]
    assert counts == [3 * round(1.6), 3 * 8]
    expected = copy.deepcopy((first.masks, second.masks))
    fresh = [masks_of_training(), ExperienceReplay(), masks_of_training(mask_type="hard")]
    other = tiny(ContinualSAC, tagged_sequence(), interventions=fresh)
    other.all_interventions.load_state_dict(state)
    assert differing(fresh[0].masks, expected[0]) == [] == differing(fresh[2].masks, expected[1])  # type: ignore[attr-defined]


def class_of_the_user(name: str, base: type[Intervention] = Intervention) -> type[Intervention]:
    return type(name, (base,), {"state_dict": lambda self: {"mine": 1}, "load_state_dict": lambda self, state: None})


@pytest.mark.parametrize("agent_class", [ContinualSAC, ContinualPPO])
def test_states_of_two_classes_of_one_name_could_not_be_told_apart(agent_class: Any) -> None:
    first, second = class_of_the_user("Mine"), class_of_the_user("Mine")
    first_class = r"there are two classes {0}, test_states_of_interventions\.{0}"
    message = first_class + r" and .*\.{0}, whose states a file could not tell apart: rename one"
    for name, given in {"Mine": [first(), second()], "CycleReset": [class_of_the_user("CycleReset")()]}.items():
        with pytest.raises(ValueError, match=message.format(name)):
            agent_class("MlpPolicy", TaggedTask(1.0), interventions=given, device="cpu")
    derived = class_of_the_user("CycleReset", CycleReset)()
    agent = agent_class("MlpPolicy", TaggedTask(1.0), interventions=[first(), first(), derived], device="cpu")
    assert list(agent.all_interventions.state_dict()) == ["Mine", "Mine 2", "CycleReset"]


def test_unknown_states_are_refused_unless_told_otherwise() -> None:
    hooks = Interventions([Intervention()])
    with pytest.raises(ValueError, match=r"GradientMasking.*lacks.*Intervention"):
        hooks.load_state_dict({"GradientMasking": {}})
    with pytest.raises(ValueError, match=r"replay buffer.*'Intervention 2'.*lacks.*Intervention"):
        hooks.load_memory_state({"Intervention 2": 1})
    hooks.load_state_dict({"GradientMasking": {}}, strict=False)
    hooks.load_state_dict({})


class Anchor(Intervention):
    """Remembers the network that was loaded."""

    def attach(self, agent: Any) -> None:
        super().attach(agent)
        self._anchor = parameters(agent)
        self._calls = self._count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": 7}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._count = state["count"]

    def on_load(self) -> None:
        assert self._count in (0, 7)
        self._anchor, self._calls = parameters(self.agent), self._calls + 1


@pytest.mark.parametrize("of_plain_sb3", [False, True])
def test_after_loading_an_intervention_sees_the_loaded_network_and_its_own_state(tmp_path: Path, of_plain_sb3: bool) -> None:
    own = {"interventions": [Anchor()]}
    saved = tiny(SAC, TaggedTask(1.0)) if of_plain_sb3 else tiny(ContinualSAC, TaggedTask(1.0), **own)
    saved.learn(40)
    saved.save(tmp_path / "model")
    loaded = ContinualSAC.load(tmp_path / "model", **({"interventions": [Anchor()]} if of_plain_sb3 else {}))
    (anchor,) = loaded.all_interventions
    assert differing(anchor._anchor, parameters(saved)) == []  # the entropy coefficient, which SB3 loads last, too
    assert (anchor._calls, anchor._count) == (1, 0 if of_plain_sb3 else 7)
    fresh = tiny(ContinualSAC, TaggedTask(1.0), seed=1, interventions=[Anchor()])
    (anchor,) = fresh.all_interventions
    assert anchor._calls == 0
    fresh.set_parameters(saved.get_parameters())
    assert anchor._calls == 1 and th.equal(anchor._anchor["actor.mu.weight"], saved.actor.mu.weight)


def test_pickles_hold_the_options_only() -> None:
    masking = GradientMasking(mask_alpha=0.3)
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[masking])
    agent.learn(60)
    assert masking.masks
    copied = pickle.loads(pickle.dumps(masking))
    assert vars(copied) == vars(GradientMasking(mask_alpha=0.3))
