"""Figures of the success of methods on a task sequence."""

from __future__ import annotations

from typing import Any

import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from sb3_nbsp.benchmark.frames import CONTINUAL, Results
from sb3_nbsp.benchmark.statistics import interquartile_mean
from sb3_nbsp.benchmark.style import (
    GREYS,
    MARKERS,
    OF_INTEREST,
    NoDataError,
    colors,
    draw_baselines,
    heatmap,
    panels,
    phases_of,
    seeds,
    tasks_of,
)

MEANINGS = {
    "ASR ↑": "success on the tasks met so far",
    "FM ↓": "forgetting",
    "FWT ↑": "success on the task just trained",
}


def metrics_figure(results: Results) -> Figure:
    """
    Mean over seeds ± standard error; each small dot is a seed. ASR: mean success on the tasks met so far, FM: forgetting, FWT:
    success on the task just trained. Grey lines: agents that have learned nothing.
    """
    tasks_of(results)
    methods = list(results.runs.method.unique())
    figure, axes = panels(3, 3, (3.5, 0.4 * len(methods) + 0.6), 0.5 if len(results.baselines) else 0.25, sharey=True)
    style: dict[str, Any] = {
        "data": results.runs.astype({"method": str}),
        "y": "method",
        "hue": "method",
        "palette": colors(results),
    }
    for axis, metric, (title, meaning) in zip(axes, CONTINUAL, MEANINGS.items(), strict=True):
        sns.pointplot(x=metric, order=methods, errorbar="se", ls="none", markersize=4, capsize=0.25, lw=1.5, ax=axis, **style)
        sns.stripplot(x=metric, order=methods, size=3, alpha=0.6, jitter=0.2, ax=axis, legend=False, **style)
        if metric != "FM":
            draw_baselines(axis.axvline, {agent: found[metric] for agent, found in results.baseline_metrics().items()})
        axis.set(title=title, xlabel=meaning, ylabel="", xlim=(min(-0.03, axis.get_xlim()[0]), 1.03))
        axis.xaxis.set_major_locator(MaxNLocator(steps=[2.5, 5, 10]))
        axis.grid(axis="x", color="0.85", lw=0.6)
    if len(results.baselines):
        figure.legend(handles=axes[0].get_legend_handles_labels()[0][-2:], loc="outside lower center", ncols=2)
    return figure


def success_matrix_figure(results: Results) -> Figure:
    """Success on every task after every phase, mean over seeds. The task that the phase has trained is framed."""
    tasks, phases = tasks_of(results), phases_of(results)
    methods = list(results.success.method.unique())
    is_flat = max(map(len, tasks)) * 0.075 < max(0.62, 2.2 / len(tasks))
    cells = max(0.62 * len(tasks), 2.2, 0.085 * (max(map(len, methods)) + 10))  # the title has to fit, too
    width = cells + 0.075 * max(map(len, phases)) + 0.3
    height = 0.27 * len(phases) + 0.5 + (0.4 if is_flat else 0.06 * max(map(len, tasks)))
    figure, axes = panels(len(methods), max(1, min(3, int(12 // width))), (width, height), 0.3)
    for axis, method in zip(axes, methods, strict=True):
        frame = results.success[results.success.method == method]
        heatmap(axis, frame, tasks, phases)
        axis.set_title(f"{method} ({seeds(frame.seed.nunique())})")
        axis.tick_params(axis="x", labelrotation=0 if is_flat else 35)
        for label in [] if is_flat else axis.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    figure.supxlabel("success on the task", fontsize=9)
    figure.supylabel("after phase", fontsize=9)
    return figure


def forgetting_figure(results: Results) -> Figure:
    """
    Success on each task after every phase, mean over seeds ± standard error. Phases that train the task are shaded: a drop
    between them is forgetting.
    """
    tasks, phases = tasks_of(results), phases_of(results)
    methods = list(results.success.method.unique())
    greys = iter(GREYS * len(methods))
    palette = {method: OF_INTEREST.get(method) or next(greys) for method in methods}
    if not set(OF_INTEREST) & set(methods):
        palette = {method: color for method, color in colors(results).items() if method in methods}
    width = max(3.4, 0.45 * len(phases) + 0.8)
    figure, axes = panels(len(tasks), max(1, min(2, int(13 // width))), (width, 2.1), 0.8, sharey=True)
    frame = results.success.astype({"method": str})
    for axis, task in zip(axes, tasks, strict=True):
        for phase in phases.index[phases == task]:
            axis.axvspan(phase - 0.5, phase + 0.5, color="0.92", lw=0, zorder=0)
        part = frame[frame.task == task]
        style: dict[str, Any] = {
            "markers": (MARKERS * 9)[: len(methods)],
            "linestyles": (["-", "--", ":", "-."] * 9)[: len(methods)],
        }
        style |= {"hue_order": methods, "palette": palette, "dodge": 0.5 if len(methods) > 1 else False, "errorbar": "se"}
        sns.pointplot(
            part,
            x="phase",
            y="success",
            hue="method",
            native_scale=True,
            lw=1.3,
            markersize=4.5,
            err_kws={"lw": 1},
            ax=axis,
            **style,
        )
        rates = results.baselines[results.baselines.task == task].set_index("agent").success
        draw_baselines(axis.axhline, rates.to_dict())
        axis.set(
            title=task,
            xlabel="",
            ylabel="",
            ylim=(-0.05, 1.05),
            xticks=phases.index,
            yticks=[0, 0.25, 0.5, 0.75, 1],
            xlim=(0.5, len(phases) + 0.5),
        )
        axis.grid(axis="y", color="0.85", lw=0.6)
    figure.supxlabel("after phase (shaded: phases that train the task)", fontsize=9)
    figure.supylabel("success", fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4 if len(axes) > 1 else 2)
    return figure


def retention_figure(results: Results) -> Figure:
    """
    Success on both tasks while the second is learned: the interquartile mean over seeds with its 95 % interval. What a method
    keeps of the first task is on the left.
    """
    if results.retention.empty:
        raise NoDataError("no run has a readable retention.csv")
    tasks, palette = tasks_of(results), colors(results)
    figure, axes = panels(len(tasks), len(tasks), (4.2, 2.8), 0.7, sharey=True)
    for axis, task in zip(axes, tasks, strict=True):
        frame = results.retention[results.retention.task == task]
        for method, part in frame.groupby("method", observed=True):
            # Where episodes differ in length, so do the last steps of seeds
            rates = part.pivot_table(index="step", columns="seed", values="success").dropna()
            bands = [interquartile_mean(row.to_numpy()[:, None]) for _, row in rates.iterrows()]
            mean, low, high = zip(*bands, strict=True)
            axis.plot(rates.index, mean, color=palette[str(method)], lw=1.8, label=f"{method} ({seeds(rates.shape[1])})")
            axis.fill_between(rates.index, low, high, color=palette[str(method)], alpha=0.15, lw=0)
        axis.set(title=task, ylim=(-0.03, 1.05), yticks=[0, 0.25, 0.5, 0.75, 1])
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.grid(axis="y", color="0.85", lw=0.6)
    figure.supxlabel(f"steps of {tasks[-1]}", fontsize=9)
    figure.supylabel("success", fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure
