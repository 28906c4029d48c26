"""Figure: return and signs of plasticity over the steps, a row of panels per environment (P3O paper, figures 4 and 5)."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from sb3_nbsp.benchmark.figures.statistics import mean_and_error
from sb3_nbsp.benchmark.figures.style import panels
from sb3_nbsp.benchmark.plasticity_results import PlasticityResults, TaskRun
from sb3_nbsp.figure_style import COLORS, STYLE

MEASURES = {
    "ep_rew_mean": "training return",
    "weight_norm": "weight norm",
    "dormant_ratio": "dormant ratio",
    "distillation_epochs": "epochs of distillation",
}
# Their height counts; of the others, the change
FROM_ZERO = ("dormant_ratio", "distillation_epochs")


def plasticity_figure(results: PlasticityResults) -> Figure:
    """
    Mean over seeds with its standard error; thin lines are seeds. The dashed line is the mean at the start of training.

    :param results: a comparison's results
    :return: the figure
    :raises ValueError: if no run is done
    """
    if not results.runs:
        raise ValueError("There is nothing to draw: no run is done")
    plan = results.plan
    with matplotlib.rc_context(STYLE):
        figure, grid = panels(len(plan.env_ids) * len(MEASURES), len(MEASURES), (2.9, 2.1), margin=0.5)
        for row, env_id in enumerate(plan.env_ids):
            for column, (name, title) in enumerate(MEASURES.items()):
                panel = grid[row * len(MEASURES) + column]
                for place, method in enumerate(plan.methods):
                    _draw(panel, results.of(env_id, method), name, COLORS[place % len(COLORS)], method)
                panel.set_title(f"{env_id}: {title}" if column == 0 else title)
                panel.set_xlim(0, plan.n_timesteps)
                if name in FROM_ZERO:
                    panel.set_ylim(0, max(panel.get_ylim()[1], 0.1))
                panel.ticklabel_format(axis="y", useOffset=False)
                panel.xaxis.set_major_locator(MaxNLocator(4))
                panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        figure.supxlabel("environment steps", fontsize=9)
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper right", ncols=len(plan.methods))
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return figure


def _draw(panel: Axes, runs: list[TaskRun], name: str, color: str, method: str) -> None:
    known = [run for run in runs if np.isfinite(run.history[name]).any()]
    if not known:
        return
    # Runs that were interrupted may have been measured at other steps
    steps = np.unique(np.concatenate([run.history["step"] for run in known]))
    curves = np.stack([_at(steps, run.history["step"], run.history[name]) for run in known])
    mean, error = mean_and_error(curves)
    style: dict[str, Any] = {"color": color}
    for curve in curves:
        panel.plot(steps, curve, **style, lw=0.5, alpha=0.4)
    panel.fill_between(steps, mean - error, mean + error, **style, alpha=0.2, lw=0)
    panel.plot(steps, mean, **style, lw=1.8, label=method)
    if steps[0] == 0 and name != "distillation_epochs":
        panel.axhline(mean[0], **style, lw=0.9, ls="--", zorder=1)


def _at(steps: np.ndarray, measured: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values at other steps, in between linear; unknown outside of what was measured."""
    present = np.isfinite(values)
    return np.interp(steps, measured[present], values[present], left=np.nan, right=np.nan)
