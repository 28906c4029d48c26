"""
NBSP against plain SAC on a HalfCheetah that is asked to run forwards, then backwards, twice, side by side on two cores.

If it is interrupted, start it again to resume. It does the same as ``sb3-nbsp benchmark run`` with two methods and
one seed.
"""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sb3_nbsp.benchmark.comparison import Comparison
from sb3_nbsp.benchmark.figures import overview_figure
from sb3_nbsp.benchmark.frames import Results, load_results
from sb3_nbsp.benchmark.launchers import LocalLauncher
from sb3_nbsp.benchmark.run import run_comparison
from sb3_nbsp.figure_style import save

SEQUENCE = "HalfCheetah-Directions-v0"
METHODS = ["nbsp_sac", "continual_sac"]
# A few steps only: shows that it works, learns nothing
QUICK = {
    "env_kwargs": {"steps_per_task": 200},
    "hyperparams": {"learning_starts": 100, "identification_steps": 200},
    "n_eval_episodes": 2,
    "save_freq": 150,
}

console = Console()


def report(results: Results, image: Path) -> None:
    """Print the success matrices and the metrics, and draw the picture."""
    for method, success in results.success.groupby("method", observed=True):
        matrix = success.pivot(index=["phase", "trained"], columns="task", values="success")[success.task.unique()]
        table = Table("after phase", *matrix.columns, title=f"{method}: success rate on each task")
        for (phase, task), row in matrix.iterrows():
            table.add_row(f"{phase} ({task})", *(f"{rate:.2f}" for rate in row))
        console.print(table)
    table = Table("", "ASR ↑", "FM ↓", "FWT ↑", "steps", title="ASR: success, FM: forgetting, FWT: learning")
    for run in results.runs.itertuples():
        table.add_row(run.method, *(f"{value:.2f}" for value in (run.ASR, run.FM, run.FWT)), f"{run.steps:,}")
    console.print(table)
    save(overview_figure(results, SEQUENCE), image)
    console.print(f"Picture: {image}", soft_wrap=True)


def main() -> int:
    """Train, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only a few steps, to show that it works; nothing is learned")
    parser.add_argument("--seed", type=int, default=1, help="seed of both runs")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the results")
    args = parser.parse_args()
    out = args.out / f"demo{'-quick' if args.quick else ''}-seed{args.seed}"
    comparison = Comparison([SEQUENCE], METHODS, [args.seed], **(QUICK if args.quick else {}))  # type: ignore[arg-type]
    warning = "Quick run: at this size NOTHING HAS BEEN LEARNED; the numbers show only that it works."
    if args.quick:
        console.print(warning)
    try:
        if run_comparison(comparison, out, LocalLauncher(jobs=2), console):
            return 1
    except KeyboardInterrupt:
        console.print("Interrupted. Start the demo again to continue from the last checkpoints.")
        return 130
    report(load_results(out), out / "demo.png")
    if args.quick:
        console.print(warning)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
