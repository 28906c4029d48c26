"""The command ``plot``: the figures of a comparison."""

from __future__ import annotations

import argparse
from pathlib import Path

from sb3_nbsp.benchmark.results import load_results
from sb3_nbsp.needs_plots import needs_plots

DESCRIPTION = "Draw the figures of a comparison, as PNG and SVG."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    :param parser: gets the command's arguments
    """
    parser.add_argument("folder", type=Path, metavar="DIR", help="the comparison's folder, which `run --out` has written")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder for the figures (default: DIR/plots)")


def main(args: argparse.Namespace) -> None:
    """
    Draw the figures, and print their paths and what was left out.

    :param args: what the arguments of :func:`add_arguments` say
    :raises ValueError: if the folder holds no comparison, or matplotlib is not installed
    """
    with needs_plots("plot"):
        from sb3_nbsp.benchmark.damaged import damaged_files
        from sb3_nbsp.benchmark.figures.drawing import write_figures

    results = load_results(args.folder)
    for cell, reason in results.left_out:
        print(f"Left out: {cell.name}: {reason}")
    for sentence in damaged_files(results):
        print(f"Left out: {sentence}")
    for path in write_figures(results, args.out):
        print(path)
