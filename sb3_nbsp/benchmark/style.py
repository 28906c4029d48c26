"""How the figures of a comparison look, and what they share."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sb3_nbsp.benchmark.frames import Results
from sb3_nbsp.benchmark.methods import METHODS
from sb3_nbsp.extras import needs
from sb3_nbsp.figure_style import COLORS, STYLE
from sb3_nbsp.files import atomic_path

with needs("benchmark", "A figure"):
    import matplotlib
    import seaborn as sns
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

DPI = 150
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p"]
# Paul Tol's muted colours, in an order in which neighbours are far apart
TASK_COLORS = ["#332288", "#CC6677", "#117733", "#AA4499", "#88CCEE", "#999933", "#882255", "#44AA99", "#DDCC77", "#777777"]
# Those of the two that every figure is about; the others share what is left
OF_INTEREST = {METHODS["nbsp_sac"].title: COLORS[0], METHODS["continual_sac"].title: COLORS[1]}
GREYS = ["0.25", "0.4", "0.55", "0.7"]


class NoDataError(ValueError):
    """The results hold nothing that a figure could show; the message says what is missing."""


def panels(n: int, columns: int, size: tuple[float, float], margin: float = 0.5, **options: Any) -> tuple[Figure, list[Axes]]:
    """
    :param n: number of panels
    :param columns: panels beside each other, at most
    :param size: width and height of a panel, in inches
    :param margin: height for what stands above or below all panels, in inches
    :param options: of :meth:`matplotlib.figure.Figure.subplots`
    :return: a figure and its panels, row by row
    """
    columns = min(n, columns)
    rows = -(-n // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + margin))
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for unused in axes[n:]:
        unused.remove()
    return figure, axes[:n]


def colors(results: Results) -> dict[str, str]:
    """Colour of each method, by its title; it does not depend on which runs are done."""
    titles = [METHODS[name].title for name in results.comparison.methods]
    others = iter([color for color in COLORS if color not in OF_INTEREST.values()] * len(titles))
    return {title: OF_INTEREST.get(title) or next(others) for title in titles}


def task_colors(tasks: Sequence[str]) -> dict[str, str]:
    """Colour of each of the distinct tasks, in the order in which they are met."""
    return {task: TASK_COLORS[place % len(TASK_COLORS)] for place, task in enumerate(tasks)}


def tasks_of(results: Results) -> list[str]:
    """The distinct tasks of the only sequence, in the order in which they are met."""
    if results.success.empty:
        raise NoDataError("no run is done")
    return list(results.success.task.unique())


def phases_of(results: Results) -> pd.Series:
    """The task of each phase."""
    return results.success.drop_duplicates("phase").set_index("phase").sort_index().trained


def seeds(number: int) -> str:
    """A number of seeds in words."""
    return f"{number} seed{'s' * (number > 1)}"


def draw_baselines(draw_line: Callable[..., Any], values: Mapping[str, float]) -> None:
    """By ``axhline`` or ``axvline`` of a panel, a line for what each agent that has learned nothing achieves."""
    for (agent, value), dashes in zip(values.items(), (":", "-."), strict=False):
        draw_line(value, color="0.45", lw=1.1, ls=dashes, label=agent, zorder=0.5)


def draw_legend(figure: Figure, palette: Mapping[str, str], more: Sequence[Any] = ()) -> None:
    """Above all panels, the colours of tasks and what else there is, in as many rows as it takes."""
    handles = [Rectangle((0, 0), 1, 1, color=color, label=name) for name, color in palette.items()]
    width = sum(len(str(handle.get_label())) + 6 for handle in (*handles, *more)) * 0.075
    rows = int(np.ceil(width / figure.get_figwidth()))
    figure.legend(handles=[*handles, *more], loc="outside upper center", ncols=int(np.ceil(len([*handles, *more]) / rows)))


def heatmap(axis: Axes, frame: pd.DataFrame, tasks: Sequence[str], phases: pd.Series) -> None:
    """Mean success on each task after each phase, in which the task that the phase has trained is framed."""
    values = frame.pivot_table(index="phase", columns="task", values="success", observed=True)[list(tasks)]
    rows = [f"{phase}  {task}" for phase, task in phases.items()]
    sns.heatmap(
        values,
        vmin=0,
        vmax=1,
        cmap="viridis",
        annot=True,
        fmt=".2f",
        annot_kws={"size": 8},
        cbar=False,
        yticklabels=rows,
        ax=axis,
    )
    for row, task in enumerate(phases):
        axis.add_patch(Rectangle((list(tasks).index(task), row), 1, 1, fill=False, ec=COLORS[1], lw=2, clip_on=False))
    axis.set(xlabel="", ylabel="")
    axis.tick_params(length=0, rotation=0)


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG or SVG, by the path's suffix."""
    with matplotlib.rc_context(STYLE), atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format=Path(path).suffix[1:])
    return Path(path)


def data_uri(figure: Figure) -> str:
    """A figure as SVG in an address that needs no file."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
