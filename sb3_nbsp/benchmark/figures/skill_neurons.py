"""Figure: where the skill neurons are."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sb3_nbsp.benchmark.figures.identified import identified, layers_of, networks_of, short_name
from sb3_nbsp.benchmark.figures.matrices import sequence_of
from sb3_nbsp.benchmark.figures.statistics import mean_and_error
from sb3_nbsp.benchmark.figures.style import panels, styled, task_color
from sb3_nbsp.benchmark.neurons_file import RunNeurons
from sb3_nbsp.benchmark.results import Results


@styled
def skill_neurons_figure(results: Results) -> Figure:
    """
    Number of skill neurons in each layer of each network, for each task as the last of its phases identified
    them; behind them the number of neurons that are masked at the end. Mean over seeds, with standard error.

    :param results: a comparison's results
    :return: the figure
    :raises NoDataError: if no run has a readable ``neurons.json``
    """
    tasks = sequence_of(results).tasks
    found = identified(results)
    networks = networks_of(found)
    n_layers = max(len(layers_of(runs, network)) for runs in found.values() for network in networks)
    size = (max(2.7, 0.5 + n_layers * (0.35 + 0.14 * len(tasks))), 1.75)
    legend_columns = min(len(tasks) + 1, max(1, int(size[0] * len(networks) / 1.9)))
    margin = 0.3 + 0.2 * -(-(len(tasks) + 1) // legend_columns)
    figure, axes = panels(len(found) * len(networks), len(networks), size, margin=margin, sharey="row")
    cells = [(method, runs, network) for method, runs in found.items() for network in networks]
    for panel, (method, runs, network) in zip(axes, cells, strict=True):
        panel.set_title(f"{method}: {network}" if network == networks[0] else network)
        _draw(panel, runs, network, tasks)
    for panel in axes[:: len(networks)]:
        panel.set_ylabel("neurons")
    patches = [Patch(color=task_color(tasks, task), label=task) for task in tasks]
    patches.append(Patch(fc="0.9", ec="0.6", label="masked at the end"))
    figure.legend(handles=patches, loc="outside upper center", ncols=legend_columns)
    return figure


def _draw(panel: Axes, runs: dict[int, RunNeurons], network: str, tasks: list[str]) -> None:
    layers = layers_of(runs, network)
    if not layers:
        panel.text(0.5, 0.5, "not masked", ha="center", va="center", color="0.4", transform=panel.transAxes)
        panel.set_xticks([])
        return
    width = 0.8 / len(tasks)
    of_tasks = [run.of_tasks(network) for run in runs.values()]
    last = [run.phases[-1].networks[network] for run in runs.values() if network in run.phases[-1].networks]
    for place, layer in enumerate(layers):
        masked = [phase.masked[layer] for phase in last if layer in phase.masked]
        if masked:
            panel.bar(place, np.mean(masked), 0.9, fc="0.9", ec="0.6", lw=0.8)
        for number, task in enumerate(tasks):
            counts = [len(of[task].skill_neurons.get(layer, ())) for of in of_tasks if task in of]
            if counts:
                mean, error = mean_and_error(np.array(counts, dtype=float))
                x = place + (number - (len(tasks) - 1) / 2) * width
                intervals: dict[str, Any] = {"yerr": error, "capsize": 1.5, "error_kw": {"lw": 0.9}} if len(counts) > 1 else {}
                panel.bar(x, mean, width * 0.9, color=task_color(tasks, task), **intervals)
    names = [f"{short_name(layer)}\nof {neurons}" for layer, neurons in layers.items()]
    panel.set_xticks(range(len(layers)), names, fontsize=8)
    panel.set_xlim(-0.6, len(layers) - 0.4)
    panel.tick_params(axis="x", length=0)
