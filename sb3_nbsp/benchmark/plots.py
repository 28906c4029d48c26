"""One figure of single runs on a task sequence, as the demo draws it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sb3_nbsp.benchmark.training_log import read_training
from sb3_nbsp.extras import needs
from sb3_nbsp.files import atomic_path
from sb3_nbsp.tasks import SuccessMatrix

with needs("plots", "A figure"):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_runs", "read_training"]


def plot_runs(runs: Mapping[str, str | os.PathLike[str]], path: str | os.PathLike[str], title: str = "") -> None:
    """
    For each run, the training success over the phases (as NBSP's figure 3) and the success matrix.

    :param runs: name of each method and its run's folder
    :param path: the PNG to write
    :param title: the figure's title
    """
    figure = Figure(figsize=(11, 2.6 * len(runs) + 0.6), layout="constrained")
    axes = figure.subplots(len(runs), 2, width_ratios=[3, 1], squeeze=False)
    end = 0.0
    for (name, folder), (curve, heat) in zip(runs.items(), axes, strict=True):
        end = max(end, _plot_training(curve, Path(folder) / "training.csv"))
        curve.set_ylabel(f"{name}\ntraining success")
        _plot_matrix(heat, SuccessMatrix.load(Path(folder) / "success_matrix.csv"))
    for curve in axes[:, 0]:
        curve.set_xlim(0, end)
    axes[-1, 0].set_xlabel("environment steps")
    axes[0, 1].set_title("success after each phase", fontsize=10)
    figure.suptitle(title)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def _plot_training(axes: Axes, path: Path) -> float:
    phases = read_training(path)
    tasks = list(dict.fromkeys(str(phase["task"]) for phase in phases))
    last = 0.0
    for phase in phases:
        steps = phase["steps"]
        assert isinstance(steps, list)
        color = f"C{tasks.index(str(phase['task']))}"
        axes.plot(steps, phase["success"], color=color)
        axes.axvspan(last, steps[-1], color=color, alpha=0.08, lw=0)
        axes.axvline(steps[-1], color="grey", ls="--", lw=0.8)
        # Names of short phases would run into each other at the same height
        height = 1.04 if tasks.index(str(phase["task"])) % 2 == 0 else 1.11
        axes.text((last + steps[-1]) / 2, height, str(phase["task"]), ha="center", fontsize=8, color=color)
        last = steps[-1]
    axes.set_ylim(-0.03, 1.18)
    axes.set_yticks([0, 0.5, 1])
    return last


def _plot_matrix(axes: Axes, matrix: SuccessMatrix) -> None:
    values, _ = matrix.as_arrays()
    axes.imshow(values, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color="w" if value < 0.6 else "k")
    axes.set_xticks(range(len(matrix.tasks)), matrix.tasks, fontsize=8)
    axes.set_yticks(range(len(values)), [f"{i + 1}: {task}" for i, task in enumerate(matrix.phase_tasks)], fontsize=8)
