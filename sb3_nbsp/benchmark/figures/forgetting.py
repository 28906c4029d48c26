"""Figure: what becomes of each task over the phases."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from sb3_nbsp.benchmark.figures.matrices import sequence_of, stacked
from sb3_nbsp.benchmark.figures.statistics import mean_and_error
from sb3_nbsp.benchmark.figures.style import draw_baselines, method_style, panels, styled
from sb3_nbsp.benchmark.results import Results


@styled
def forgetting_figure(results: Results) -> Figure:
    """
    The success on each task after every phase: mean over seeds with standard error, a line for each method.
    Phases that train the task are shaded, so that one sees where it is lost. Grey lines are agents that have learned nothing.

    :param results: a comparison's results
    :return: the figure
    :raises NoDataError: if no run is done
    """
    sequence = sequence_of(results)
    numbers = np.arange(1, len(sequence.phase_tasks) + 1)
    size = (max(3.2, 0.45 * len(numbers) + 0.8), 2.1)
    legend_columns = 3 if len(sequence.tasks) > 1 else 2
    margin = 0.5 + 0.2 * -(-(len(results.methods) + len(results.baselines)) // legend_columns)
    columns = max(1, min(2, int(13 // size[0])))
    figure, axes = panels(len(sequence.tasks), columns, size, margin=margin, sharex=True, sharey=True)
    statistics = {method: mean_and_error(stacked(results, method)) for method in results.methods}
    # Beside each other within a phase, else their intervals hide each other
    offsets = np.linspace(-0.25, 0.25, len(statistics)) if len(statistics) > 1 else np.zeros(1)
    for column, (panel, task) in enumerate(zip(axes, sequence.tasks, strict=True)):
        for number, trained in zip(numbers, sequence.phase_tasks, strict=True):
            if trained == task:
                panel.axvspan(number - 0.5, number + 0.5, color="0.9", lw=0, zorder=0)
        for offset, (method, (mean, error)) in zip(offsets, statistics.items(), strict=True):
            style = method_style(results, method)
            panel.errorbar(
                numbers + offset, mean[:, column], error[:, column], label=method, lw=1.3, ms=4.5, elinewidth=1, **style
            )
        draw_baselines(panel.axhline, {agent: success[task] for agent, success in results.baselines.items()})
        panel.set_title(task)
        panel.set(xlim=(0.5, len(numbers) + 0.5), ylim=(-0.05, 1.05), xticks=numbers, yticks=[0, 0.25, 0.5, 0.75, 1])
        panel.tick_params(labelbottom=True)
        panel.grid(axis="y", color="0.85", lw=0.6)
    figure.supxlabel("after phase (shaded: phases that train the task)", fontsize=9)
    figure.supylabel("success, mean ± standard error", fontsize=9)
    handles, _ = axes[0].get_legend_handles_labels()  # plain lines come first there
    n_baselines = len(results.baselines)
    figure.legend(handles=[*handles[n_baselines:], *handles[:n_baselines]], loc="outside upper center", ncols=legend_columns)
    return figure
