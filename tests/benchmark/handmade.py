"""Folders of comparisons whose metrics can be worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sb3_nbsp.benchmark.comparison import Comparison
from sb3_nbsp.tasks import SuccessMatrix

TASKS = ["coffee-button", "handle-press"]


def kept(x: float) -> SuccessMatrix:
    """
    Two tasks, two cycles: the task of a phase is mastered, the other one kept at x.

    ASR = (1 + 3 (1 + x) / 2) / 4 = 0.625 + 0.375 x, FM = 1 - x, FWT = 1
    """
    matrix = SuccessMatrix(list(TASKS))
    for phase, row in enumerate(([1, 0], [x, 1], [1, x], [x, 1])):
        matrix.set_row(phase, TASKS[phase % 2], row)
    return matrix


def write_run(comparison: Path, method: str, seed: int, matrix: SuccessMatrix, steps: float = 1000) -> Path:
    folder = comparison / method / f"seed_{seed}"
    folder.mkdir(parents=True)
    matrix.save(folder / "success_matrix.csv")
    (folder / "result.json").write_text(json.dumps({**matrix.metrics(), "steps": steps}))
    return folder


def write_comparison(
    folder: Path,
    runs: dict[str, Sequence[float | None]],
    sequence: str = "CoffeeButton-HandlePress",
    preset: str = "laptop",
    **kwargs: object,
) -> Path:
    """For each method what its seeds 1, 2, ... keep; None is a run that is not started."""
    seeds = list(range(1, 1 + max(map(len, runs.values()))))
    Comparison([sequence], list(runs), seeds, preset, **kwargs).save(folder)  # type: ignore[arg-type]
    for method, shares in runs.items():
        for seed, share in enumerate(shares, start=1):
            if share is not None:
                write_run(folder, method, seed, kept(share), steps=1000 * seed)
    return folder
