"""What a comparison of plasticity has produced so far."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sb3_nbsp.benchmark.plan import Cell
from sb3_nbsp.benchmark.plasticity_plan import PlasticityPlan, TaskCell
from sb3_nbsp.files import read_json_object
from sb3_nbsp.plasticity.history import read_history


@dataclass(frozen=True)
class TaskRun:
    """
    A run that is done.

    :param cell: which run
    :param result: what its ``result.json`` says
    :param history: its history of plasticity: column to the numbers of all records
    """

    cell: TaskCell
    result: dict[str, Any]
    history: dict[str, np.ndarray]

    def last(self, name: str) -> float:
        """
        :param name: a column of the history, or a key of the result
        :return: its value at the end of the run; nan if there is none
        """
        if name in self.result:
            return float(self.result[name])
        return float(self.history[name][-1]) if len(self.history[name]) else float("nan")

    def first(self, name: str) -> float:
        """
        :param name: a column of the history, or a key of the result
        :return: its value at the start of training; nan if there is none
        """
        has_start = name in self.history and len(self.history["step"]) and self.history["step"][0] == 0
        return float(self.history[name][0]) if has_start else float("nan")


@dataclass
class PlasticityResults:
    """
    The folder of a comparison of plasticity, read.

    :param plan: what it is a comparison of
    :param folder: where it is
    :param runs: the runs that are done, in the plan's order
    :param left_out: every other run, with the reason
    """

    plan: PlasticityPlan
    folder: Path
    runs: list[TaskRun]
    left_out: list[tuple[Cell, str]]

    def of(self, env_id: str, method: str) -> list[TaskRun]:
        """
        :param env_id: id of an environment
        :param method: a method's name
        :return: its runs there that are done
        """
        return [run for run in self.runs if (run.cell.env_id, run.cell.method) == (env_id, method)]


def load_plasticity_results(folder: str | os.PathLike[str]) -> PlasticityResults:
    """
    Read a comparison's folder. A run that is not done, or whose files cannot be read, is left out, with the reason.

    :param folder: the comparison's folder
    :return: what there is
    :raises ValueError: if the folder holds no comparison of plasticity
    """
    plan = PlasticityPlan.load(folder)
    results = PlasticityResults(plan, Path(folder), [], [])
    for cell in plan.cells(folder):
        assert isinstance(cell, TaskCell)
        if not (cell.folder / "result.json").exists():
            results.left_out.append((cell, "failed" if (cell.folder / "error.txt").exists() else "not finished"))
            continue
        try:
            result, history = read_json_object(cell.folder / "result.json"), read_history(cell.folder)
        except (ValueError, OSError) as error:
            results.left_out.append((cell, f"damaged: {error}"))
            continue
        results.runs.append(TaskRun(cell, result, history))
    return results
