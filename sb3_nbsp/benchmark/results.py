"""What a comparison has produced so far: the runs that are done, and why the others are left out."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sb3_nbsp.benchmark.baselines import Baselines, read_baselines
from sb3_nbsp.benchmark.plan import Cell, Plan
from sb3_nbsp.files import read_json_object
from sb3_nbsp.tasks import SuccessMatrix

METRICS = ("ASR", "FM", "FWT")


@dataclass
class Run:
    """
    A run that is done.

    :param cell: which run
    :param matrix: its success matrix
    :param metrics: its ASR, FM and FWT, worked out from the matrix; FM may be nan
    :param result: what ``result.json`` says: steps and minutes
    """

    cell: Cell
    matrix: SuccessMatrix
    metrics: dict[str, float]
    result: dict[str, Any]


@dataclass
class Results:
    """
    A comparison's folder, read.

    :param plan: what it is a comparison of
    :param folder: where it is
    :param runs: the runs that are done, in the plan's order
    :param left_out: every other run of the plan, with the reason
    :param baselines: success of agents that have learned nothing, by agent and task; empty if it was not measured
    """

    plan: Plan
    folder: Path
    runs: list[Run]
    left_out: list[tuple[Cell, str]]
    baselines: Baselines = field(default_factory=dict)

    def of(self, method: str) -> list[Run]:
        """
        :param method: a method's name
        :return: its runs that are done
        """
        return [run for run in self.runs if run.cell.method == method]

    @property
    def methods(self) -> list[str]:
        """Names of the methods with at least one run that is done, in the plan's order."""
        return [method for method in self.plan.methods if self.of(method)]


def load_results(folder: str | os.PathLike[str]) -> Results:
    """
    Read a comparison's folder. A run that is missing, unfinished or damaged is left out, never counted as zero.

    :param folder: where ``benchmark run`` wrote
    :return: what there is
    :raises ValueError: if the folder holds no comparison
    """
    plan = Plan.load(folder)
    runs: list[Run] = []
    left_out: list[tuple[Cell, str]] = []
    for cell in sorted(plan.cells(folder), key=lambda cell: plan.methods.index(cell.method)):
        try:
            runs.append(_read_run(cell, plan.n_phases))
        except (ValueError, OSError) as error:
            left_out.append((cell, str(error)))
    return Results(plan, Path(folder), runs, left_out, read_baselines(Path(folder)))


def _read_run(cell: Cell, n_phases: int) -> Run:
    if not cell.folder.exists():
        raise ValueError("not started")
    if (cell.folder / "error.txt").exists():
        lines = (cell.folder / "error.txt").read_text(encoding="utf-8").strip().splitlines()
        raise ValueError(f"failed: {lines[-1] if lines else 'for an unknown reason'}")
    if not (cell.folder / "result.json").exists():
        raise ValueError("not finished")
    matrix = SuccessMatrix.load(cell.folder / "success_matrix.csv")
    result = read_json_object(cell.folder / "result.json")
    if len(matrix.rows) != n_phases:
        raise ValueError(f"{cell.folder / 'success_matrix.csv'} has {len(matrix.rows)} phases instead of {n_phases}")
    values, _ = matrix.as_arrays()
    if values.size == 0 or any(math.isnan(value) for value in values.flat):
        raise ValueError(f"{cell.folder / 'success_matrix.csv'} has phases whose success is not known")
    return Run(cell, matrix, matrix.metrics(), result)
