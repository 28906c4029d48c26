"""A run whose process is killed continues from its last checkpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from tagged_tasks import Spy, tagged_sequence, tiny

from sb3_nbsp import NBSPSAC
from sb3_nbsp.interventions import Phase
from sb3_nbsp.tasks import latest_checkpoint

CHILD = """
import json, time
from sb3_nbsp.tasks import SequenceCheckpoint
from test_killed_runs import describe, nbsp, slow_sequence

class Checkpoint(SequenceCheckpoint):
    def _on_rollout_start(self):
        before = self._last
        super()._on_rollout_start()
        if self._last != before:
            with open({folder!r} + "/described.jsonl", "a") as file:
                file.write(json.dumps(describe(self.model)) + "\\n")
    def _on_step(self):
        if self.num_timesteps == {kill_at}:
            print("waiting to be killed", flush=True)
            time.sleep(600)
        return True

agent = nbsp(slow_sequence(), goal_metric="step_success")
agent.learn(10_000, callback=Checkpoint(25, {folder!r}))
"""


def nbsp(env: Any, **kwargs: Any) -> Any:
    return tiny(NBSPSAC, env, memory_size=50, **kwargs)


def slow_sequence() -> gym.Env:
    """Nine successes in a row would end a phase, but it has six episodes only, and the first two have none."""
    return tagged_sequence(steps_per_task=60, mastery_threshold=1.0, mastery_window=9, success=2)


def describe(agent: Any) -> dict[str, Any]:
    """What must come back."""
    masking, replay = agent.all_interventions._all[:2]
    memory = replay.memory
    (progress,) = agent.env.env_method("get_progress")
    return {
        "steps": agent.num_timesteps,
        "updates": agent._n_updates,
        "phase": [agent.phase.index, agent.phase.task],
        "phase_steps": agent.phase_steps,
        "progress": progress,
        "masks": {name: mask.tolist() for name, mask in masking.masks.items()},
        "skills": {
            task: {name: skill.tolist() for name, skill in each.items()} for task, each in masking.skill_neurons.items()
        },
        "memory": None if memory is None else [memory.tasks, memory.observations.tolist(), memory.rewards.tolist()],
        "buffer": agent.replay_buffer.observations[: agent.replay_buffer.pos].tolist(),
        "actor": [parameter.flatten().tolist() for parameter in agent.actor.parameters()],
    }


@pytest.mark.parametrize("kill_at", [95, 112])
def test_a_killed_run_continues_from_its_last_checkpoint(tmp_path: Path, kill_at: int) -> None:
    code = CHILD.format(folder=str(tmp_path), kill_at=kill_at)
    here = Path(__file__).parent
    paths = [str(here), str(here.parent / "interventions"), str(here.parents[1])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "waiting to be killed\n"
        finally:
            child.send_signal(signal.SIGKILL)
        assert child.wait(60) == -signal.SIGKILL
    expected = json.loads((tmp_path / "described.jsonl").read_text().splitlines()[-1])
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None and checkpoint.name == f"checkpoint_{kill_at // 25 * 25}_steps"
    assert [path.name for path in tmp_path.glob("*checkpoint_*")] == [checkpoint.name]

    agent = NBSPSAC.load(checkpoint / "model.zip", env=slow_sequence())
    agent.load_replay_buffer(checkpoint / "replay_buffer.pkl")
    assert (
        expected["phase"] == [1, "blue"]
        and expected["memory"]
        and expected["masks"]
        and expected["progress"]["phase_steps"] > 0
    )
    agent.learn(0, reset_num_timesteps=False)
    assert json.loads(json.dumps(describe(agent))) == expected
    if kill_at == 112:
        assert expected["progress"]["successes"] == [False, False, True, True]
    spy = Spy()
    spy.attach(agent)
    agent.all_interventions._all.append(spy)
    agent.learn(10_000, reset_num_timesteps=False)
    # Phase 1 has its remaining steps only (rounded up to an episode of 10, which began anew), then two more
    remaining = -(-(60 - expected["progress"]["phase_steps"]) // 10) * 10
    assert [end["phase"] for end in spy.ends] == [Phase(1, "blue"), Phase(2, "red"), Phase(3, "blue")]
    assert agent.num_timesteps == expected["steps"] + remaining + 120
    assert agent.all_interventions._all[1].memory.tasks == {"red": 25, "blue": 25}
