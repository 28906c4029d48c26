"""``benchmark run``: compute the runs of a comparison."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from sb3_nbsp.benchmark.key_value import key_value
from sb3_nbsp.benchmark.launcher_options import add_launcher_arguments, launcher
from sb3_nbsp.benchmark.methods import ABLATIONS, METHODS
from sb3_nbsp.benchmark.plan import PRESETS, Plan, sequence_names
from sb3_nbsp.benchmark.runner import run_plan


def epilog() -> str:
    """The names that there are."""
    methods = "\n".join(f"  {method.name:<24} {method.description}" for method in METHODS.values())
    groups = "\n".join(f"  {name:<24} {', '.join(names)}" for name, names in ABLATIONS.items())
    sequences = "\n".join(f"  {preset:<24} {', '.join(sequence_names(preset))}" for preset in PRESETS)
    return f"methods:\n{methods}\n\ngroups of methods, each an ablation:\n{groups}\n\nsequences by preset:\n{sequences}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    :param parser: gets the options of the command
    """
    parser.add_argument("--sequence", required=True, metavar="NAME", help="task sequence, see below")
    parser.add_argument("--methods", required=True, nargs="+", metavar="NAME", help="methods or groups of methods, see below")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="seeds of every method")
    parser.add_argument("--preset", default="laptop", help=f"size: {' or '.join(PRESETS)}")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the comparison")
    parser.add_argument("--n-eval-episodes", type=int, default=20, help="episodes per task after each phase")
    parser.add_argument("--save-freq", type=int, default=5_000, help="environment steps between two checkpoints of a run")
    for option, what in (("--env-kwargs", "arguments of the environment"), ("--hyperparams", "in place of the YAML file's")):
        parser.add_argument(option, type=key_value, nargs="+", default=[], metavar="KEY:VALUE", help=what)
    add_launcher_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """
    :param args: the options
    :return: exit status: 1 if a run failed
    """
    plan = Plan(
        args.sequence,
        args.preset,
        args.methods,
        args.seeds,
        dict(args.env_kwargs),
        dict(args.hyperparams),
        args.n_eval_episodes,
        args.save_freq,
    )
    console = Console()
    failed = run_plan(plan, args.out, launcher(args), console)
    if failed:
        console.print(f"{len(failed)} of {len(plan.cells(args.out))} runs failed; the same command tries them again")
        return 1
    console.print(f"All runs are done. Next: python -m sb3_nbsp.benchmark table {args.out}", soft_wrap=True)
    return 0
