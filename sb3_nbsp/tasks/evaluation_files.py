"""What SB3's EvalCallback writes, of an evaluation on several tasks: evaluations.npz and the best model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_nbsp.files import atomic_path
from sb3_nbsp.tasks.metrics import SuccessMatrix


def add_evaluation(folder: Path, num_timesteps: int, phase: int, values: Mapping[str, float]) -> None:
    """
    Add a row to ``evaluations.npz``, which ``numpy.load`` reads: ``timesteps`` and ``phases`` of shape (n,), ``tasks`` of
    shape (tasks,) and ``results`` of shape (n, tasks). A run that resumes continues the file at its own step.

    :param folder: the file's folder
    :param num_timesteps: environment steps of the agent
    :param phase: the phase that has ended, from 0
    :param values: success rate, score or mean return of each task
    :raises ValueError: if the file is of other tasks
    """
    path = folder / "evaluations.npz"
    columns: dict[str, list[object]] = {"timesteps": [], "phases": [], "results": []}
    if path.exists():
        with np.load(path) as file:
            if file["tasks"].tolist() != list(values):
                raise ValueError(
                    f"{path} is of the tasks {file['tasks'].tolist()}, not {list(values)}. Give every run a folder of its own"
                )
            kept = (file["timesteps"] < num_timesteps) & (file["phases"] < phase)
            columns = {name: list(file[name][kept]) for name in columns}
    for name, value in (("timesteps", num_timesteps), ("phases", phase), ("results", list(values.values()))):
        columns[name].append(value)
    with atomic_path(path) as temporary:
        timesteps, phases, results = map(np.array, columns.values())
        np.savez(temporary, timesteps=timesteps, phases=phases, results=results, tasks=np.array(list(values)))


def enter_failures(folder: Path, entries: Iterable[tuple[int, str]]) -> None:
    """
    Correct ``evaluations.npz``: what stood in for a success rate was none.

    :param folder: the file's folder; there may be no file yet
    :param entries: pairs of a phase and a task
    """
    path = folder / "evaluations.npz"
    if not path.exists():
        return
    with np.load(path) as file:
        columns = {name: file[name] for name in file.files}
    for phase, task in entries:
        columns["results"][np.ix_(columns["phases"] == phase, columns["tasks"] == task)] = 0.0
    with atomic_path(path) as temporary:
        np.savez(temporary, **columns)


def save_if_best(folder: Path, model: BaseAlgorithm, matrix: SuccessMatrix) -> None:
    """
    Save ``best_model.zip`` if the last row of the matrix is the best so far: by the mean over the tasks that had been met.

    :param folder: the model's folder
    :param model: the agent
    :param matrix: with the row of the phase that has just ended
    """
    met = [[matrix.tasks.index(task) for task in set(matrix.phase_tasks[: i + 1])] for i in range(len(matrix.rows))]
    means = [float(np.mean([row[i] for i in tasks])) for row, tasks in zip(matrix.rows, met, strict=True)]
    *earlier, last = means
    if last > max((mean for mean in earlier if not math.isnan(mean)), default=-math.inf):
        folder.mkdir(parents=True, exist_ok=True)
        model.save(folder / "best_model")
