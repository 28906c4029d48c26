"""Figure: how many skill neurons two tasks have in common."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sb3_nbsp.benchmark.figures.identified import identified, layers_of, networks_of, short_name
from sb3_nbsp.benchmark.figures.matrices import sequence_of
from sb3_nbsp.benchmark.figures.no_data import NoDataError
from sb3_nbsp.benchmark.figures.style import panels, styled
from sb3_nbsp.benchmark.neurons_file import RunNeurons
from sb3_nbsp.benchmark.results import Results

# More tasks have too many pairs to be read: then only tasks that follow each other
_MAX_TASKS_WITH_ALL_PAIRS = 3
# Shared ones first: their bars begin at zero, and compare with the number by chance
_PARTS = {"shared": "#0072B2", "only the first": "#E69F00", "only the second": "#9AD0F0"}


@dataclass(frozen=True)
class Overlap:
    """
    Skill neurons of two tasks in one layer, mean over seeds.

    :param only_first: neurons of the first task alone
    :param shared: neurons of both
    :param only_second: neurons of the second task alone
    :param by_chance: as many as would be shared if both were drawn at random: n₁ n₂ / width
    """

    only_first: float
    shared: float
    only_second: float
    by_chance: float


def overlap(runs: dict[int, RunNeurons], network: str, layer: str, first: str, second: str) -> Overlap | None:
    """
    :param runs: runs of one method, by seed
    :param network: name of a network
    :param layer: name of one of its layers
    :param first: a task
    :param second: another
    :return: their skill neurons, as the last phase of each identified them; None if no run identified both
    """
    counts = []
    for run in runs.values():
        tasks = run.of_tasks(network)
        if first in tasks and second in tasks:
            a, b = (tasks[task].skill_neurons.get(layer, frozenset()) for task in (first, second))
            width = run.layers[network][layer]
            counts.append([len(a - b), len(a & b), len(b - a), len(a) * len(b) / width])
    return Overlap(*map(float, np.mean(counts, axis=0))) if counts else None


def task_pairs(tasks: list[str]) -> list[tuple[str, str]]:
    """
    :param tasks: the distinct tasks, in the order in which they are met
    :return: all pairs of up to three tasks; of more, those of tasks that follow each other
    """
    return list(combinations(tasks, 2) if len(tasks) <= _MAX_TASKS_WITH_ALL_PAIRS else pairwise(tasks))


@styled
def overlap_figure(results: Results) -> Figure:
    """
    Skill neurons that two tasks share, and those of one alone, in each layer of each network; mean over seeds. A black
    triangle marks how many would be shared by chance.

    :param results: a comparison's results
    :return: the figure
    :raises NoDataError: if no run has a readable ``neurons.json``, or there is one task only
    """
    pairs = task_pairs(sequence_of(results).tasks)
    found = identified(results)
    if not pairs:
        raise NoDataError("the sequence has one task only")
    networks = networks_of(found)
    n_layers = max(len(layers_of(runs, network)) for runs in found.values() for network in networks)
    height = 0.22 * n_layers * len(pairs) + 0.3 * len(pairs) + 0.55
    figure, axes = panels(len(found) * len(networks), len(networks), (3.3, height), margin=0.5, sharex="col")
    cells = [(method, runs, network) for method, runs in found.items() for network in networks]
    for panel, (method, runs, network) in zip(axes, cells, strict=True):
        panel.set_title(f"{method}: {network}" if network == networks[0] else network)
        _draw(panel, runs, network, pairs)
    figure.supxlabel("skill neurons (mean over seeds; ▾: shared by chance)", fontsize=9)
    patches = [Patch(color=color, label=part) for part, color in _PARTS.items()]
    figure.legend(handles=patches, loc="outside upper center", ncols=3)
    return figure


def _draw(panel: Axes, runs: dict[int, RunNeurons], network: str, pairs: list[tuple[str, str]]) -> None:
    layers = list(layers_of(runs, network))
    names: dict[float, str] = {}
    place = 0.0
    for first, second in pairs:
        panel.text(0.0, place, f"{first} / {second}", fontsize=8, va="center", transform=panel.get_yaxis_transform())
        for layer in layers:
            place += 1
            counts = overlap(runs, network, layer, first, second)
            names[place] = short_name(layer)
            if counts is not None:
                _draw_bar(panel, place, counts)
        place += 1.4
    panel.set_yticks(list(names), list(names.values()), fontsize=8)
    panel.set_ylim(place - 0.7, -0.5)
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    if not layers:
        panel.text(0.5, 0.5, "not masked", ha="center", va="center", color="0.4", transform=panel.transAxes)


def _draw_bar(panel: Axes, place: float, counts: Overlap) -> None:
    left = 0.0
    values = (counts.shared, counts.only_first, counts.only_second)
    for value, (part, color) in zip(values, _PARTS.items(), strict=True):
        bar = panel.barh(place, value, 0.85, left=left, color=color, label=part)
        panel.bar_label(bar, [f"{value:.0f}"], label_type="center", fontsize=7, color="w" if part == "shared" else "k")
        left += value
    panel.plot(counts.by_chance, place - 0.5, "v", color="k", ms=4.5, label="by chance", clip_on=False)
