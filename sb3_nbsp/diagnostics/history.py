"""The file that keeps the measures of a run: one row per record."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sb3_nbsp.diagnostics.measure import MEASURES
from sb3_nbsp.files import atomic_path, atomic_write

HISTORY = "plasticity.csv"
COVARIANCE = "gradient_covariance.csv"
PICTURE = "plasticity.png"
# What an agent does not have stays empty
COLUMNS = ["step", *MEASURES, "ep_rew_mean", "resets", "resets_per_neuron", "share_ever_reset", "distillation_epochs"]


def open_history(folder: Path, step: int = 0) -> None:
    """
    Continue the ``plasticity.csv`` of a run, without the rows after ``step`` and without what a killed run has left
    of half a row. At step 0 it begins anew.

    :param folder: the run's folder
    :param step: where training continues
    :raises ValueError: if the file to be continued is of another kind
    """
    path, lines = folder / HISTORY, [",".join(COLUMNS)]
    if path.exists() and step > 0:
        lines += [line for line in _whole_rows(path) if int(line.split(",", 1)[0]) <= step]
    atomic_write(path, "\n".join(lines) + "\n")


def add_record(folder: Path, step: int, row: Mapping[str, float | None], covariance: np.ndarray) -> None:
    """
    Append a row to ``plasticity.csv``, and write ``gradient_covariance.csv`` anew.

    :param folder: the run's folder; :func:`open_history` has been called
    :param step: environment steps so far
    :param row: by column; what is missing or None stays empty
    :param covariance: the gradient covariance, shape (states, states)
    """
    values = ["" if row.get(name) is None else row[name] for name in COLUMNS[1:]]
    with (folder / HISTORY).open("a", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerow([step, *values])
    with atomic_path(folder / COVARIANCE) as temporary:
        np.savetxt(temporary, covariance, fmt="%.6g", delimiter=",")


def read_history(folder: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """
    Read the ``plasticity.csv`` of a run, also of one that is under way or was killed.

    :param folder: the run's folder
    :return: column to its numbers, one per row, not a number where there is none. The row of step 0 is the start of training
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if it is of another kind
    """
    rows = [[float(cell or "nan") for cell in line.split(",")] for line in _whole_rows(Path(folder) / HISTORY)]
    rows.sort(key=lambda row: row[0])  # an agent can be measured before its start is: it has states of its own, but no updates
    table = np.array(rows, dtype=np.float64).reshape(-1, len(COLUMNS))
    return {name: table[:, index] for index, name in enumerate(COLUMNS)}


def _whole_rows(path: Path) -> list[str]:
    header, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
    if header.strip() != ",".join(COLUMNS):
        raise ValueError(f"{path} is no history of plasticity: its first line is not {','.join(COLUMNS)}")
    # Without its line's end a row may have lost digits, too
    return [line.strip() for line in lines if line.endswith("\n") and line.count(",") == len(COLUMNS) - 1]


def read_covariance(folder: str | os.PathLike[str]) -> np.ndarray | None:
    """
    :param folder: a run's folder
    :return: the gradient covariance of its last record, shape (states, states); None if there is none
    """
    path = Path(folder) / COVARIANCE
    return np.loadtxt(path, delimiter=",", ndmin=2) if path.exists() else None
