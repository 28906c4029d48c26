"""Compare methods on task sequences or on other environments, and read the results as a table, figures or a report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from sb3_nbsp.benchmark.comparison import PRESETS, Comparison, key_value, other_sequences, sequence_names
from sb3_nbsp.benchmark.methods import ABLATIONS, METHODS
from sb3_nbsp.files import atomic_write
from sb3_nbsp.machine import usable_cores
from sb3_nbsp.messages import ArgumentParser, warn, warn_without_place

FORMATS = {"markdown": "md", "latex": "tex", "csv": "csv"}
_FOLDER = "the folder of a comparison (that of `run --out`)"


def run(args: argparse.Namespace) -> int:
    """Train all runs of a comparison, or resume them."""
    from sb3_nbsp.benchmark.launchers import LocalLauncher, RayLauncher
    from sb3_nbsp.benchmark.run import run_comparison

    comparison = Comparison.from_arguments(args)
    for place in (args.out, *args.out.parents):  # before Ray is started
        if place.exists() and not place.is_dir():
            raise ValueError(f"--out must be a folder, and {place} is a file")
    is_local = args.launcher == "local"
    for sentence in (*comparison.without_effect(), *_unused(args)):
        warn(sentence)
    launcher = LocalLauncher(args.jobs) if is_local else RayLauncher(args.address, args.cpus_per_run, args.gpus_per_run)
    console = Console()
    failed = run_comparison(comparison, args.out, launcher, console, share=not args.own_first_phases)
    if failed:
        console.print(f"{len(failed)} of {len(comparison.runs(args.out))} runs failed; the same command tries them again")
        return 1
    console.print(f"All runs are done. Next: sb3-nbsp benchmark table {args.out}", soft_wrap=True)
    return 0


def _unused(args: argparse.Namespace) -> list[str]:
    """For each option that changes nothing, beside those of the comparison, a sentence that says why."""
    others = {"jobs": usable_cores()} if args.launcher == "ray" else {"address": None, "cpus_per_run": 1, "gpus_per_run": 0.0}
    given = [f"--{name.replace('_', '-')}" for name, default in others.items() if getattr(args, name) != default]
    found = [f"{name} has no effect with --launcher {args.launcher}" for name in given]
    twice = len(set(args.seeds)) < len(args.seeds)
    return [*found, f"--seeds {' '.join(map(str, args.seeds))}: a seed that is given twice is run once"] if twice else found


def table(args: argparse.Namespace) -> None:
    """Print every measure of every method, with intervals."""
    from sb3_nbsp.benchmark.frames import load_results
    from sb3_nbsp.benchmark.rendering import render
    from sb3_nbsp.benchmark.table import build_tables

    tables = build_tables([load_results(folder) for folder in args.folders], args.paper)
    if args.format is not None:
        sys.stdout.write(render(tables, args.format))
        return
    console = Console()
    for each in tables:
        each.print(console)
    for name in dict.fromkeys(each.file for each in tables):
        for form, suffix in FORMATS.items():
            atomic_write(f"{name}.{suffix}", render([each for each in tables if each.file == name], form))
        console.print(f"Written: {name}.md, .tex, .csv", markup=False, highlight=False, soft_wrap=True)


def plot(args: argparse.Namespace) -> None:
    """Draw the figures, as PNG and SVG."""
    from sb3_nbsp.benchmark.figures import write_figures
    from sb3_nbsp.benchmark.frames import load_results

    results = load_results(args.folder)
    for sentence in (*results.left_out_sentences(), *results.damaged):
        print(f"Left out: {sentence}")
    for path in write_figures(results, args.out):
        print(path)


def report(args: argparse.Namespace) -> None:
    """Write tables, figures and configuration as one HTML page."""
    from sb3_nbsp.benchmark.frames import load_results
    from sb3_nbsp.benchmark.report import write_report

    print(write_report(load_results(args.folder), args.out))


def zero(args: argparse.Namespace) -> None:
    """Set the skill neurons of a trained model to zero and evaluate it."""
    from sb3_nbsp.benchmark.zero import zero as zero_and_evaluate

    env_kwargs = None if args.env_kwargs is None else dict(args.env_kwargs)
    options = {name: getattr(args, name) for name in ("n_eval_episodes", "networks", "seed")}
    path = zero_and_evaluate(args.model, args.env, env_kwargs, **options)
    Console().print(f"Written: {path}", markup=False, highlight=False, soft_wrap=True)


COMMANDS = {command.__name__: command for command in (run, table, plot, report, zero)}


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    own = "sb3-nbsp benchmark"
    prog = own if sys.argv[0] == own else "python -m sb3_nbsp.benchmark"
    parser = ArgumentParser(prog=prog, description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands = {}
    for name, command in COMMANDS.items():
        text = command.__doc__ or ""
        what = f"{text[:1].lower()}{text[1:-1]}"
        commands[name] = subparsers.add_parser(name, formatter_class=_Formatter, help=what, description=text)
    add = commands["run"].add_argument
    Comparison.add_arguments(commands["run"])
    lists = {
        "methods": {method.name: f"{method.title}: {method.description}" for method in METHODS.values()},
        "groups of methods": {name: ", ".join(names) for name, names in ABLATIONS.items()},
        "sequences": {
            **{f"--preset {preset}": ", ".join(sequence_names(preset)) for preset in PRESETS},
            "others": ", ".join(other_sequences()),
        },
    }
    width = max(len(name) for of in lists.values() for name in of)
    parts = [
        f"{title}:\n" + "\n".join(f"  {name:<{width}} {text}" for name, text in of.items()) for title, of in lists.items()
    ]
    commands["run"].epilog = "\n\n".join(parts)
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


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands, with the arguments of the command line or others; the exit status."""
    warn_without_place()
    parser = make_parser()
    args = parser.parse_args(arguments)
    try:
        return COMMANDS[args.command](args) or 0
    except (ValueError, ImportError, OSError) as error:
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
