"""``benchmark plasticity``: compare methods on single environments; return, and how plastic their networks stay."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from sb3_nbsp.benchmark.key_value import key_value
from sb3_nbsp.benchmark.launcher_options import add_launcher_arguments, launcher
from sb3_nbsp.benchmark.plasticity_plan import METHODS, PlasticityPlan
from sb3_nbsp.benchmark.plasticity_results import load_plasticity_results
from sb3_nbsp.benchmark.plasticity_table import plasticity_table
from sb3_nbsp.benchmark.runner import run_plan
from sb3_nbsp.files import atomic_path, atomic_write
from sb3_nbsp.needs_plots import needs_plots


def epilog() -> str:
    """The names that there are, and what the command leaves behind."""
    return (
        f"methods:\n  {', '.join(METHODS)}\n\nWrites plasticity.md, .csv, .png and .svg into DIR. The same command "
        "resumes where it was cut off."
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    :param parser: gets the options of the command
    """
    parser.add_argument("--envs", required=True, nargs="+", metavar="ID", help="ids of environments")
    parser.add_argument("--methods", required=True, nargs="+", metavar="NAME", help="methods, see below")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="seeds of every method")
    parser.add_argument("--n-timesteps", type=int, required=True, help="environment steps of a run")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the comparison")
    parser.add_argument("--n-eval-episodes", type=int, default=10, help="episodes of the evaluation at the end of a run")
    parser.add_argument("--save-freq", type=int, default=50_000, help="environment steps between two checkpoints of a run")
    parser.add_argument(
        "--hyperparams",
        type=key_value,
        nargs="+",
        default=[],
        metavar="KEY:VALUE",
        help="in place of the YAML file's, where a method has them",
    )
    add_launcher_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """
    :param args: the options
    :return: exit status: 1 if a run failed
    """
    hyperparams = dict(args.hyperparams)
    plan = PlasticityPlan(
        args.envs, args.methods, args.seeds, args.n_timesteps, hyperparams, args.n_eval_episodes, args.save_freq
    )
    console = Console()
    failed = run_plan(plan, args.out, launcher(args), console)
    _write(args.out, console)
    if failed:
        console.print(f"{len(failed)} of {len(plan.cells(args.out))} runs failed; the same command tries them again")
    return 1 if failed else 0


def _write(folder: Path, console: Console) -> None:
    results = load_plasticity_results(folder)
    table = plasticity_table(results)
    table.print(console)
    atomic_write(folder / "plasticity.md", table.markdown())
    atomic_write(folder / "plasticity.csv", table.csv())
    if not results.runs:
        return
    with needs_plots("plasticity"):
        from sb3_nbsp.benchmark.figures.drawing import DPI, svg_of
        from sb3_nbsp.benchmark.figures.plasticity import plasticity_figure
    figure = plasticity_figure(results)
    with atomic_path(folder / "plasticity.png") as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")
    atomic_write(folder / "plasticity.svg", svg_of(figure))
    console.print(f"Written: {', '.join(str(folder / f'plasticity.{kind}') for kind in ('md', 'csv', 'png', 'svg'))}")
