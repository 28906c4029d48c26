"""Figures of skill neurons: where they are, which of them tasks share, and how they act."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sb3_nbsp.benchmark.frames import Results
from sb3_nbsp.benchmark.style import NoDataError, task_colors
from sb3_nbsp.figure_style import COLORS, draw_legend, panels

# More tasks have too many pairs to be read: then only tasks that follow each other
_MAX_TASKS_WITH_ALL_PAIRS = 3
# Shared ones first: their bars begin at zero, and compare with the number by chance
_PARTS = {"shared": COLORS[0], "only the first": "#E69F00", "only the second": "#9AD0F0"}
_STEPS = {"success": COLORS[0], "failure": COLORS[1]}
_MOST_HISTOGRAMS = 4


def _identified(results: Results) -> pd.DataFrame:
    """What the last phase of each task has identified."""
    if results.neurons.empty:
        raise NoDataError("no run has identified skill neurons (neurons.json)")
    keys = ["method", "seed", "task", "network", "layer"]
    frame = results.neurons.sort_values(["phase", "layer"]).groupby(keys, observed=True).tail(1)
    networks = pd.Categorical(frame.network, results.neurons.network.unique(), ordered=True)
    return frame.assign(network=networks, count=frame.neurons.map(len), layer=frame.layer.map("layer {}".format))


def _grid(
    frame: pd.DataFrame, size: tuple[float, float], **options: Any
) -> tuple[Figure, Iterator[tuple[Axes, tuple[str, str], pd.DataFrame]]]:
    """A panel for each method and network that has skill neurons, with its title and its part of :func:`_identified`."""
    groups = {names: part for names, part in frame.groupby(["method", "network"], observed=True) if part["count"].any()}
    columns = max(1, pd.Series([method for method, _ in groups]).value_counts().max())
    figure, axes = panels(len(groups), columns, size, 0.6, **options)
    for axis, names in zip(axes, groups, strict=True):
        axis.set_title(": ".join(names))
    return figure, ((axis, names, part) for axis, (names, part) in zip(axes, groups.items(), strict=True))


def skill_neurons_figure(results: Results) -> Figure:
    """
    Number of skill neurons of each task, as the last of its phases identified them, mean over seeds ± standard error; behind
    them the number of neurons whose mask is below 1 at the end.
    """
    frame, tasks = _identified(results), list(results.success.task.unique())
    width = max(2.7, 0.5 + frame.layer.nunique() * (0.35 + 0.14 * len(tasks)))
    figure, grid = _grid(frame, (width, 1.8), sharey=True)
    for axis, _, part in grid:
        masked = part[part.phase == part.groupby("seed").phase.transform("max")].groupby("layer").masked.mean()
        axis.bar(range(len(masked)), masked, 0.9, fc="0.9", ec="0.6", lw=0.8)
        style: dict[str, Any] = {"hue_order": tasks, "palette": task_colors(tasks), "order": list(masked.index)}
        style |= {"errorbar": "se", "err_kws": {"lw": 0.9}, "capsize": 0.1, "legend": False}
        style["saturation"] = 1  # seaborn pales bars by default, and not the legend
        sns.barplot(part, x="layer", y="count", hue="task", ax=axis, **style)
        widths = part.groupby("layer").width.first()
        axis.set_xticks(range(len(widths)), [f"{layer}\nof {width}" for layer, width in widths.items()])
        axis.set(xlabel="", ylabel="neurons")
        axis.tick_params(axis="x", length=0)
    draw_legend(figure, task_colors(tasks), [Patch(fc="0.9", ec="0.6", label="masked at the end")])
    return figure


def overlaps(results: Results) -> pd.DataFrame:
    """
    Skill neurons of pairs of tasks, mean over seeds: of all pairs of up to three tasks, of more those that follow each other.

    :param results: a comparison on one sequence
    :return: a row for each ``method``, ``network``, ``pair`` and ``layer``: how many are ``shared``, ``only the first`` task's
        and ``only the second``'s, and how many would be shared ``by chance``: n₁ n₂ / width
    """
    frame, tasks = _identified(results), list(results.success.task.unique())
    keys, parts = ["method", "network", "layer", "seed", "width"], []
    for first, second in combinations(tasks, 2) if len(tasks) <= _MAX_TASKS_WITH_ALL_PAIRS else pairwise(tasks):
        both = pd.merge(frame[frame.task == first], frame[frame.task == second], on=keys, suffixes=("", "_second"))
        pairs = list(zip(both.neurons, both.neurons_second, both.width, strict=True))
        counts = [(len(a & b), len(a - b), len(b - a), len(a) * len(b) / width) for a, b, width in pairs]
        counted = pd.DataFrame(counts, columns=[*_PARTS, "by chance"], dtype=float)
        parts.append(pd.concat([both[["method", "network", "layer"]], counted], axis=1).assign(pair=f"{first} / {second}"))
    if not parts or not sum(map(len, parts)):
        raise NoDataError("no run has identified skill neurons of two tasks")
    return pd.concat(parts).groupby(["method", "network", "pair", "layer"], observed=True, sort=False).mean().reset_index()


def overlap_figure(results: Results) -> Figure:
    """
    Skill neurons of both tasks and of one alone, mean over seeds. The black triangle marks how many would be shared if both
    were drawn at random.
    """
    frame = overlaps(results)
    n_bars = frame.groupby(["pair", "layer"]).ngroups
    figure, grid = _grid(_identified(results), (3.4, 0.24 * n_bars + 0.3 * frame.pair.nunique() + 0.6), sharex="col")
    for axis, (method, network), _ in grid:
        names: dict[float, str] = {}
        place = 0.0
        for pair, rows in frame[(frame.method == method) & (frame.network == network)].groupby("pair", sort=False):
            axis.text(0, place, pair, fontsize=8, va="center", transform=axis.get_yaxis_transform())
            for row in rows.to_dict("records"):
                place += 1
                names[place] = row["layer"]
                _draw_bar(axis, place, row, smallest_text=0.04 * frame[list(_PARTS)].sum(axis=1).max())
            place += 1.4
        axis.set_yticks(list(names), list(names.values()), fontsize=8)
        axis.set_ylim(place - 0.7, -0.5)
        axis.tick_params(axis="y", length=0)
    figure.supxlabel("skill neurons (mean over seeds; ▾: shared by chance)")
    draw_legend(figure, _PARTS)
    return figure


def _draw_bar(axis: Axes, place: float, row: dict[Any, Any], smallest_text: float) -> None:
    left = 0.0
    for part, color in _PARTS.items():
        bar = axis.barh(place, row[part], 0.85, left=left, color=color, label=part)
        if row[part] >= smallest_text:
            text_color = "w" if part == "shared" else "k"
            axis.bar_label(bar, [f"{row[part]:.0f}"], label_type="center", fontsize=7, color=text_color)
        left += row[part]
    axis.plot(row["by chance"], place - 0.5, "v", color="k", ms=4.5, clip_on=False)


def histograms_figure(results: Results) -> Figure:
    """
    Activation of the best-scored skill neurons at steps with success and at steps without, each as a share of its steps: of
    the first seed, phase and network that has any.
    """
    frame = results.histograms
    if frame.empty:
        raise NoDataError("no run has histograms of activations (neurons.json)")
    keys = ["method", "seed", "phase", "network"]
    best = frame.merge(frame[keys].drop_duplicates("method"), on=keys).sort_values("score", ascending=False, kind="stable")
    groups = dict(list(best.groupby("method", observed=True).head(_MOST_HISTOGRAMS).groupby("method", observed=True)))
    columns = max(map(len, groups.values()))
    figure, axes = panels(columns * len(groups), columns, (2.5, 1.95))
    for number, (method, rows) in enumerate(groups.items()):
        shown, row = axes[number * columns : (number + 1) * columns], rows.iloc[0]
        heading = f"{method}: {row.network} after {row.task}, seed {row.seed}"
        # Wider than its panel: the layout leaves its line to it, but not its width
        shown[0].annotate(heading, (0, 1), (0, 17), "axes fraction", "offset points", fontweight="bold").set_in_layout(False)
        shown[0].set_ylabel("share of steps")
        for axis, row in zip(shown, rows.itertuples(), strict=False):
            for kind, color in _STEPS.items():
                counts = np.array(getattr(row, kind), dtype=float)
                shares = counts / max(counts.sum(), 1)
                axis.stairs(shares, row.edges, fill=True, alpha=0.35, color=color, label=f"steps with {kind}")
                # An outline as well: where the areas lie on each other their colours mix
                axis.stairs(shares, row.edges, color=color, ls="-" if kind == "success" else "--", lw=1.2)
            title = f"\nlayer {row.layer}, neuron {row.neuron}, score {row.score:.2f}"
            axis.set_title(title, fontsize=7.5, fontweight="normal")
            axis.locator_params(nbins=4)
        for unused in shown[len(rows) :]:
            unused.remove()
    figure.supxlabel("activation")
    draw_legend(figure, {}, axes[0].get_legend_handles_labels()[0])
    return figure
