"""A run of each method whose process is killed in the midst of a phase ends, once resumed, as one that was not killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tagged_tasks import differing
from test_resumed_runs import AGENTS, make, seed_generators, sequence, state_of

from sb3_nbsp.tasks import latest_checkpoint, load_checkpoint

NAMES = ["ANCLSAC", "EWCSAC", "ClonExSAC", "NPCSAC", "PackNetSAC", "CoTASPSAC"]
CHILD = """
import os, signal
from stable_baselines3.common.callbacks import BaseCallback
from sb3_nbsp.tasks import SequenceCheckpoint
from test_resumed_runs import make, seed_generators

class Killed(SequenceCheckpoint):
    def _on_step(self):
        if self.num_timesteps == 90:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._on_step()

for name in {names!r}:
    child = os.fork()
    if child == 0:
        agent = make(name)
        seed_generators(agent, 1)
        agent.learn(200, callback=Killed(40, {folder!r} + "/" + name))
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the checkpoints of killed runs, by name."""
    path = tmp_path_factory.mktemp("killed")
    here = Path(__file__).parent
    paths = [str(here), str(here.parent / "interventions"), str(here.parent), str(here.parents[1])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", CHILD.format(names=NAMES, folder=str(path))], env=env, check=True)
    return path


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("name", NAMES)
def test_a_killed_run_ends_as_one_that_was_not(folder: Path, name: str) -> None:
    whole = make(name)
    seed_generators(whole, 1)
    whole.learn(200)
    expected = state_of(whole)
    checkpoint = latest_checkpoint(folder / name)
    assert checkpoint is not None and checkpoint.name == "checkpoint_80_steps", "in the midst of the third phase"
    resumed = load_checkpoint(AGENTS[name][0], checkpoint, sequence())
    resumed.learn(120, reset_num_timesteps=False)
    assert resumed.num_timesteps == 200 and resumed.phase == whole.phase
    assert differing(expected, state_of(resumed)) == []
