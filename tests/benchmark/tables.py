"""Tables of hand-made comparisons, and what is in them."""

from pathlib import Path

import numpy as np

from sb3_nbsp.benchmark.__main__ import main
from sb3_nbsp.benchmark.frames import load_results
from sb3_nbsp.benchmark.rendering import Table
from sb3_nbsp.benchmark.table import build_tables

# kept(x): ASR 0.625 + 0.375 x, FM 1 - x, FWT 1
FIVE = [0.0, 1.0, 0.2, 0.6, 0.4]


def tables_of(*folders: Path, paper: bool = False) -> list[Table]:
    return build_tables([load_results(folder) for folder in folders], paper)


def numbers(table: Table, method: str, measure: str) -> dict[str, float]:
    of = table.numbers
    (number,) = of[(of.method == method) & (of.measure == measure)].to_dict("records")
    return number


def row(table: Table, number: int) -> list[str]:
    return list(table.cells.iloc[number])


def bold(table: Table) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for i, j in np.argwhere(table.bold)}


def run_main(*arguments: str) -> None:
    assert main(["table", *arguments]) == 0
