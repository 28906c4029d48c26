"""Figures of a comparison: the success of methods on a task sequence, the course of training, and all of them as files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from sb3_nbsp.benchmark import neuron_figures
from sb3_nbsp.benchmark.comparison import short_name
from sb3_nbsp.benchmark.frames import CONTINUAL, Results
from sb3_nbsp.benchmark.statistics import interquartile_mean
from sb3_nbsp.benchmark.style import (
    OF_INTEREST,
    NoDataError,
    axis_of,
    colors,
    draw_baselines,
    draw_heatmap,
    heatmap_size,
    task_colors,
    tasks_and_phases,
    with_seeds,
)
from sb3_nbsp.diagnostics.figure import format_panel
from sb3_nbsp.figure_style import STYLE, draw_legend, panels, save
from sb3_nbsp.tasks.registration import is_sequence

MEANINGS = {
    "ASR ↑": "success on the tasks met so far",
    "FM ↓": "forgetting",
    "FWT ↑": "success on the task just trained",
}
MEASURES = ["ep_rew_mean", "weight_norm", "dormant_ratio", "distillation_epochs"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p"]
LINES = ["-", "--", ":", "-."]
GREYS = ["0.25", "0.4", "0.55", "0.7"]
_EQUALLY_WIDE = "phases (all of equal width; below each its mean number of environment steps)"
_SEEDS = "thin: seeds; bold: mean ± standard error"


@contextmanager
def _same_draws() -> Iterator[None]:
    """Seaborn draws jitter from NumPy's global generator: here the same each time, and nobody else's draws change."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)


def metrics_figure(results: Results) -> Figure:
    """
    Mean over seeds ± standard error; each small dot is a seed. ASR: mean success on the tasks met so far, FM: forgetting, FWT:
    success on the task just trained. Grey lines: agents that have learned nothing.
    """
    tasks_and_phases(results)
    methods = list(results.runs.method.unique())
    figure, axes = panels(3, 3, (3.5, 0.4 * len(methods) + 0.6), 0.5 if len(results.baselines) else 0.25, sharey=True)
    runs = results.runs.astype({"method": str})
    style: dict[str, Any] = {"data": runs, "y": "method", "hue": "method", "order": methods, "palette": colors(results)}
    for axis, metric, (title, meaning) in zip(axes, CONTINUAL, MEANINGS.items(), strict=True):
        sns.pointplot(x=metric, errorbar="se", ls="none", markersize=4, capsize=0.25, lw=1.5, ax=axis, clip_on=False, **style)
        with _same_draws():
            sns.stripplot(x=metric, size=3, alpha=0.6, jitter=0.2, ax=axis, legend=False, clip_on=False, **style)
        lines = {} if metric == "FM" else {agent: found[metric] for agent, found in results.baseline_metrics().items()}
        if lines:
            draw_baselines(axis.axvline, results, lines)
        left, right = axis.get_xlim()
        axis.set(title=title, xlabel=meaning.replace("success", results.measure), ylabel="")
        axis.set_xlim(min(-0.03, left), 1.03 if max([runs[metric].max(), *lines.values()]) <= 1 else right)
        axis.xaxis.set_major_locator(MaxNLocator(steps=[2.5, 5, 10]))
        axis.grid(axis="x")
    figure.supxlabel("large: mean ± standard error; small: seeds")
    if len(results.baselines):
        figure.legend(handles=axes[0].get_legend_handles_labels()[0][-2:], loc="outside lower center", ncols=2)
    return figure


