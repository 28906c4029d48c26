"""
NBSP against plain SAC on a cycle of two real Meta-World tasks, side by side on two cores.

Interrupted, it continues where it was when it is started again.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from sb3_nbsp.benchmark.cell import read_matrix
from sb3_nbsp.benchmark.plots import plot_runs
from sb3_nbsp.tasks import latest_checkpoint

ENV_ID = "MW-CoffeeButton-HandlePress-laptop-v0"
METHODS = {"nbsp_sac": "NBSP", "continual_sac": "vanilla SAC"}
QUICK_ENV = {"steps_per_task": 1_400}
QUICK_HYPERPARAMS = {"learning_starts": 500}
STEPS_PER_TASK = 100_000

console = Console()


def start(algo: str, seed: int, folder: Path, quick: bool) -> subprocess.Popen[bytes]:
    """Start a run in a process of its own, with one thread, its output in a file."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "sb3_nbsp.benchmark.cell", "--algo", algo, "--env", ENV_ID, "--seed", str(seed)]
    command += ["--folder", str(folder)]
    if quick:
        hyperparams = {**QUICK_HYPERPARAMS, **({"identification_steps": 1_000} if algo == "nbsp_sac" else {})}
        command += ["--env-kwargs", json.dumps(QUICK_ENV), "--hyperparams", json.dumps(hyperparams)]
        command += ["--n-eval-episodes", "3", "--save-freq", "1000"]
    log = (folder / "log.txt").open("ab")
    return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})


def show(bar: Progress, task: TaskID, folder: Path, steps_per_task: int) -> None:
    """Bring a progress bar up to date with what its run has written."""
    try:
        progress = json.loads((folder / "progress.json").read_text())
    except FileNotFoundError:
        return
    phase, n_phases = progress["phase"], len(progress["tasks"]) * progress["cycles"]
    recent = progress["successes"]
    done = n_phases if progress["sequence_over"] else phase + min(progress["phase_steps"] / steps_per_task, 1)
    task_name = progress["tasks"][phase % len(progress["tasks"])]
    # Of the last episodes; short enough for 80 columns
    solved = f", {sum(recent)}/{len(recent)} solved" if recent else ""
    text = f"{phase + 1}/{n_phases} {task_name}, step {progress['step']}{solved}"
    bar.update(task, completed=done, total=n_phases, state=text)


def train(folders: dict[str, Path], seed: int, quick: bool) -> None:
    """Run all methods at the same time and show how far they are."""
    steps_per_task = QUICK_ENV["steps_per_task"] if quick else STEPS_PER_TASK
    processes = {algo: start(algo, seed, folder, quick) for algo, folder in folders.items()}
    columns = TextColumn("{task.description:12}"), BarColumn(12), TextColumn("{task.fields[state]}"), TimeElapsedColumn()
    failed: list[str] = []
    try:
        with Progress(*columns, console=console) as bar:
            tasks = {algo: bar.add_task(METHODS[algo], total=4, state="starting") for algo in folders}
            is_over = False
            while not is_over:
                codes = {algo: process.poll() for algo, process in processes.items()}
                failed = [algo for algo, code in codes.items() if code not in (None, 0)]
                is_over = bool(failed) or None not in codes.values()
                for algo, folder in folders.items():
                    show(bar, tasks[algo], folder, steps_per_task)
                time.sleep(0 if is_over else 0.5)
    except KeyboardInterrupt:
        console.print("Interrupted. Start the demo again to continue from the last checkpoints.")
        sys.exit(130)
    finally:
        for process in processes.values():
            process.terminate()
    for algo in failed:
        log = (folders[algo] / "log.txt").read_text()
        console.print(f"{METHODS[algo]} failed:\n{log[-3000:]}", markup=False)
        sys.exit(1)


def report(folders: dict[str, Path], image: Path) -> None:
    """Print the success matrices and the metrics, and draw the picture."""
    for algo, folder in folders.items():
        matrix = read_matrix(folder)
        table = Table("after phase", *matrix.tasks, title=f"{METHODS[algo]}: success rate on each task")
        for phase, (task, row) in enumerate(zip(matrix.phase_tasks, matrix.rows, strict=True)):
            table.add_row(f"{phase + 1} ({task})", *(f"{rate:.2f}" for rate in row))
        console.print(table)
    table = Table("", "ASR ↑", "FM ↓", "FWT ↑", "steps", title="ASR: success, FM: forgetting, FWT: learning")
    for algo, folder in folders.items():
        result = json.loads((folder / "result.json").read_text())
        table.add_row(METHODS[algo], *(f"{result[name]:.2f}" for name in ("ASR", "FM", "FWT")), f"{result['steps']}")
    console.print(table)
    plot_runs({METHODS[algo]: folder for algo, folder in folders.items()}, image, title=ENV_ID)
    console.print(f"Picture: {image}")


def main() -> None:
    """Train, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps only: shows that it works, learns nothing")
    parser.add_argument("--seed", type=int, default=1, help="seed of both runs")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the results")
    args = parser.parse_args()
    out = args.out / f"demo{'-quick' if args.quick else ''}-seed{args.seed}"
    folders = {algo: out / algo for algo in METHODS}
    if args.quick:
        console.print("Quick run: at this size NOTHING HAS BEEN LEARNED; the numbers below show only that it works.")
    for algo, folder in folders.items():
        if (folder / "result.json").exists():
            console.print(f"{METHODS[algo]} is done. To run it again, delete {folder}", soft_wrap=True)
        elif (checkpoint := latest_checkpoint(folder)) is not None:
            console.print(f"{METHODS[algo]} continues from {checkpoint.name}")
    train(folders, args.seed, args.quick)
    report(folders, out / "demo.png")
    if args.quick:
        console.print("Quick run: nothing has been learned at this size.")


if __name__ == "__main__":
    main()
