"""Tasks that are changed by hand, with ``start_phase()``, also when the agent has been saved and loaded in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tagged_tasks import TaggedTask, differing, parameters, tagged_sequence, tiny

from sb3_nbsp import NBSPSAC, ContinualSAC, CoTASPSAC, FullResetPPO, PackNetSAC


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


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (PackNetSAC, {"n_tasks": 2, "retrain_steps": 5}),
        (NBSPSAC, {"identification": "random", "replay_interval": 2}),
        # Among so many units there are some for each task, whatever the seed
        (CoTASPSAC, {"distill_steps": 5, "policy_kwargs": {"net_arch": [64]}}),
        (FullResetPPO, {}),
    ],
)
@pytest.mark.parametrize("seed", [0, None])
def test_a_loaded_agent_ends_as_one_that_was_not_saved(cls: Any, options: dict[str, Any], seed: Any, tmp_path: Path) -> None:
    """What it draws in start_phase() is what the saved agent would have drawn next; acting begins with the seed."""
    agent = tiny(cls, TaggedTask(1.0), seed=seed, **options)
    agent.start_phase("red")
    agent.learn(40)
    agent.save(tmp_path / "model")
    if cls is not FullResetPPO:
        agent.save_replay_buffer(tmp_path / "buffer")
    ends = []
    for is_loaded in (False, True):
        if is_loaded:
            agent = cls.load(tmp_path / "model")
            if cls is not FullResetPPO:
                agent.load_replay_buffer(tmp_path / "buffer")
        agent.set_env(env := agent._wrap_env(TaggedTask(2.0)))
        env.seed(3)
        state = np.random.get_state()[1].copy()
        agent.start_phase("blue")
        assert not is_loaded or np.array_equal(state, np.random.get_state()[1])
        agent.learn(40, reset_num_timesteps=False)
        ends.append(parameters(agent))
    assert differing(*ends) == []


@pytest.mark.parametrize("cls", [PackNetSAC, CoTASPSAC])
def test_what_another_agent_has_learned_is_a_task_of_its_own(cls: Any, tmp_path: Path) -> None:
    agent = tiny(ContinualSAC, TaggedTask(1.0))
    agent.start_phase("red")
    agent.learn(40)
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    options = {"n_tasks": 2, "retrain_steps": 2} if cls is PackNetSAC else {"distill_steps": 2}
    loaded = cls.load(tmp_path / "model", env=TaggedTask(2.0), **options)
    loaded.load_replay_buffer(tmp_path / "buffer")
    loaded.start_phase("blue")
    loaded.learn(30, reset_num_timesteps=False)
    (part,) = loaded.all_interventions
    assert part.task_numbers == {"red": 0, "blue": 1} and part.knows_a_task


def test_a_phase_does_not_end_on_observations_that_nothing_normalizes(tmp_path: Path) -> None:
    agent = tiny(ContinualSAC, VecNormalize(DummyVecEnv([lambda: TaggedTask(1.0)])))
    agent.start_phase("red")
    agent.learn(30)
    agent.save(tmp_path / "model")
    loaded = ContinualSAC.load(tmp_path / "model")
    with pytest.raises(ValueError, match=r"the environment normalizes: first set_env\(\)"):
        loaded.start_phase("blue")
    loaded.set_env(agent.env)
    loaded.start_phase("blue")
    assert loaded.phase.index == 1


def test_agents_can_share_a_dictionary_of_policy_kwargs() -> None:
    shared = {"net_arch": [8]}
    tiny(ContinualSAC, TaggedTask(1.0), policy_kwargs=shared)
    assert shared == {"net_arch": [8]}


@pytest.mark.parametrize("cls", [NBSPSAC, FullResetPPO])
@pytest.mark.parametrize("steps", [45, 1000])
def test_from_a_sequence_to_another_environment_and_back(cls: Any, steps: int, tmp_path: Path) -> None:
    """It is left in the midst of its second phase, or when it is over."""
    agent = tiny(cls, tagged_sequence(cycles=1, steps_per_task=40)).learn(steps)
    agent.save(tmp_path / "model")
    loaded = cls.load(tmp_path / "model", env=TaggedTask(3.0))
    for each in (agent, loaded):
        if each is agent:
            each.set_env(TaggedTask(3.0))
        each.learn(20, reset_num_timesteps=False)
        assert (each.phase.index, each.phase.task) == (1, "blue")
        each.start_phase("green")
        each.learn(20, reset_num_timesteps=False)
        assert (each.phase.index, each.phase.task, each.n_finished_phases) == (2, "green", 2)
        each.set_env(tagged_sequence(cycles=1, steps_per_task=40))
        each.learn(20, reset_num_timesteps=False)
        assert (each.phase.index, each.phase.task, each.n_finished_phases) == (3, "red", 3)
        each.learn(1000, reset_num_timesteps=False)
        assert each.n_finished_phases == 5
