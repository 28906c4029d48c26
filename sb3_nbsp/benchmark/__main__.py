"""Compare methods on a task sequence or on single environments, and read the results as a table, plots or a report."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

# Name of each command, the module with its add_arguments and main, and what it does
COMMANDS = {
    "run": ("run_command", "compute the runs of a comparison, or resume it"),
    "table": ("table", "ASR, FM and FWT of each method, with intervals"),
    "plot": ("plot_command", "draw the figures, as PNG and SVG"),
    "report": ("report_command", "write tables, figures and configuration as one HTML page"),
    "plasticity": ("plasticity_command", "compare methods on single environments, and how plastic their networks stay"),
    "zero": ("zero_neurons", "zero the skill neurons of a trained model and see what it can still do"),
}


def main(arguments: list[str] | None = None) -> int:
    """
    Run one of the commands.

    :param arguments: arguments of the command line
    :return: exit status
    """
    parser = argparse.ArgumentParser(prog="python -m sb3_nbsp.benchmark", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module_name, what) in COMMANDS.items():
        module = import_module(f"sb3_nbsp.benchmark.{module_name}")
        command = commands.add_parser(
            name,
            help=what,
            description=(module.__doc__ or "").replace("``", ""),
            epilog=module.epilog() if hasattr(module, "epilog") else None,
            formatter_class=_Formatter,
        )
        module.add_arguments(command)
        command.set_defaults(main=module.main)
    args = parser.parse_args(arguments)
    try:
        status: int | None = args.main(args)
    except (ValueError, ImportError) as error:
        print(f"{parser.prog} {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        goes_on = " The same command resumes from the last checkpoints." if args.command in ("run", "plasticity") else ""
        print(f"Interrupted.{goes_on}", file=sys.stderr)
        return 130
    return status or 0


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show the defaults that say something, and leave the lists of names as they are."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, []) or "default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


if __name__ == "__main__":
    raise SystemExit(main())
