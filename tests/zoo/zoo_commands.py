"""Run the zoo's commands as a user does, and the small settings of these tests."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENV_ID = "MW-CoffeeButton-DrawerClose-laptop-v0"
TASKS = ["coffee-button", "drawer-close"]
# Two phases of eight episodes
SEQUENCE = ["--env", ENV_ID, "--env-kwargs", "steps_per_task:400", "cycles:1", "horizon:50"]
SAC_PARAMS = ["learning_starts:100", "batch_size:32", "buffer_size:2000", "policy_kwargs:dict(net_arch=[32, 32])"]
NBSP_PARAMS = [*SAC_PARAMS, "identification_steps:200", "memory_size:150"]


def environment(**variables: str) -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", **variables}


def run(arguments: list[str], cwd: Path, expected: int = 0, **variables: str) -> str:
    """Run Python with arguments; its output."""
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
    )
    assert done.returncode == expected, f"{command} exited with {done.returncode}:\n{done.stdout[-6000:]}"
    return done.stdout


def train_py(*arguments: str, cwd: Path, expected: int = 0, **variables: str) -> str:
    return run([str(ROOT / "train.py"), *arguments], cwd, expected, **variables)


def sb3_nbsp(*arguments: str, cwd: Path, expected: int = 0, **variables: str) -> str:
    return run(["-m", "sb3_nbsp.zoo.cli", *arguments], cwd, expected, **variables)