def success_matrix_figure(results: Results) -> Figure:
    """Success on every task after every phase, mean over seeds. The task that the phase has trained is framed."""
    tasks, phases = tasks_and_phases(results)
    frames = {with_seeds(method, frame): frame for method, frame in results.success.groupby("method", observed=True)}
    width, height, is_level = heatmap_size(tasks, phases, list(frames))
    figure, axes = panels(len(frames), max(1, min(3, int(12 // width))), (width, height), 0.3)
    high = _highest(results)
    for axis, (title, frame) in zip(axes, frames.items(), strict=True):
        draw_heatmap(axis, frame, tasks, phases, is_level, high)
        axis.set_title(title)
    figure.supxlabel(f"{results.measure} on the task")
    figure.supylabel("after phase")
    return figure


def _highest(results: Results) -> float:
    """Of the numbers in a heatmap of each method, at least 1."""
    means = results.success.groupby(["method", "phase", "task"], observed=True).success.mean()
    return max(1.0, float(means.max()))


def forgetting_figure(results: Results) -> Figure:
    """
    Success on each task after every phase, mean over seeds ± standard error. Phases that train the task are shaded: a drop
    between them is forgetting.
    """
    tasks, phases = tasks_and_phases(results)
    methods = list(results.success.method.unique())
    greys = iter(GREYS * len(methods))
    others = colors(results) if OF_INTEREST.keys().isdisjoint(methods) else {}
    palette = {method: others.get(method) or OF_INTEREST.get(method) or next(greys) for method in methods}
    style: dict[str, Any] = {"hue_order": methods, "palette": palette, "dodge": 0.5 if len(methods) > 1 else False}
    style |= {"markers": (MARKERS * 9)[: len(methods)], "linestyles": (LINES * 9)[: len(methods)]}
    style |= {"native_scale": True, "errorbar": "se", "lw": 1.3, "markersize": 4.5, "err_kws": {"lw": 1}}
    width = max(3.4, 0.45 * len(phases) + 0.8)
    # Scores of games differ in scale
    is_common = results.measure == "success"
    figure, axes = panels(len(tasks), max(1, min(2, int(13 // width))), (width, 2.1), 0.8, sharey=is_common)
    for axis, task in zip(axes, tasks, strict=True):
        for phase in phases.index[phases == task]:
            axis.axvspan(phase - 0.5, phase + 0.5, color="0.92", lw=0, zorder=0)
        part = results.success[results.success.task == task].astype({"method": str})
        sns.pointplot(part, x="phase", y="success", hue="method", ax=axis, **style)
        axis.legend().remove()  # one for all panels is enough
        rates = results.baselines[results.baselines.task == task].set_index("agent").success
        shown = (results.success.success, results.baselines.success) if is_common else (part.success, rates)
        draw_baselines(axis.axhline, results, rates.to_dict())
        axis.set(title=task, xlabel="", ylabel="", xticks=phases.index, xlim=(0.5, len(phases) + 0.5), **axis_of(*shown))
        axis.grid(axis="y")
    figure.supxlabel("after phase (mean ± standard error; shaded: phases that train the task)")
    figure.supylabel(results.measure)
    draw_legend(figure, {}, axes[0].get_legend_handles_labels()[0])
    return figure


def retention_figure(results: Results) -> Figure:
    """
    Success on both tasks while the second is learned: the interquartile mean over seeds with its 95 % interval. What a method
    keeps of the first task is on the left.
    """
    if results.retention.empty:
        raise NoDataError("no run has a readable retention.csv")
    tasks, palette = tasks_and_phases(results)[0], colors(results)
    figure, axes = panels(len(tasks), len(tasks), (4.2, 2.8), 0.7, sharey=True)
    for axis, task in zip(axes, tasks, strict=True):
        frame = results.retention[results.retention.task == task]
        groups = frame.groupby("method", observed=True)
        for (method, part), style in zip(groups, LINES * len(groups), strict=False):
            # Where episodes differ in length, so do the last steps of seeds
            rates = part.pivot_table(index="step", columns="seed", values="success").dropna()
            mean, low, high = zip(*(interquartile_mean(row[:, None]) for row in rates.to_numpy()), strict=True)
            axis.plot(rates.index, mean, style, color=palette[method], lw=1.8, label=with_seeds(method, part))
            axis.fill_between(rates.index, low, high, color=palette[method], alpha=0.15, lw=0)
        axis.set(title=task, **axis_of(results.retention.success))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.grid(axis="y")
    figure.supxlabel(f"training steps on {tasks[-1]} (interquartile mean over seeds, 95 % interval)")
    figure.supylabel(results.measure)
    draw_legend(figure, {}, axes[0].get_legend_handles_labels()[0])
    return figure


def training_figure(results: Results) -> Figure:
    """
    Running mean of the success of the last 10 training episodes: thin lines are seeds, the bold line is their mean with its
    standard error. Every phase is drawn equally wide; dashed lines separate cycles.
    """
    tasks, phases = tasks_and_phases(results)
    groups = _training_by_method(results)
    if results.measure == "score":
        raise NoDataError("the tasks do not report success")
    size = max(6.0 if len(phases) <= 4 else 10.0, 0.55 * len(phases)), 1.7
    figure, axes = panels(len(groups), 2 if len(phases) <= 4 and len(groups) > 3 else 1, size, 0.7, sharey=True)
    for axis, (method, frame) in zip(axes, groups.items(), strict=True):
        _draw_training(axis, frame, phases, task_colors(tasks))
        rates = {agent: phases.map(of.set_index("task").success) for agent, of in results.baselines.groupby("agent")}
        draw_baselines(partial(axis.hlines, xmin=phases.index - 1, xmax=phases.index), results, rates)
        axis.set_title(with_seeds(method, frame))
    figure.supxlabel(f"{_EQUALLY_WIDE}\n{_SEEDS}")
    figure.supylabel("training success")
    draw_legend(figure, task_colors(tasks), axes[0].get_legend_handles_labels()[0])
    return figure


def _training_by_method(results: Results) -> dict[str, pd.DataFrame]:
    if results.training.empty:
        raise NoDataError("no run has a readable training.csv")
    return dict(list(results.training.groupby("method", observed=True)))


def _draw_training(axis: Axes, frame: pd.DataFrame, phases: pd.Series, palette: Mapping[str, str]) -> None:
    for phase, part in frame.assign(place=frame.phase - 1 + frame.share).groupby("phase"):
        style: dict[str, Any] = {"data": part, "x": "place", "y": "success", "color": palette[phases[phase]], "ax": axis}
        sns.lineplot(units="seed", estimator=None, lw=0.6, alpha=0.45, **style)
        sns.lineplot(errorbar="se", lw=2, **style)
        axis.axvspan(phase - 1, phase, color=style["color"], alpha=0.06, lw=0)
        is_new_cycle = phase > 1 and phases[phase] == phases.iloc[0]
        axis.axvline(phase - 1, color="0.3" if is_new_cycle else "0.8", ls="--" if is_new_cycle else "-", lw=1)
    steps = frame.groupby("phase").steps.mean()
    axis.set_xticks(steps.index - 0.5, [f"{_short(n)}{' steps' * (len(phases) <= 8)}" for n in steps])
    axis.set(xlabel="", ylabel="", xlim=(0, len(phases)), ylim=(-0.03, 1.05), yticks=[0, 0.5, 1])
    axis.tick_params(axis="x", length=0)


def _short(steps: float) -> str:
    return f"{round(steps / 1000, 1):g}k" if steps >= 1000 else f"{steps:.0f}"


def overview_figure(results: Results, title: str = "") -> Figure:
    """Draw a row for each method on one sequence: training success over the phases, and the success after each of them."""
    tasks, phases = tasks_and_phases(results)
    groups = _training_by_method(results)
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(2 * len(groups), 2, (5.5, 2.3), 0.8, width_ratios=[3, 1])
        for (method, frame), course, heat in zip(groups.items(), axes[::2], axes[1::2], strict=True):
            _draw_training(course, frame, phases, task_colors(tasks))
            draw_heatmap(heat, results.success[results.success.method == method], tasks, phases, high=_highest(results))
            course.set(title=method, ylabel="training success")
        axes[-2].set_xlabel(_EQUALLY_WIDE)
        axes[1].set_title("success after each phase")
        figure.suptitle(title, x=0.01, ha="left")
        draw_legend(figure, task_colors(tasks))
    return figure


def plasticity_figure(results: Results) -> Figure:
    """Thin lines are seeds, the bold line is their mean with its standard error; dashed: the start of training."""
    frame = results.plasticity[results.plasticity.measure.isin(MEASURES)]
    if frame.empty:
        raise NoDataError("no run has plasticity.csv")
    shown = [name for name in MEASURES if name in set(frame.measure)]
    places = [(env_id, name) for env_id in frame.env.unique() for name in shown]
    figure, axes = panels(len(places), len(shown), (2.9, 2.1))
    for axis, (env_id, name) in zip(axes, places, strict=True):
        part = frame[(frame.env == env_id) & (frame.measure == name)]
        if part.empty:
            axis.remove()
            continue
        for method, of in part.groupby("method", observed=True):
            draw_course(axis, of, method, colors(results)[method], name)
        axis.set(xlabel="", ylabel=env_id if name == shown[0] else "", xlim=(0, part.step.max()))
        format_panel(axis, name)
        axis.ticklabel_format(axis="y", useOffset=False)
    figure.supxlabel(f"environment steps ({_SEEDS})")
    draw_legend(figure, {}, axes[0].get_legend_handles_labels()[0])
    return figure


def draw_course(axis: Axes, frame: pd.DataFrame, method: str, color: str, name: str) -> None:
    """Draw a measure of the seeds of a method, and its mean, over the steps."""
    # Runs that were interrupted may have been measured at other steps: between two of them the course is a line
    course = frame.pivot(index="step", columns="seed", values="value").interpolate("index", limit_area="inside")
    long = course.melt(ignore_index=False, value_name="value").dropna().reset_index()
    style: dict[str, Any] = {"data": long, "x": "step", "y": "value", "color": color, "legend": False, "ax": axis}
    sns.lineplot(units="seed", estimator=None, lw=0.5, alpha=0.4, **style)
    sns.lineplot(errorbar="se", lw=1.8, **style)
    axis.lines[-1].set_label(method)
    if course.index[0] == 0 and name != "distillation_epochs":
        axis.axhline(course.loc[0].mean(), color=color, lw=0.9, ls="--", zorder=1)


# Name of its files, heading, and what draws it: its docstring is the caption
OF_SEQUENCES: list[tuple[str, str, Callable[[Results], Figure]]] = [
    ("metrics", "ASR, FM and FWT", metrics_figure),
    ("training", "Training success over the phases", training_figure),
    ("success_matrix", "Success after each phase", success_matrix_figure),
    ("forgetting", "Forgetting over the phases", forgetting_figure),
    ("skill_neurons", "Skill neurons in each layer", neuron_figures.skill_neurons_figure),
    ("overlap", "Skill neurons that tasks share", neuron_figures.overlap_figure),
    ("histograms", "Activation of skill neurons", neuron_figures.histograms_figure),
]
# Of a comparison with a switch, ahead of the others
AFTER_SWITCH = ("retention", "Retention of the first task", retention_figure)


class Drawing(NamedTuple):
    """A figure that was drawn: the name of its files, its heading, what it shows and how it is read."""

    name: str
    title: str
    caption: str
    figure: Figure


def draw_figures(results: Results) -> tuple[list[Drawing], list[str]]:
    """Draw the figures of a comparison; they, and for each that there is no data for a sentence that says why."""
    env_ids = results.comparison.env_ids.values()
    sequences = [env_id for env_id in env_ids if is_sequence(env_id)]
    kinds = OF_SEQUENCES if results.comparison.switch_steps is None else [AFTER_SWITCH, *OF_SEQUENCES]
    todo = [(results.of(env_id), env_id, *figure) for env_id in sequences for figure in kinds]
    if len(sequences) < len(env_ids):
        todo.append((results, "", "plasticity", "Return and plasticity", plasticity_figure))
    drawn, skipped = [], []
    for part, env_id, name, title, draw in todo:
        if env_id and len(env_ids) > 1:
            name, title = f"{short_name(env_id)}_{name}", f"{title}: {short_name(env_id)}"
        try:
            with matplotlib.rc_context(STYLE):
                drawn.append(Drawing(name, title, " ".join((draw.__doc__ or "").split()), draw(part)))
        except NoDataError as error:
            skipped.append(f"The figure “{title}” was not drawn: {error}.")
    return drawn, skipped


def write_figures(results: Results, folder: str | os.PathLike[str] | None = None) -> list[Path]:
    """Write each figure as PNG and SVG, in ``plots`` in the comparison's folder or elsewhere; print why others are skipped."""
    folder = results.folder / "plots" if folder is None else Path(folder)
    drawn, skipped = draw_figures(results)
    for sentence in skipped:
        print(sentence)
    return [save(each.figure, folder / f"{each.name}.{form}") for each in drawn for form in ("png", "svg")]
