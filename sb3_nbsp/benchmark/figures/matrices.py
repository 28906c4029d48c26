"""The success matrices of a method's runs as one array."""

from __future__ import annotations

import numpy as np

from sb3_nbsp.benchmark.figures.no_data import NoDataError
from sb3_nbsp.benchmark.results import Results
from sb3_nbsp.tasks import SuccessMatrix


def sequence_of(results: Results) -> SuccessMatrix:
    """
    :param results: a comparison's results
    :return: the success matrix of its first run, which has the phases and tasks of all of them
    :raises NoDataError: if no run is done
    """
    if not results.runs:
        raise NoDataError("no run is done")
    return results.runs[0].matrix


def stacked(results: Results, method: str) -> np.ndarray:
    """
    :param results: a comparison's results
    :param method: one of its methods
    :return: S of its runs, shape (seeds, phases, distinct tasks)
    :raises ValueError: if the runs are of different sequences
    """
    sequence = sequence_of(results)
    for run in results.of(method):
        if (run.matrix.tasks, run.matrix.phase_tasks) != (sequence.tasks, sequence.phase_tasks):
            raise ValueError(
                f"{run.cell.folder} is of the phases {run.matrix.phase_tasks}, but {results.runs[0].cell.folder} of "
                f"{sequence.phase_tasks}: they cannot be compared"
            )
    return np.stack([run.matrix.as_arrays()[0] for run in results.of(method)])
