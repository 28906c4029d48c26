"""The paper's own numbers (``paper.csv``): NBSP, tables 1, 2, 3, 4, 9 and 10; mean and standard error over three seeds."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import pandas as pd

N_SEEDS = 3
SETTING = "3×768, 1e6 steps"
# The pair of table 2, which stands in for sequences that the paper does not have
NEAREST = "ButtonPressTopdown-WindowOpen"

# Names of our methods, and the paper's rows: the same in all of its tables ("ours" in table 3, "both" in table 4)
ROWS = {
    "continual_sac": "vanilla SAC",
    "nbsp_replay_only": "only experience replay",
    "nbsp_masks_only": "only gradient masking",
    "nbsp_hard_masks": "NBSP with hard gradient masking",
    "nbsp_sac": "NBSP",
    "nbsp_activation": "activation",
    "nbsp_weight": "weight",
    "nbsp_random": "random",
    "nbsp_goal": "NBSP",
    "nbsp_actor": "actor",
    "nbsp_critic": "critic",
}


@cache
def paper() -> pd.DataFrame:
    """ASR, FM and FWT, each with its standard error, by ``sequence`` and ``row``; ``table`` is the paper's."""
    with files("sb3_nbsp.benchmark").joinpath("paper.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, index_col=["sequence", "row"])


def stand_in(sequence: str) -> str:
    """The sequence itself if the paper has it, otherwise :data:`NEAREST`."""
    return sequence if sequence in paper().index else NEAREST


def paper_row(method: str, sequence: str) -> pd.Series | None:
    """The paper's numbers of a method on a sequence, or on the one that stands in for it; None if it has none."""
    place = (stand_in(sequence), ROWS.get(method))
    return paper().loc[place] if place in paper().index else None
