"""The style that all figures share. Nothing in here imports matplotlib."""

from typing import Any

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
