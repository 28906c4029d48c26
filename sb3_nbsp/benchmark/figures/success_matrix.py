"""Figure: the success matrix of each method."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sb3_nbsp.benchmark.figures.matrices import sequence_of, stacked
from sb3_nbsp.benchmark.figures.style import fits, panels, styled
from sb3_nbsp.benchmark.results import Results
from sb3_nbsp.tasks import SuccessMatrix

_CELL_WIDTH, _CELL_HEIGHT = 0.62, 0.27


@styled
def success_matrix_figure(results: Results) -> Figure:
    """
    S[i, j], the success on task j after phase i, as a heat map for each method: mean over seeds, the number in each cell.
    The task that the phase has trained is framed.

    :param results: a comparison's results
    :return: the figure
    :raises NoDataError: if no run is done
    """
    sequence = sequence_of(results)
    phases = [f"{i + 1}  {task}" for i, task in enumerate(sequence.phase_tasks)]
    cells = max(_CELL_WIDTH * len(sequence.tasks), 2.2)
    is_flat = fits(sequence.tasks, cells / len(sequence.tasks))
    below = 0.45 if is_flat else 0.25 + 0.05 * max(map(len, sequence.tasks))
    width = cells + 0.075 * max(map(len, phases)) + 0.3
    columns = max(1, min(3, int(12 // width)))
    size = (width, _CELL_HEIGHT * len(phases) + 0.45 + below)
    figure, axes = panels(len(results.methods), columns, size, margin=0.45)
    for panel, method in zip(axes, results.methods, strict=True):
        values = stacked(results, method)
        _draw(panel, values.mean(axis=0), sequence)
        panel.set_title(f"{method} ({len(values)} seed{'s' * (len(values) > 1)})")
        panel.set_yticks(range(len(phases)), phases)
        panel.set_xticks(range(len(sequence.tasks)), sequence.tasks)
        if not is_flat:
            panel.tick_params(axis="x", labelrotation=35)
            for label in panel.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
    figure.supxlabel("success on the task", fontsize=9)
    figure.supylabel("after phase", fontsize=9)
    return figure


def _draw(panel: Axes, values: np.ndarray, sequence: SuccessMatrix) -> None:
    panel.imshow(values, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        panel.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color="w" if value < 0.6 else "k")
    for row, task in enumerate(sequence.phase_tasks):
        corner = (sequence.tasks.index(task) - 0.5, row - 0.5)
        panel.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="#D55E00", lw=2, clip_on=False))
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
