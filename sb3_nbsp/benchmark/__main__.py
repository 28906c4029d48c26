"""Compare methods on a task sequence: run them, read the results as a table, as plots or as a report."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

# Name of each command, and the module with its add_arguments, main and HELP
COMMANDS = {
    "run": "run_command",
    "table": "table",
    "plot": "plot_command",
    "report": "report",
    "zero": "zero_neurons",
    "speed": "speed",
}


def main(arguments: list[str] | None = None) -> int:
    """
    Run one of the commands.

    :param arguments: of the command line
    :return: exit status
    """
    parser = argparse.ArgumentParser(prog="python -m sb3_nbsp.benchmark", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module_name in COMMANDS.items():
        module = import_module(f"sb3_nbsp.benchmark.{module_name}")
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
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
        print("Interrupted. The same command goes on from the last checkpoints.", file=sys.stderr)
        return 130
    return status or 0


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show defaults, and leave the lists of names as they are."""


if __name__ == "__main__":
    raise SystemExit(main())
