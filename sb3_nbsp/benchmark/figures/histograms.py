"""Figure: activation of skill neurons at steps with success and without (NBSP, figures 1 and 7)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sb3_nbsp.benchmark.figures.identified import identified, short_name
from sb3_nbsp.benchmark.figures.no_data import NoDataError
from sb3_nbsp.benchmark.figures.style import panels, styled
from sb3_nbsp.benchmark.neurons_file import ActivationHistogram, RunNeurons
from sb3_nbsp.benchmark.results import Results

_COLORS = {"success": "#0072B2", "failure": "#D55E00"}
_COLUMNS = 4


@dataclass(frozen=True)
class _Row:
    """The histograms of one network after one phase of one run."""

    method: str
    seed: int
    task: str
    network: str
    histograms: list[ActivationHistogram]


@styled
def histograms_figure(results: Results) -> Figure:
    """
    Distribution of the activation of the best-scored skill neurons, apart for steps with success and without: a row
    for each method, of its first seed, phase and network with histograms.

    :param results: a comparison's results
    :return: the figure
    :raises NoDataError: if no run has a readable ``neurons.json`` with histograms
    """
    found = identified(results)
    rows = [row for method, runs in found.items() if (row := _row(method, runs)) is not None]
    if not rows:
        raise NoDataError("no run has histograms of activations (neurons.json)")
    columns = max(len(row.histograms) for row in rows)
    figure, axes = panels(len(rows) * columns, columns, (2.5, 1.95), margin=0.5)
    for number, row in enumerate(rows):
        shown = axes[number * columns : (number + 1) * columns]
        shown[0].set_title(f"{row.method}: {row.network} after {row.task}, seed {row.seed}", pad=17)
        shown[0].set_ylabel("share of steps")
        for panel, histogram in zip(shown, row.histograms, strict=False):
            _draw(panel, histogram, short_name(histogram.layer))
        for unused in shown[len(row.histograms) :]:
            unused.remove()
    figure.supxlabel("activation", fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def _row(method: str, runs: dict[int, RunNeurons]) -> _Row | None:
    for seed, run in runs.items():
        for phase in run.phases:
            for network, neurons in phase.networks.items():
                if neurons.histograms:
                    best = sorted(neurons.histograms, key=lambda histogram: -histogram.score)
                    return _Row(method, seed, phase.task, network, best[:_COLUMNS])
    return None


def _draw(panel: Axes, histogram: ActivationHistogram, layer: str) -> None:
    for name, counts in (("success", histogram.success), ("failure", histogram.failure)):
        shares = np.array(counts) / max(sum(counts), 1)
        panel.stairs(shares, histogram.edges, fill=True, alpha=0.35, color=_COLORS[name], label=f"steps with {name}")
        # An outline as well: where the areas lie on each other their colours mix
        panel.stairs(shares, histogram.edges, color=_COLORS[name], ls="-" if name == "success" else "--", lw=1.2)
    text = f"{layer}, neuron {histogram.neuron}, score {histogram.score:.2f}"
    panel.annotate(text, (0, 1), (0, 4), "axes fraction", "offset points", fontsize=7.5)
    panel.locator_params(nbins=4)
