"""Figure: training success over the phases (NBSP, figures 3 and 9 to 12)."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sb3_nbsp.benchmark.figures.matrices import sequence_of
from sb3_nbsp.benchmark.figures.no_data import NoDataError
from sb3_nbsp.benchmark.figures.statistics import mean_and_error
from sb3_nbsp.benchmark.figures.style import fits, panels, styled, task_color
from sb3_nbsp.benchmark.results import Results
from sb3_nbsp.benchmark.training_curves import SHARES, TrainingCurve, read_curve
from sb3_nbsp.tasks import SuccessMatrix


@styled
def training_figure(results: Results) -> Figure:
    """
    Running mean of the success of the last 10 training episodes: thin for each seed, bold for the mean over seeds, with
    its standard error. All phases are drawn equally long, because they end at different steps for each seed;
    their mean numbers of steps stand below them. A dashed line separates cycles; grey lines across a phase are agents that
    have learned nothing.

    :param results: a comparison's results
    :return: the figure
    :raises NoDataError: if no run has a readable ``training.csv``
    """
    sequence = sequence_of(results)
    curves = {method: found for method in results.methods if (found := _readable(results, method))}
    if not curves:
        raise NoDataError("no run has a readable training.csv")
    n_phases = len(sequence.phase_tasks)
    columns = 2 if n_phases <= 4 and len(curves) > 3 else 1
    width = max(12.0 / columns if n_phases > 4 else 5.6, 0.55 * n_phases)
    is_flat = fits(sequence.tasks, (width - 0.7) / n_phases, size=8.5)
    margin = 0.4 if is_flat else 0.5 + 0.045 * max(map(len, sequence.tasks))
    margin += 0.25 if results.baselines else 0
    figure, axes = panels(len(curves), columns, (width, 1.65), margin=margin, sharex=True, sharey=True)
    for panel, (method, found) in zip(axes, curves.items(), strict=True):
        _draw(panel, found, sequence)
        for agent, dashes in zip(results.baselines, (":", "-."), strict=False):
            rates = [results.baselines[agent].get(task, np.nan) for task in sequence.phase_tasks]
            panel.hlines(rates, range(n_phases), range(1, n_phases + 1), color="0.45", lw=1.1, ls=dashes, label=agent)
        panel.set_title(f"{method} ({len(found)} seed{'s' * (len(found) > 1)})", pad=8)
    for panel in axes[:columns]:
        _name_phases(panel, sequence, is_flat)
    figure.supxlabel("share of each phase; below it its mean number of environment steps", fontsize=9)
    figure.supylabel("training success", fontsize=9)
    if results.baselines:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), fontsize=8)
    return figure


def _readable(results: Results, method: str) -> list[TrainingCurve]:
    curves = []
    for run in results.of(method):
        try:
            curves.append(read_curve(run))
        except (ValueError, OSError):
            continue  # named in the report
    return curves


def _draw(panel: Axes, curves: list[TrainingCurve], sequence: SuccessMatrix) -> None:
    success = np.stack([curve.success for curve in curves])
    mean, error = mean_and_error(success)
    for phase, task in enumerate(sequence.phase_tasks):
        color, x = task_color(sequence.tasks, task), phase + SHARES
        panel.axvspan(phase, phase + 1, color=color, alpha=0.06, lw=0)
        for curve in success[:, phase]:
            panel.plot(x, curve, color=color, lw=0.6, alpha=0.45)
        panel.fill_between(x, mean[phase] - error[phase], mean[phase] + error[phase], color=color, alpha=0.25, lw=0)
        panel.plot(x, mean[phase], color=color, lw=2, solid_capstyle="butt")
        if phase > 0:
            is_new_cycle = task == sequence.phase_tasks[0]
            panel.axvline(phase, color="0.3" if is_new_cycle else "0.8", ls="--" if is_new_cycle else "-", lw=1)
    steps = np.stack([curve.steps for curve in curves]).mean(axis=0)
    panel.set(xlim=(0, len(steps)), ylim=(-0.03, 1.05), yticks=[0, 0.5, 1])
    panel.set_xticks(np.arange(len(steps)) + 0.5)
    # Not set_xticklabels: panels that share an axis share its labels, but each has its own steps
    panel.tick_params(axis="x", length=0, labelbottom=False)
    for phase, number in enumerate(steps):
        text = f"{number / 1000:.1f}k" if len(steps) > 8 else f"{number / 1000:.1f}k steps"
        place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        panel.annotate(text, (phase + 0.5, 0), (0, -3), **place, ha="center", va="top", fontsize=8, color="0.25")


def _name_phases(panel: Axes, sequence: SuccessMatrix, is_flat: bool) -> None:
    top = panel.secondary_xaxis("top")
    names = [f"{number}  {task}" if not is_flat else task for number, task in enumerate(sequence.phase_tasks, 1)]
    top.set_xticks(np.arange(len(names)) + 0.5, names, fontsize=8.5)
    top.tick_params(length=0, pad=1)
    top.spines["top"].set_visible(False)
    for label, task in zip(top.get_xticklabels(), sequence.phase_tasks, strict=True):
        label.set(bbox={"boxstyle": "square,pad=0.15", "fc": task_color(sequence.tasks, task), "alpha": 0.25, "lw": 0})
        if not is_flat:
            label.set(rotation=30, ha="left", rotation_mode="anchor")
