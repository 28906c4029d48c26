"""How the figures of a comparison look: sizes, and a colour per method and per task that is the same in all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sb3_nbsp.benchmark.results import Results
from sb3_nbsp.figure_style import COLORS, STYLE

_MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p"]
# Paul Tol's muted colours, in an order in which neighbours are far apart
_TASK_COLORS = [
    *("#332288", "#CC6677", "#117733", "#AA4499", "#88CCEE"),
    *("#999933", "#882255", "#44AA99", "#DDCC77", "#777777"),
]


def styled(draw: Callable[[Results], Figure]) -> Callable[[Results], Figure]:
    """
    :param draw: draws a figure
    :return: the same in the style of all figures
    """

    @functools.wraps(draw)
    def with_style(results: Results) -> Figure:
        with matplotlib.rc_context(STYLE):
            figure = draw(results)
            # Otherwise every drawing starts from the layout of the one before, and PNG and SVG differ a little
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
            return figure

    return with_style


def method_style(results: Results, method: str) -> dict[str, Any]:
    """
    :param results: a comparison's results
    :param method: one of its methods
    :return: colour and marker of the method, which depend on its place in the plan alone
    """
    place = results.plan.methods.index(method)
    return {"color": COLORS[place % len(COLORS)], "marker": _MARKERS[place % len(_MARKERS)]}


def draw_baselines(draw_line: Callable[..., Any], values: Mapping[str, float]) -> None:
    """
    Lines for what agents that have learned nothing achieve.

    :param draw_line: ``axhline`` or ``axvline`` of a panel
    :param values: by agent
    """
    for (agent, value), dashes in zip(values.items(), (":", "-."), strict=False):
        draw_line(value, color="0.45", lw=1.1, ls=dashes, label=agent, zorder=0.5)


def task_color(tasks: list[str], task: str) -> str:
    """
    :param tasks: the distinct tasks, in the order in which they are met
    :param task: one of them
    :return: its colour
    """
    return _TASK_COLORS[tasks.index(task) % len(_TASK_COLORS)]


def panels(n: int, columns: int, size: tuple[float, float], margin: float = 0.6, **options: Any) -> tuple[Figure, list[Axes]]:
    """
    A figure with a grid of equal panels.

    :param n: number of panels
    :param columns: panels beside each other, at most
    :param size: width and height of a panel, in inches
    :param margin: height for what stands above all panels, in inches
    :param options: options of :meth:`matplotlib.figure.Figure.subplots`
    :return: the figure, and its panels row by row
    """
    columns = min(n, columns)
    rows = -(-n // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + margin))
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for unused in axes[n:]:
        unused.remove()
    return figure, axes[:n]


def fits(names: list[str], width: float, size: float = 9) -> bool:
    """
    :param names: texts of one line
    :param width: what there is for each, in inches
    :param size: size of the letters, in points
    :return: whether the longest fits
    """
    return max(map(len, names)) * 0.57 * size / 72 <= width
