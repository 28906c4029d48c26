"""Training success of runs on a common scale: every phase has the same length, whatever its number of steps."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass

import numpy as np

from sb3_nbsp.benchmark.results import Run
from sb3_nbsp.benchmark.training_log import read_training

FILE = "training.csv"
# Shares of a phase at which the curves are compared
SHARES = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class TrainingCurve:
    """
    A run's training success.

    :param success: running mean of the success of each phase at :data:`SHARES` of its steps, shape
        (phases, shares); nan for a phase without an episode
    :param steps: environment steps of each phase, shape (phases,)
    """

    success: np.ndarray
    steps: np.ndarray


def read_curve(run: Run) -> TrainingCurve:
    """
    :param run: a run that is done
    :return: its training success
    :raises ValueError: if its ``training.csv`` is missing or damaged
    """
    path = run.cell.folder / FILE
    if not path.exists():
        raise ValueError(f"{path} is missing")
    try:
        return _curve(path, run.matrix.phase_tasks)
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _curve(path: str | os.PathLike[str], phase_tasks: list[str]) -> TrainingCurve:
    success = np.full((len(phase_tasks), len(SHARES)), np.nan)
    steps = np.zeros(len(phase_tasks))
    start = 0.0
    for phase in read_training(path):
        number = int(str(phase["phase"]))
        if not 0 <= number < len(phase_tasks) or phase["task"] != phase_tasks[number]:
            raise ValueError(f"its phase {number} ({phase['task']}) is not in the run's success matrix: {phase_tasks}")
        ends = np.array(phase["steps"], dtype=float)
        steps[number] = ends[-1] - start
        if steps[number] <= 0:
            raise ValueError(f"its steps do not grow in phase {number}")
        success[number] = np.interp(SHARES, (ends - start) / steps[number], np.array(phase["success"], dtype=float))
        start = ends[-1]
    return TrainingCurve(success, steps)
