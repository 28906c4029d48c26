"""Compare methods on task sequences or on other environments, and read the results as a table, figures or a report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from sb3_nbsp.benchmark.comparison import PRESETS, Comparison, key_value, sequence_names
from sb3_nbsp.benchmark.methods import ABLATIONS, METHODS
from sb3_nbsp.files import atomic_write
from sb3_nbsp.machine import usable_cores

FORMATS = {"markdown": "md", "latex": "tex", "csv": "csv"}
_FOLDER = "the folder of a comparison (that of `run --out`)"


def _run(args: argparse.Namespace) -> int:
    from sb3_nbsp.benchmark.launchers import LocalLauncher, RayLauncher
    from sb3_nbsp.benchmark.run import run_comparison

    comparison = Comparison.from_arguments(args)
    is_local = args.launcher == "local"
    launcher = LocalLauncher(args.jobs) if is_local else RayLauncher(args.address, args.cpus_per_run, args.gpus_per_run)
    console = Console()
    failed = run_comparison(comparison, args.out, launcher, console, share=not args.own_first_phases)
    if failed:
        console.print(f"{len(failed)} of {len(comparison.runs(args.out))} runs failed; the same command tries them again")
        return 1
    console.print(f"All runs are done. Next: python -m sb3_nbsp.benchmark table {args.out}", soft_wrap=True)
    return 0


def _table(args: argparse.Namespace) -> None:
    from sb3_nbsp.benchmark.frames import load_results
    from sb3_nbsp.benchmark.rendering import render
    from sb3_nbsp.benchmark.table import build_tables

    tables = build_tables([load_results(folder) for folder in args.folders], args.paper)
    if args.format is not None:
        sys.stdout.write(render(tables, args.format))
        return
    console = Console()
    for table in tables:
        table.print(console)
    for name in dict.fromkeys(table.file for table in tables):
        own = [table for table in tables if table.file == name]
        for form, suffix in FORMATS.items():
            atomic_write(f"{name}.{suffix}", render(own, form))
        console.print(f"Written: {name}.md, .tex, .csv", markup=False, highlight=False, soft_wrap=True)


def _plot(args: argparse.Namespace) -> None:
    from sb3_nbsp.benchmark.figures import write_figures
    from sb3_nbsp.benchmark.frames import load_results

    results = load_results(args.folder)
    for sentence in (*(f"{run.name}: {reason}" for run, reason in results.left_out), *results.damaged):
        print(f"Left out: {sentence}")
    for path in write_figures(results, args.out):
        print(path)


def _report(args: argparse.Namespace) -> None:
    from sb3_nbsp.benchmark.frames import load_results
    from sb3_nbsp.benchmark.report import write_report

    print(write_report(load_results(args.folder), args.out))


def _zero(args: argparse.Namespace) -> None:
    from sb3_nbsp.benchmark.zero import zero

    env_kwargs = None if args.env_kwargs is None else dict(args.env_kwargs)
    options = {name: getattr(args, name) for name in ("n_eval_episodes", "networks", "seed")}
    path = zero(args.model, args.env, env_kwargs, **options)
    Console().print(f"Written: {path}", markup=False, highlight=False, soft_wrap=True)


# What each command does
COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int | None], str]] = {
    "run": (_run, "train all runs of a comparison, or resume them"),
    "table": (_table, "print every measure of every method, with intervals"),
    "plot": (_plot, "draw the figures, as PNG and SVG"),
    "report": (_report, "write tables, figures and configuration as one HTML page"),
    "zero": (_zero, "set the skill neurons of a trained model to zero and evaluate it"),
}


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    own = "sb3-nbsp benchmark"
    prog = own if sys.argv[0] == own else "python -m sb3_nbsp.benchmark"
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    texts: dict[str, dict[str, Any]] = {
        name: {"help": what, "description": f"{what[0].upper()}{what[1:]}."} for name, (_, what) in COMMANDS.items()
    }
    commands = {name: subparsers.add_parser(name, formatter_class=_Formatter, **text) for name, text in texts.items()}
    add = commands["run"].add_argument
    Comparison.add_arguments(commands["run"])
    commands["run"].epilog = _names()
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the comparison")
    own = "train each run's first phase separately, not once for all methods that are the same agent until it ends"
    add("--own-first-phases", action="store_true", help=own)
    add("--launcher", choices=["local", "ray"], default="local", help="where to train")
    add("--jobs", type=int, default=usable_cores(), help="local: number of runs at a time")
    add("--address", help="ray: address of a running cluster; without it, Ray is started on this machine")
    add("--cpus-per-run", type=int, default=1, help="ray: cores per run")
    add("--gpus-per-run", type=float, default=0.0, help="ray: share of a GPU per run")

    add = commands["table"].add_argument
    add("folders", nargs="+", metavar="DIR", help=f"{_FOLDER}; with several, there is also a table over all of them")
    add("--paper", action="store_true", help="add the paper's rows")
    form = "only print the tables, in this format; default: print readable tables and write DIR/table.md, .tex and .csv"
    add("--format", choices=FORMATS, help=form)
    for name, default in (("plot", "plots"), ("report", "report.html")):
        commands[name].add_argument("folder", type=Path, metavar="DIR", help=_FOLDER)
        commands[name].add_argument("--out", type=Path, metavar="PATH", help=f"where to write (default: DIR/{default})")

    add = commands["zero"].add_argument
    add("model", metavar="MODEL", help="zip of an NBSPSAC model, or the folder of a run")
    add("--env", help="id of a task sequence; default: that of the run")
    env_kwargs = "arguments of the environment; default: those of the run"
    add("--env-kwargs", type=key_value, nargs="+", metavar="KEY:VALUE", help=env_kwargs)
    add("--n-eval-episodes", type=int, default=20, help="episodes per task and row")
    networks = "networks whose neurons are set to zero; the critics, qf0 and qf1, do not act"
    add("--networks", nargs="+", default=["actor"], help=networks)
    add("--seed", type=int, default=0, help="seed of the choice of random neurons")
    return parser


def _names() -> str:
    methods = "\n".join(f"  {method.name:<24} {method.title}: {method.description}" for method in METHODS.values())
    groups = "\n".join(f"  {name:<24} {', '.join(names)}" for name, names in ABLATIONS.items())
    sequences = "\n".join(f"  {preset:<24} {', '.join(sequence_names(preset))}" for preset in PRESETS)
    return f"methods:\n{methods}\n\ngroups of methods:\n{groups}\n\nsequences by preset:\n{sequences}"


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands, with the arguments of the command line or others; the exit status."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    try:
        return COMMANDS[args.command][0](args) or 0
    except (ValueError, ImportError) as error:
        print(f"{parser.prog} {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resumes = " The same command resumes from the last checkpoints." if args.command == "run" else ""
        print(f"Interrupted.{resumes}", file=sys.stderr)
        return 130


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show the defaults that say something, and leave the lists of names as they are."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is False or action.default in (None, [], {}) or "default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


if __name__ == "__main__":
    raise SystemExit(main())
