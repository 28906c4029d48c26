"""The picture of plasticity: each measure over the steps, and how much the gradients of single states agree at the end."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from sb3_nbsp.diagnostics.history import read_covariance, read_history
from sb3_nbsp.extras import needs
from sb3_nbsp.figure_style import COLORS, STYLE, draw_legend, panels, save

with needs("plots", "A figure"):
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.ticker import EngFormatter, MaxNLocator

TITLES = {
    "ep_rew_mean": "Return of the last episodes",
    "dormant_ratio": "Dormant ratio",
    "weight_norm": "Weight norm",
    "activation_norm": "Activation norm",
    "effective_rank": "Effective rank",
    "stable_rank": "Stable rank",
    "gradient_norm": "Gradient norm",
    "gradient_correlation": "Gradient correlation",
    "resets_per_neuron": "Resets per neuron",
    "share_ever_reset": "Share of neurons ever reset",
    "distillation_epochs": "Epochs of distillation",
}
# Their height counts; of the others, the change, but none of less than a tenth is to look like one
FROM_ZERO = ["dormant_ratio", "gradient_correlation", "resets_per_neuron", "share_ever_reset", "distillation_epochs"]
_COUNTS = ["resets_per_neuron", "share_ever_reset", "distillation_epochs"]  # which start at zero
_FEW = 25  # points that are marked one by one
_MAX_COLUMNS = 4


def plot_plasticity(
    runs: Mapping[str, str | os.PathLike[str]],
    path: str | os.PathLike[str],
    measures: Sequence[str] = tuple(TITLES),
    title: str = "",
) -> None:
    """
    Draw the measures of runs over the environment steps, and for each the gradient covariance of its last record (P3O
    paper, figures 28 to 30: dark red is negative, dark blue positive). A dashed line is the value at the start of training.

    :param runs: name of each run and its folder, with the ``plasticity.csv`` of a
        :class:`~sb3_nbsp.diagnostics.PlasticityCallback`; runs that are under way or were killed can be drawn, too
    :param path: the PNG to write
    :param measures: which columns to draw; those that no run has are left out
    :param title: the figure's title
    :raises FileNotFoundError: if a run has no ``plasticity.csv``
    :raises ValueError: if a measure is unknown, or a file is of another kind
    """
    unknown = [name for name in measures if name not in TITLES]
    if unknown:
        raise ValueError(f"measures must be among {', '.join(TITLES)}, not {', '.join(unknown)}")
    histories = {name: read_history(folder) for name, folder in runs.items()}
    covariances = {name: found for name, folder in runs.items() if (found := read_covariance(folder)) is not None}
    drawn = [name for name in measures if any(np.isfinite(history[name]).any() for history in histories.values())]
    n_panels = len(drawn) + len(covariances)
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(n_panels, -(-n_panels // max(1, -(-n_panels // _MAX_COLUMNS))), (3.1, 2.3))
        for panel, name in zip(axes, drawn, strict=False):
            _draw_curves(panel, histories, name)
        for panel, (name, covariance) in zip(axes[len(drawn) :], covariances.items(), strict=True):
            _draw_covariance(panel, covariance, f"Gradient covariance{f', {name}' if len(runs) > 1 else ''}")
        figure.suptitle(title or (next(iter(runs)) if len(runs) == 1 else ""), x=0.01, ha="left", fontsize=11)
        if len(runs) > 1 and drawn:
            draw_legend(figure, {}, axes[0].get_legend_handles_labels()[0])
        save(figure, path)


def _draw_curves(panel: Axes, histories: Mapping[str, Mapping[str, np.ndarray]], name: str) -> None:
    for place, (run, history) in enumerate(histories.items()):
        present = np.isfinite(history[name])
        marker = "o" if present.sum() <= _FEW else ""
        color = COLORS[place % len(COLORS)]
        panel.plot(history["step"][present], history[name][present], color=color, marker=marker, ms=3, lw=1.5, label=run)
        if name not in _COUNTS and history["step"][present][:1] == [0]:
            panel.axhline(history[name][present][0], color=color, lw=0.9, ls="--", zorder=1)
    format_panel(panel, name)
    panel.set_xlim(left=0)
    if name not in FROM_ZERO:
        low, high = panel.get_ylim()
        missing = max(0.0, 0.1 * abs(low + high) / 2 - (high - low))
        panel.set_ylim(low - missing / 2, high + missing / 2)
    panel.set_xlabel("environment steps", fontsize=8)


def format_panel(panel: Axes, name: str) -> None:
    """Give the panel of a measure its title and its axes: ticks at round steps, and where its height counts, zero."""
    panel.set_title(TITLES[name])
    if name in FROM_ZERO:
        top = max(panel.get_ylim()[1], 0.1)
        panel.set_ylim(-0.03 * top, top)  # a line at zero is seen, too
    panel.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))


def _draw_covariance(panel: Axes, covariance: np.ndarray, title: str) -> None:
    image = panel.imshow(covariance, vmin=-1, vmax=1, cmap="RdBu", interpolation="nearest", aspect="auto")
    panel.set_title(title)
    panel.set(xticks=[], yticks=[], xlabel=f"{len(covariance)} states")
    panel.spines[:].set_visible(False)
    panel.figure.colorbar(image, ax=panel, ticks=[-1, 0, 1])
