"""The log of training episodes: ``training.csv``."""

from __future__ import annotations

import csv
import io
import math
import os
from pathlib import Path
from typing import Any

from sb3_nbsp.files import atomic_write

COLUMNS = ["step", "phase", "task", "success", "return", "length"]
_STEP, _PHASE, _TASK, _SUCCESS = range(4)


class EpisodeLog:
    """
    A line per training episode. ``success`` is blank as long as the task has reported none; when it first does, the episodes
    before were failures.

    :param path: the file
    :param last_phase: lines of earlier phases, counted from 0 over the agent's life, are kept
    :param last_step: lines of the last phase are kept up to this step; infinity keeps all
    :raises ValueError: if the file is damaged
    """

    def __init__(self, path: str | os.PathLike[str], last_phase: int = -1, last_step: float = math.inf) -> None:
        self.path = Path(path)
        rows = read_rows(self.path) if self.path.exists() and last_phase >= 0 else []
        self._write(_until(rows, last_phase, last_step))

    def add(self, row: list[Any]) -> None:
        """
        Append an episode.

        :param row: what :data:`COLUMNS` say
        """
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow(row)

    def fill_success(self, task: str) -> None:
        """
        The task reports success, so its episodes without a report were failures.

        :param task: its name
        """
        rows = read_rows(self.path)
        blank = [row for row in rows if row[_TASK] == task and row[_SUCCESS] == ""]
        for row in blank:
            row[_SUCCESS] = "False"
        if blank:
            self._write(rows)

    def _write(self, rows: list[list[str]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
        atomic_write(self.path, text.getvalue())


def _until(rows: list[list[str]], last_phase: int, last_step: float) -> list[list[str]]:
    """Without what a killed run has played after its last checkpoint."""
    rows = [row for row in rows if int(row[_PHASE]) <= last_phase]
    steps = [int(row[_STEP]) for row in rows]
    # A call of learn() may have begun the count of steps anew: steps can be compared from there on
    begin = max((i for i in range(1, len(steps)) if steps[i] < steps[i - 1]), default=0)
    is_later = [i >= begin and step > last_step for i, step in enumerate(steps)]
    return [row for row, later in zip(rows, is_later, strict=True) if not later or int(row[_PHASE]) < last_phase]


def read_rows(path: str | os.PathLike[str]) -> list[list[str]]:
    """
    Read a log, without a last line that was cut off when its run was killed.

    :param path: the file
    :return: a list per episode, see :data:`COLUMNS`
    :raises ValueError: if the file is damaged
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        del lines[-1]
    rows = list(csv.reader(lines))
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(COLUMNS) or not (row[_STEP].isdecimal() and row[_PHASE].lstrip("-").isdecimal()):
            raise ValueError(f"{path} is damaged in line {number}: {row}")
    if rows and rows[0] != COLUMNS:
        raise ValueError(f"{path} is no log of training episodes: its columns are {rows[0]}")
    return rows[1:]
