"""A run of a method that is told the task, killed in the midst of a phase, continues from its last checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from tagged_tasks import tagged_sequence, tiny

import sb3_nbsp
from sb3_nbsp.tasks import latest_checkpoint

OPTIONS: dict[str, dict[str, Any]] = {
    "PackNetSAC": {"retrain_steps": 5},
    "CoTASPSAC": {"weight_steps": 3, "code_steps": 2, "distill_steps": 3, "policy_kwargs": {"net_arch": [16, 16]}},
}
CHILD = """
import time
import torch as th
from sb3_nbsp.tasks import SequenceCheckpoint
from test_killed_task_aware_runs import agent_of, describe, tagged_sequence

class Checkpoint(SequenceCheckpoint):
    def _on_rollout_start(self):
        before = self._last
        super()._on_rollout_start()
        if self._last != before:
            th.save(describe(self.model), {folder!r} + "/described.pt")
    def _on_step(self):
        if self.num_timesteps == 155:
            print("waiting to be killed", flush=True)
            time.sleep(600)
        return True

agent_of({name!r}).learn(10_000, callback=Checkpoint(50, {folder!r}))
"""


def agent_of(name: str) -> Any:
    return tiny(getattr(sb3_nbsp, name), tagged_sequence(), **OPTIONS[name])


def describe(agent: Any) -> dict[str, Any]:
    """What must come back: the state of the method, and what the agent does on each task."""
    observations, actions = np.linspace(-1, 1, 40, dtype=np.float32).reshape(10, 4), {}
    for task in ("red", "blue"):
        agent.set_task(task)
        actions[task] = th.as_tensor(agent.predict(observations, deterministic=True)[0])
    agent.set_task(agent.phase.task)
    return {"state": agent.all_interventions.state_dict(), "actions": actions, "task": agent.phase.task}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_killed_run_continues(name: str, tmp_path: Path) -> None:
    here = Path(__file__).parent
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", CHILD.format(folder=str(tmp_path), name=name)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "waiting to be killed\n"
        finally:
            child.send_signal(signal.SIGKILL)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None and checkpoint.name == "checkpoint_150_steps"
    agent = getattr(sb3_nbsp, name).load(checkpoint / "model.zip", env=tagged_sequence())
    agent.load_replay_buffer(checkpoint / "replay_buffer.pkl")
    expected, found = th.load(tmp_path / "described.pt"), describe(agent)
    assert expected["task"] == found["task"] == "red"
    assert str(expected["state"]) == str(found["state"])
    for task, actions in expected["actions"].items():
        assert th.equal(actions, found["actions"][task])
    agent.learn(100, reset_num_timesteps=False)
    assert (agent.phase.index, agent.num_timesteps) == (3, 240)
    assert th.equal(describe(agent)["actions"]["red"], expected["actions"]["red"]) is (name == "PackNetSAC")
