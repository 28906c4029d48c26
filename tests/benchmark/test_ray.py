"""The Ray launcher, on a real Ray cluster of this machine."""

import os
import signal
from pathlib import Path

import pytest
from small_comparison import METHODS, outcome, small_comparison, start, steps, wait_for

ray = pytest.importorskip("ray")


def workers_of(folder: Path) -> list[int]:
    """Processes that hold a lock inside a folder open."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target.startswith(str(folder)) and target.endswith(".lock"):
            found.append(int(link.parts[2]))
    return found


def test_ray_finds_the_same_although_a_worker_is_killed_and_another_run_fails(uninterrupted, tmp_path):
    failing = "nbsp_masks_only"
    (tmp_path / failing / "seed_1" / "checkpoint_100_steps").mkdir(parents=True)  # of a run that has lost its settings
    process = start(small_comparison([*METHODS, failing]), tmp_path, "--launcher", "ray")
    killed: list[int] = []
    victim = tmp_path / METHODS[0] / "seed_1"
    try:
        wait_for(lambda: steps(victim) >= 300 or process.poll() is not None)
        killed = workers_of(victim)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        output, _ = process.communicate(timeout=500)
    finally:
        process.kill()
    assert process.returncode == 1, output[-6000:]
    assert len(killed) == 1
    assert outcome(tmp_path) == outcome(uninterrupted)
    assert "1 of 3 runs failed" in output and "masks only, seed 1: failed:" in output and "ValueError" in output
    assert output.count("masks only, seed 1: failed:") == 1, "it is not tried again"
    assert (tmp_path / failing / "seed_1" / "error.txt").exists()
