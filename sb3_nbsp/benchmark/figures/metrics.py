"""Figure: ASR, FM and FWT of each method."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sb3_nbsp.benchmark.baselines import as_matrix
from sb3_nbsp.benchmark.figures.matrices import sequence_of
from sb3_nbsp.benchmark.figures.no_data import NoDataError
from sb3_nbsp.benchmark.figures.statistics import mean_and_error
from sb3_nbsp.benchmark.figures.style import draw_baselines, method_style, panels, styled
from sb3_nbsp.benchmark.results import METRICS, Results

_ARROWS = {"ASR": "↑", "FM": "↓", "FWT": "↑"}
_MEANINGS = {"ASR": "success on the tasks met so far", "FM": "forgetting", "FWT": "success on the task just trained"}


@styled
def metrics_figure(results: Results) -> Figure:
    """
    ASR, FM and FWT (NBSP, equations 9 to 11) of each method: mean over seeds with standard error, every seed a dot. Lines are
    agents that have learned nothing (which forget nothing).

    :param results: a comparison's results
    :return: the figure
    :raises NoDataError: if no run is done
    """
    methods = results.methods
    if not methods:
        raise NoDataError("no run is done")
    without_learning = {agent: as_matrix(rates, sequence_of(results)).metrics() for agent, rates in results.baselines.items()}
    margin = 0.5 if without_learning else 0.25
    figure, axes = panels(len(METRICS), 3, (3.5, 0.42 * len(methods) + 0.7), margin=margin, sharey=True)
    for panel, metric in zip(axes, METRICS, strict=True):
        for place, method in enumerate(methods):
            values = np.array([run.metrics[metric] for run in results.of(method)])
            _draw(panel, place, values, method_style(results, method))
        if metric != "FM":
            draw_baselines(panel.axvline, {agent: found[metric] for agent, found in without_learning.items()})
        panel.set_title(f"{metric} {_ARROWS[metric]}")
        panel.set_xlabel(_MEANINGS[metric])
        panel.set_xlim(min(-0.03, panel.get_xlim()[0]), 1.03)
        panel.grid(axis="x", color="0.85", lw=0.6)
        panel.set_axisbelow(True)
        panel.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(methods)), methods)
    axes[0].set_ylim(len(methods) - 0.4, -0.6)
    if without_learning:
        lines = axes[0].lines[-len(without_learning) :]
        figure.legend(handles=lines, loc="outside lower center", ncols=len(lines))
    return figure


def _draw(panel: Axes, place: int, values: np.ndarray, style: dict[str, Any]) -> None:
    """The seeds below the mean, each at a height of its own, so that equal values stay apart."""
    mean, error = mean_and_error(values)
    panel.errorbar(
        mean.reshape(1), [place - 0.1], xerr=error.reshape(1), ms=5, lw=0, elinewidth=1.6, capsize=4.5, capthick=1.6, **style
    )
    heights = place + 0.15 + 0.2 * np.arange(len(values)) / max(len(values) - 1, 1)
    panel.scatter(values, heights, s=11, color=style["color"], alpha=0.65, lw=0)
