"""Metrics of a task sequence: ASR, FM and FWT (NBSP, equations 9 to 11) over the matrix of success rates."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sb3_nbsp.files import atomic_write


@dataclass
class SuccessMatrix:
    """
    Success rates S[i, j] after phase i on the j-th distinct task.

    :param tasks: names of the distinct tasks, in the order in which they are met
    :param phase_tasks: for every finished phase, the name of its task
    :param rows: for every finished phase, the success rate on each distinct task, in [0, 1]
    """

    tasks: list[str]
    phase_tasks: list[str] = field(default_factory=list)
    rows: list[list[float]] = field(default_factory=list)

    def set_row(self, phase: int, task: str, success_rates: Sequence[float]) -> None:
        """
        Enter what was measured after a phase, in place of what is there for it and later phases.

        :param phase: number of the phase, from 0
        :param task: its task
        :param success_rates: one per distinct task
        :raises ValueError: if an earlier phase is missing
        """
        if phase > len(self.rows):
            raise ValueError(f"Phase {phase + 1} cannot be entered: only {len(self.rows)} phases are there")
        self.rows[phase:] = [list(success_rates)]
        self.phase_tasks[phase:] = [task]

    def as_arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """S of shape (phases, distinct tasks), and the task index of every phase."""
        indices = np.array([self.tasks.index(task) for task in self.phase_tasks], dtype=int)
        return np.array(self.rows, dtype=float).reshape(len(self.rows), len(self.tasks)), indices

    def metrics(self) -> dict[str, float]:
        """
        ASR, FM and FWT of the phases so far: nan where a success rate is not known, and FM as long as nothing
        could be forgotten.
        """
        matrix, phase_tasks = self.as_arrays()
        return {
            "ASR": average_success_rate(matrix, phase_tasks),
            "FM": forgetting_measure(matrix, phase_tasks),
            "FWT": forward_transfer(matrix, phase_tasks),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """
        Write the matrix as CSV: a line per phase, a column per distinct task.

        :param path: the file
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["phase", "task", *self.tasks])
        for phase, (task, row) in enumerate(zip(self.phase_tasks, self.rows, strict=True)):
            writer.writerow([phase, task, *row])
        atomic_write(path, text.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SuccessMatrix:
        """
        Read what :meth:`save` wrote.

        :param path: the file
        :return: the matrix
        :raises ValueError: if the file is none of this kind
        """
        try:
            header, *lines = list(csv.reader(io.StringIO(Path(path).read_text(encoding="utf-8"))))
            if header[:2] != ["phase", "task"]:
                raise ValueError(f"its columns are {header}")
            matrix = cls(header[2:])
            for phase, task, *row in lines:
                rates = [float(value) for value in row]
                if len(rates) != len(matrix.tasks) or task not in matrix.tasks:
                    raise ValueError(f"its line {phase!r} does not fit its columns")
                matrix.set_row(int(phase), task, rates)
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{path} is no success matrix: {error}") from error
        return matrix


def average_success_rate(matrix: np.ndarray, phase_tasks: np.ndarray) -> float:
    """
    ASR (NBSP, equation 9; AR on Atari, equation 13): mean over phases of the mean success rate
    on the distinct tasks met so far. Over distinct tasks, not phases: only so do the paper's own tables add up.

    :param matrix: S, shape (phases, distinct tasks)
    :param phase_tasks: index of every phase's task, shape (phases,)
    :return: the average success rate
    """
    return float(np.mean([row[np.unique(phase_tasks[: i + 1])].mean() for i, row in enumerate(matrix)]))


def forgetting_measure(matrix: np.ndarray, phase_tasks: np.ndarray) -> float:
    """
    FM (NBSP, equation 10): mean over phases from the second on of the mean, over the distinct tasks met
    before other than the phase's own, of the best earlier success rate minus the present one.

    :param matrix: S, shape (phases, distinct tasks)
    :param phase_tasks: index of every phase's task, shape (phases,)
    :return: the forgetting measure; nan if there is no phase with an earlier task other than its own
    """
    per_phase = []
    for i in range(1, len(matrix)):
        earlier = [j for j in np.unique(phase_tasks[:i]) if j != phase_tasks[i]]
        # The best since the task was first met, up to the phase before
        best = [matrix[list(phase_tasks).index(j) : i, j].max() for j in earlier]
        if earlier:
            per_phase.append(np.mean(np.array(best) - matrix[i, earlier]))
    return float(np.mean(per_phase)) if per_phase else float("nan")


def forward_transfer(matrix: np.ndarray, phase_tasks: np.ndarray) -> float:
    """
    FWT (NBSP, equation 11): mean over phases of the success rate on the phase's own task.

    :param matrix: S, shape (phases, distinct tasks)
    :param phase_tasks: index of every phase's task, shape (phases,)
    :return: the forward transfer
    """
    return float(np.mean(matrix[np.arange(len(matrix)), phase_tasks]))
