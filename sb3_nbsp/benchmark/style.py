"""How the figures of a comparison look, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from sb3_nbsp.benchmark.frames import Results
from sb3_nbsp.benchmark.methods import METHODS
from sb3_nbsp.extras import needs
from sb3_nbsp.figure_style import COLORS, LETTER

with needs("benchmark", "A figure"):
    import seaborn as sns
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle

# Paul Tol's muted colours, in an order in which neighbours are far apart
TASK_COLORS = ["#332288", "#CC6677", "#117733", "#AA4499", "#88CCEE", "#999933", "#882255", "#44AA99", "#DDCC77", "#777777"]
# Those of the two that every figure is about, on either base; the others share what is left
OF_INTEREST = {
    METHODS[f"{name}_{base}"].title: color
    for name, color in zip(("nbsp", "continual"), COLORS, strict=False)
    for base in ("sac", "discrete_sac")
}


def axis_of(*values: pd.Series) -> dict[str, Any]:
    """Limits and ticks of an axis of success: from 0 to 1, and further where games have scores or returns beyond that."""
    everything = [0.0, 1.0, *(value for each in values for value in each)]
    low, high = min(everything), max(everything)
    margin = 0.05 * (high - low)
    ticks = {"yticks": [0, 0.25, 0.5, 0.75, 1]} if (low, high) == (0, 1) else {}
    return {"ylim": (low - margin, high + margin), **ticks}


class NoDataError(ValueError):
    """The results hold nothing that a figure could show; the message says what is missing."""


def colors(results: Results) -> dict[str, str]:
    """Colour of each method, by its title; it does not depend on which runs are done."""
    titles = [METHODS[name].title for name in results.comparison.methods]
    others = iter([color for color in COLORS if color not in OF_INTEREST.values()] * len(titles))
    return {title: OF_INTEREST.get(title) or next(others) for title in titles}


def task_colors(tasks: Sequence[str]) -> dict[str, str]:
    """Colour of each of the distinct tasks, in the order in which they are met."""
    return {task: TASK_COLORS[place % len(TASK_COLORS)] for place, task in enumerate(tasks)}


def tasks_and_phases(results: Results) -> tuple[list[str], pd.Series]:
    """The distinct tasks of the only sequence, in the order in which they are met, and the task of each phase."""
    if results.success.empty:
        raise NoDataError("no run is done")
    phases = results.success.drop_duplicates("phase").set_index("phase").sort_index().trained
    return list(results.success.task.unique()), phases


def with_seeds(title: object, frame: pd.DataFrame) -> str:
    """The title of a method with its number of seeds."""
    number = frame.seed.nunique()
    return f"{title} ({number} seed{'s' * (number > 1)})"


def draw_baselines(draw_line: Callable[..., Any], results: Results, values: Mapping[str, Any]) -> None:
    """Draw what each agent that has learned nothing achieves, by ``axhline`` and the like with the values."""
    for agent, dashes in zip(results.baselines.agent.unique(), (":", "-."), strict=False):
        draw_line(values[agent], color="0.45", lw=1.1, ls=dashes, label=agent, zorder=0.5)


def heatmap_size(tasks: Sequence[str], phases: pd.Series, titles: Sequence[str]) -> tuple[float, float, bool]:
    """Width and height that a heatmap and its title need, in inches, and whether there is room for level names of tasks."""
    is_level = len(tasks) <= 3
    longest = max(map(len, tasks)) * LETTER
    cells = max(len(tasks) * (longest + 0.15 if is_level else 0.62), 1.15 * LETTER * max(map(len, titles)))
    height = 0.27 * len(phases) + 0.5 + (0.4 if is_level else 0.8 * longest)
    return cells + LETTER * max(map(len, phases)) + 0.3, height, is_level


def draw_heatmap(
    axis: Axes, frame: pd.DataFrame, tasks: Sequence[str], phases: pd.Series, is_level: bool = True, high: float = 1.0
) -> None:
    """Draw the mean success on each task after each phase, colours up to ``high``; the task that was trained is framed."""
    values = frame.pivot_table(index="phase", columns="task", values="success", observed=True)[list(tasks)]
    rows = [f"{phase}  {task}" for phase, task in phases.items()]
    style: dict[str, Any] = {"vmin": 0, "vmax": high, "cmap": "viridis", "fmt": ".2f", "annot_kws": {"size": 8}}
    numbers = values.mask(values.abs() < 0.005, 0.0)  # no -0.00
    sns.heatmap(values, annot=numbers, cbar=False, yticklabels=rows, ax=axis, **style)
    for row, task in enumerate(phases):
        axis.add_patch(Rectangle((list(tasks).index(task), row), 1, 1, fill=False, ec=COLORS[1], lw=2, clip_on=False))
    axis.set(xlabel="", ylabel="")
    axis.tick_params(length=0, rotation=0)
    for label in () if is_level else axis.get_xticklabels():
        label.set(rotation=35, ha="right", rotation_mode="anchor")
