"""The style that all figures share, their panels, their legend, and how they are saved."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sb3_nbsp.extras import needs
from sb3_nbsp.files import atomic_path

with needs("plots", "A figure"):
    import matplotlib
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

# Any: matplotlib's own types know the settings of one version only
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "figure.labelsize": 9,
    "grid.color": "0.85",
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.1,
    "legend.frameon": False,
    # A name from a file is no formula
    "text.parse_math": False,
    # Otherwise ids are drawn by chance, and the same figure is another file each time
    "svg.hashsalt": "sb3_nbsp",
}
# Okabe and Ito's colours, which people with any colour vision tell apart; grey in place of their yellow, too light for lines
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F"]
DPI = 150
LETTER = 0.075  # width in inches, about


def panels(n: int, columns: int, size: tuple[float, float], margin: float = 0.5, **options: Any) -> tuple[Figure, list[Axes]]:
    """
    :param n: number of panels
    :param columns: panels beside each other, at most
    :param size: width and height of a panel, in inches
    :param margin: height for what stands above or below all panels, in inches
    :param options: of :meth:`matplotlib.figure.Figure.subplots`
    :return: a figure and its panels, row by row
    """
    columns = max(1, min(n, columns))
    rows = max(1, -(-n // columns))
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + margin))
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for unused in axes[n:]:
        unused.remove()
    return figure, axes[:n]


def draw_legend(figure: Figure, palette: Mapping[str, str], more: Sequence[Artist] = ()) -> None:
    """Above all panels, colours with their names and other handles, in as many rows as it takes."""
    handles = [*(Patch(color=color, label=name) for name, color in palette.items()), *more]
    rows = np.ceil(sum(len(str(handle.get_label())) + 6 for handle in handles) * LETTER / figure.get_figwidth())
    figure.legend(handles=handles, loc="outside upper center", ncols=int(np.ceil(len(handles) / max(rows, 1))))


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG or SVG, by the path's suffix; as PNG without one."""
    with matplotlib.rc_context(STYLE), atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format=Path(path).suffix[1:] or "png")
    return Path(path)
