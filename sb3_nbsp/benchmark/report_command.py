"""The command ``report``: a comparison as one HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path

from sb3_nbsp.benchmark.results import load_results
from sb3_nbsp.needs_plots import needs_plots

DESCRIPTION = "Write a comparison's tables and figures as one HTML page."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    :param parser: gets the command's arguments
    """
    parser.add_argument("folder", type=Path, metavar="DIR", help="the comparison's folder, which `run --out` has written")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the HTML file (default: DIR/report.html)")


def main(args: argparse.Namespace) -> None:
    """
    Write the page, and print its path.

    :param args: what the arguments of :func:`add_arguments` say
    :raises ValueError: if the folder holds no comparison, or matplotlib is not installed
    """
    with needs_plots("report"):
        from sb3_nbsp.benchmark.report import write_report

    print(write_report(load_results(args.folder), args.out))
