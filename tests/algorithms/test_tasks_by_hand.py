"""Tasks that are changed by hand, with ``start_phase()``, also when the agent has been saved and loaded in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tagged_tasks import TaggedTask, tiny

from sb3_nbsp import NBSPSAC, ContinualSAC, PackNetSAC


@pytest.mark.parametrize(
    ("cls", "options"), [(NBSPSAC, {"identification": "random"}), (PackNetSAC, {"n_tasks": 2, "retrain_steps": 5})]
)
def test_a_loaded_agent_begins_another_phase(cls: Any, options: dict[str, Any], tmp_path: Path) -> None:
    """Before ``learn()``, it has no logger yet, to which interventions write at the end of a phase."""
    agent = tiny(cls, TaggedTask(1.0), **options)
    agent.start_phase("red")
    agent.learn(40)
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    loaded = cls.load(tmp_path / "model", env=TaggedTask(2.0))
    loaded.load_replay_buffer(tmp_path / "buffer")
    loaded.start_phase("blue")
    loaded.learn(30, reset_num_timesteps=False)
    assert (loaded.phase.index, loaded.phase.task, loaded.phase_steps) == (1, "blue", 30)
    first = next(iter(loaded.all_interventions))
    assert set(first.skill_neurons if cls is NBSPSAC else first.task_numbers) >= {"red"}


def test_agents_can_share_a_dictionary_of_policy_kwargs() -> None:
    shared = {"net_arch": [8]}
    tiny(ContinualSAC, TaggedTask(1.0), policy_kwargs=shared)
    assert shared == {"net_arch": [8]}
