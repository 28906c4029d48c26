"""Files of runs that are done but cannot be read: the run counts, what stands in the file is left out."""

from __future__ import annotations

from collections.abc import Callable

from sb3_nbsp.benchmark.config_file import read_config
from sb3_nbsp.benchmark.neurons_file import read_neurons
from sb3_nbsp.benchmark.results import Results, Run
from sb3_nbsp.benchmark.training_curves import read_curve

_READERS: list[Callable[[Run], object]] = [
    lambda run: read_config(run.cell.folder),
    read_curve,
    lambda run: read_neurons(run.cell.folder),
]


def damaged_files(results: Results) -> list[str]:
    """
    :param results: a comparison's results
    :return: for each file that cannot be read its run and the reason
    """
    reasons: list[str] = []
    for run in results.runs:
        for read in _READERS:
            try:
                read(run)
            except (ValueError, OSError) as error:
                reasons.append(f"{run.cell.name}: {error}")
    return reasons
