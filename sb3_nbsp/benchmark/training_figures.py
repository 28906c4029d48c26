"""Figures of the course of training: on task sequences, on other environments and of single runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import matplotlib
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from sb3_nbsp.benchmark.folder import RunFolder
from sb3_nbsp.benchmark.frames import Results, episodes_frame, success_frame
from sb3_nbsp.benchmark.style import NoDataError, colors, draw_legend, heatmap, panels, phases_of, seeds, task_colors, tasks_of
from sb3_nbsp.figure_style import STYLE

MEASURES = {
    "ep_rew_mean": "training return",
    "weight_norm": "weight norm",
    "dormant_ratio": "dormant ratio",
    "distillation_epochs": "epochs of distillation",
}
FROM_ZERO = ("dormant_ratio", "distillation_epochs")  # their height counts; of the others, the change


def training_figure(results: Results) -> Figure:
    """
    Running mean of the success of the last 10 training episodes: thin lines are seeds, the bold line is their mean with its
    standard error. Every phase is drawn equally wide; dashed lines separate cycles.
    """
    phases, palette = phases_of(results), task_colors(tasks_of(results))
    methods = list(results.training.method.unique()) if len(results.training) else []
    if not methods:
        raise NoDataError("no run has a readable training.csv")
    columns = 2 if len(phases) <= 4 and len(methods) > 3 else 1
    width = max(6.0 if len(phases) <= 4 else 10.0, 0.55 * len(phases))
    figure, axes = panels(len(methods), columns, (width, 1.7), 0.7, sharey=True)
    for axis, method in zip(axes, methods, strict=True):
        frame = results.training[results.training.method == method]
        for phase, part in frame.assign(place=frame.phase - 1 + frame.share).groupby("phase"):
            style = {"data": part, "x": "place", "y": "success", "color": palette[phases[phase]], "ax": axis}
            sns.lineplot(units="seed", estimator=None, lw=0.6, alpha=0.45, **style)
            sns.lineplot(errorbar="se", lw=2, **style)
            axis.axvspan(phase - 1, phase, color=style["color"], alpha=0.06, lw=0)
            is_new_cycle = phase > 1 and phases[phase] == phases.iloc[0]
            axis.axvline(phase - 1, color="0.3" if is_new_cycle else "0.8", ls="--" if is_new_cycle else "-", lw=1)
        steps = frame.groupby("phase").steps.mean()
        places, names = (
            steps.index - 0.5,
            [f"{number / 1000:.0f}k steps" if len(phases) <= 8 else f"{number / 1000:.0f}k" for number in steps],
        )
        axis.set(
            title=f"{method} ({seeds(frame.seed.nunique())})", xlabel="", ylabel="", xlim=(0, len(phases)), ylim=(-0.03, 1.05)
        )
        axis.set_xticks(places, names)
        axis.set_yticks([0, 0.5, 1])
        axis.tick_params(axis="x", length=0)
        for agent, dashes in zip(results.baselines.agent.unique(), (":", "-."), strict=False):
            rates = results.baselines[results.baselines.agent == agent].set_index("task").success
            axis.hlines(phases.map(rates), phases.index - 1, phases.index, color="0.45", lw=1.1, ls=dashes, label=agent)
    figure.supxlabel("phases, each as wide as the others; below each its mean number of environment steps", fontsize=9)
    figure.supylabel("training success", fontsize=9)
    draw_legend(figure, palette, axes[0].get_legend_handles_labels()[0])
    return figure


def plasticity_figure(results: Results) -> Figure:
    """Thin lines are seeds, the bold line is their mean with its standard error; dashed: the start of training."""
    frame = results.plasticity[results.plasticity.measure.isin(MEASURES)]
    if frame.empty:
        raise NoDataError("no run has plasticity.csv")
    env_ids = list(frame.env.unique())
    shown = [name for name in MEASURES if name in set(frame.measure)]
    figure, axes = panels(len(env_ids) * len(shown), len(shown), (2.9, 2.1))
    for place, axis in enumerate(axes):
        env_id, name = env_ids[place // len(shown)], shown[place % len(shown)]
        part = frame[(frame.env == env_id) & (frame.measure == name)]
        for method, color in colors(results).items():
            _draw_course(axis, part[part.method == method], method, color, name)
        axis.set(title=f"{env_id}: {MEASURES[name]}" if place % len(shown) == 0 else MEASURES[name], xlabel="", ylabel="")
        axis.set_xlim(0, part.step.max())
        if name in FROM_ZERO:
            top = max(axis.get_ylim()[1], 0.1)
            axis.set_ylim(-0.03 * top, top)  # a line at zero is seen, too
        axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.ticklabel_format(axis="y", useOffset=False)
    figure.supxlabel("environment steps", fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=len(results.comparison.methods))
    return figure


def _draw_course(axis: Axes, frame: pd.DataFrame, method: str, color: str, name: str) -> None:
    if frame.empty:
        return
    # Runs that were interrupted may have been measured at other steps: between two of them the course is a line
    course = frame.pivot(index="step", columns="seed", values="value").interpolate("index", limit_area="inside")
    long = course.melt(ignore_index=False, value_name="value").dropna().reset_index()
    style: dict[str, Any] = {"data": long, "x": "step", "y": "value", "color": color, "legend": False, "ax": axis}
    sns.lineplot(units="seed", estimator=None, lw=0.5, alpha=0.4, **style)
    sns.lineplot(errorbar="se", lw=1.8, **style)
    axis.lines[-1].set_label(method)
    if course.index[0] == 0 and name != "distillation_epochs":
        axis.axhline(course.loc[0].mean(), color=color, lw=0.9, ls="--", zorder=1)


def runs_figure(runs: Mapping[str, str | os.PathLike[str]], title: str = "") -> Figure:
    """
    For each run, the training success over the steps and the success after each phase.

    :param runs: name of each method and the folder of its run
    :param title: of the figure
    :return: the figure
    :raises FileNotFoundError: if a run has no finished phase
    """
    matrices = {name: RunFolder(folder).matrix() for name, folder in runs.items()}
    palette = task_colors(list(dict.fromkeys(task for matrix in matrices.values() for task in matrix.tasks)))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 2.3 * len(runs) + 0.8))
        axes = figure.subplots(len(runs), 2, width_ratios=[3, 1], squeeze=False)
        for (name, folder), (curve, heat) in zip(runs.items(), axes, strict=True):
            start = 0
            for _, part in episodes_frame(RunFolder(folder)).groupby("part"):
                color = palette[part.task.iloc[0]]
                sns.lineplot(part, x="step", y="success", color=color, ax=curve)
                curve.axvspan(start, part.step.iloc[-1], color=color, alpha=0.08, lw=0)
                start = part.step.iloc[-1]
                curve.axvline(start, color="grey", ls="--", lw=0.8)
            curve.set(title=name, xlabel="", ylabel="training success", ylim=(-0.03, 1.05), yticks=[0, 0.5, 1])
            curve.xaxis.set_major_formatter(EngFormatter(sep=""))
            frame = success_frame(matrices[name]).assign(method=name)
            heatmap(heat, frame, matrices[name].tasks, frame.drop_duplicates("phase").set_index("phase").trained)
        end = max(curve.get_xlim()[1] for curve in axes[:, 0])
        for curve in axes[:, 0]:
            curve.set_xlim(0, end)
        axes[-1, 0].set_xlabel("environment steps")
        axes[0, 1].set_title("success after each phase")
        figure.suptitle(title, x=0.01, ha="left")
        draw_legend(figure, palette)
    return figure
