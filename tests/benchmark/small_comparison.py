"""A comparison small enough for tests: two methods on real Meta-World tasks, four phases of four episodes."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sb3_nbsp.benchmark.comparison import Comparison
from sb3_nbsp.tasks import latest_checkpoint

ROOT = Path(__file__).parents[2]
METHODS = ["nbsp_sac", "nbsp_replay_only"]
TITLES = {"nbsp_sac": "NBSP", "nbsp_replay_only": "replay only"}
SMALL = {
    "env_kwargs": {"steps_per_task": 200, "horizon": 50},
    "hyperparams": {
        "policy_kwargs": {"net_arch": [32, 32]},
        "learning_starts": 50,
        "batch_size": 32,
        "buffer_size": 1000,
        "identification_steps": 100,
        "memory_size": 100,
    },
    "n_eval_episodes": 1,
    "save_freq": 100,
}
EPISODE_ENDS = list(range(50, 801, 50))


def small_comparison(methods: list[str] | None = None, **changes) -> Comparison:
    return Comparison(["CoffeeButton-HandlePress"], methods or METHODS, [1], **{**SMALL, **changes})


def arguments_of(comparison: Comparison, folder: Path) -> list[str]:
    """Of ``python -m sb3_nbsp.benchmark``."""
    return shlex.split(comparison.command(folder))[3:]


def command(comparison: Comparison, folder: Path, *options: str) -> list[str]:
    return [sys.executable, *shlex.split(comparison.command(folder))[1:], *options]


def environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


def start(comparison: Comparison, folder: Path, *options: str) -> subprocess.Popen:
    return subprocess.Popen(
        command(comparison, folder, *options), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(comparison: Comparison, folder: Path, *options: str, expected: int = 0) -> str:
    process = start(comparison, folder, *options)
    try:
        output, _ = process.communicate(timeout=500)
    finally:
        process.kill()
    assert process.returncode == expected, output[-6000:]
    return output


def wait_for(condition: Callable[[], object], seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def steps(folder: Path) -> int:
    """Of the last checkpoint of a run."""
    checkpoint = latest_checkpoint(folder)
    return 0 if checkpoint is None else int(checkpoint.name.split("_")[1])


def processes_of(folder: Path) -> list[int]:
    """The processes that compute runs in a folder, by their lock files' holders."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "sb3_nbsp.benchmark.train" in line and str(folder) in line:
            found.append(int(path.parent.name))
    return found


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def outcome(folder: Path, methods: list[str] | None = None) -> dict[str, list[str]]:
    """What a comparison found, without what may differ: its times."""
    found = {}
    for method in methods or METHODS:
        run_folder = folder / method / "seed_1"
        result = json.loads((run_folder / "result.json").read_text())
        result.pop("minutes_since_last_start")
        files = ["success_matrix.csv", "training.csv", "neurons.json"]
        texts = [(run_folder / name).read_text() for name in files if (run_folder / name).exists()]
        found[method] = [*texts, json.dumps(result)]
    return found
