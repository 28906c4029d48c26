"""PackNet, whatever task it plays: evaluations, files, copies and parameters have all tasks."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch as th
from packnet_agents import OBSERVATIONS, Ends, mean_actions, packnet
from stable_baselines3 import SAC
from tagged_tasks import differing, parameters, tagged_sequence, tiny

from sb3_nbsp import ContinualSAC, PackNetSAC
from sb3_nbsp.interventions import (
    Intervention,
    PackNet,
)
from sb3_nbsp.tasks import SequenceEvaluation


class Heard(Intervention):
    """What the policy does when it has been told a task, behind PackNet."""

    def __init__(self) -> None:
        self._heard: list[tuple[int, str, np.ndarray]] = []

    def on_task(self, task: str) -> None:
        actions = self.agent.policy.predict(OBSERVATIONS, deterministic=True)[0]
        self._heard.append((self.agent.phase.index, task, actions))


def test_an_evaluation_plays_each_task_with_its_weights() -> None:
    heard, ends = Heard(), Ends()
    agent = packnet(tagged_sequence(), interventions=[ends, heard])
    agent.learn(190, SequenceEvaluation(n_eval_episodes=1, progress_bar=False))
    known = {task: actions for task, actions, *_ in ends._ends[:2]}
    for task in known:
        told = [actions for index, name, actions in heard._heard if (name, index > 0) == (task, True)]
        assert len(told) >= 4
        # The evaluation at the end of the task's own phase comes ahead of packing
        for actions in told[3:] if task == "blue" else told:
            np.testing.assert_array_equal(actions, known[task])


@pytest.mark.parametrize("steps", [150, 100, 60])
def test_a_saved_run_goes_on_as_one_that_was_not(steps: int, tmp_path: Any) -> None:
    """Also in the third phase, in which the weights of the second task are out of sight."""
    agent = packnet(tagged_sequence())
    agent.learn(steps)
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    loaded = PackNetSAC.load(tmp_path / "model", env=tagged_sequence())
    loaded.load_replay_buffer(tmp_path / "buffer")
    own, other = (each.all_interventions.find(PackNet) for each in (agent, loaded))
    assert own.state_dict().keys() == other.state_dict().keys()
    assert differing(own.owners, other.owners) == []
    again = copy.deepcopy(agent)
    for task in ("red", "blue"):
        np.testing.assert_array_equal(mean_actions(loaded, task), mean_actions(agent, task))
        np.testing.assert_array_equal(mean_actions(again, task), mean_actions(agent, task))
    actions = {task: mean_actions(agent, task) for task in ("red", "blue")}
    loaded.learn(240 - steps, reset_num_timesteps=False)
    assert loaded.num_timesteps == 240
    if steps > 120:
        np.testing.assert_array_equal(mean_actions(loaded, "red"), actions["red"])


@pytest.mark.parametrize("revisit", ["reuse", "new"])
def test_the_plain_agents_first_phase_can_be_taken_over(revisit: str, tmp_path: Any) -> None:
    plain = tiny(ContinualSAC, tagged_sequence())
    plain.pause_at_boundary()
    plain.learn(240)
    plain.save(tmp_path / "model")
    plain.save_replay_buffer(tmp_path / "buffer")
    loaded = PackNetSAC.load(tmp_path / "model", env=tagged_sequence(), retrain_steps=2, revisit=revisit)
    loaded.load_replay_buffer(tmp_path / "buffer")
    loaded.learn(50, reset_num_timesteps=False)
    owners = loaded.all_interventions.find(PackNet).owners["latent_pi.2.weight"]
    assert th.bincount(owners.flatten()).tolist() == ([32, 32] if revisit == "reuse" else [16, 48])


def test_a_loaded_agent_that_is_not_told_plays_its_last_task(tmp_path: Any) -> None:
    agent = packnet(tagged_sequence())
    agent.learn(150)
    agent.save(tmp_path / "model")
    loaded = PackNetSAC.load(tmp_path / "model")
    with pytest.warns(UserWarning, match=r"acts as on its last one, 'red', until set_task\(task\)"):
        actions = loaded.predict(OBSERVATIONS, deterministic=True)[0]
    np.testing.assert_array_equal(actions, mean_actions(agent, "red"))
    loaded.set_task("blue")
    np.testing.assert_array_equal(loaded.predict(OBSERVATIONS, deterministic=True)[0], mean_actions(agent, "blue"))
    with pytest.raises(ValueError, match=r"no task 'bleu'; did you mean blue\? \(tasks: red, blue\)"):
        loaded.set_task("bleu")


def test_parameters_that_are_given_are_played_as_the_last_task() -> None:
    agent = packnet(tagged_sequence()).learn(80)
    agent.set_task("red")
    agent.set_parameters(agent.get_parameters())
    with pytest.warns(UserWarning, match="acts as on its last one, 'blue'"):
        agent.predict(OBSERVATIONS)


def test_parameters_and_files_hold_all_tasks_whatever_is_played(tmp_path: Any) -> None:
    agent = packnet(tagged_sequence()).learn(119)
    own = agent.phase.task
    actions = {task: mean_actions(agent, task) for task in ("red", "blue")}
    whole = parameters(agent)
    agent.set_task("red")
    given = agent.get_parameters()
    agent.save(tmp_path / "model")
    np.testing.assert_array_equal(agent.predict(OBSERVATIONS, deterministic=True)[0], actions["red"])
    # What is given later holds for all tasks, too, and what was taken does not change with it
    agent.set_parameters({**given, "policy": {name: each + 1.0 for name, each in given["policy"].items()}})
    agent.set_task(own)
    changed = {name: each + (name != "log_ent_coef") for name, each in whole.items()}
    assert differing(parameters(agent), changed) == []
    agent.set_parameters(given)
    loaded = PackNetSAC.load(tmp_path / "model", device="cpu")
    for task in ("red", "blue"):
        np.testing.assert_array_equal(mean_actions(agent, task), actions[task])
        np.testing.assert_array_equal(mean_actions(loaded, task), actions[task])
    plain = SAC.load(tmp_path / "model", device="cpu")
    assert differing(parameters(plain), whole) == []


def test_a_copy_plays_the_task_that_was_told() -> None:
    agent = packnet(tagged_sequence()).learn(119)
    agent.set_task("red")
    actions = agent.predict(OBSERVATIONS, deterministic=True)[0]
    again = copy.deepcopy(agent)
    np.testing.assert_array_equal(again.predict(OBSERVATIONS, deterministic=True)[0], actions)
    agent.set_task("blue")
    assert (agent.predict(OBSERVATIONS, deterministic=True)[0] != actions).any()
