"""The paper's own numbers: NBSP, tables 1, 2, 3, 4, 9 and 10 (mean and standard error over three seeds)."""

from __future__ import annotations

from dataclasses import dataclass

from sb3_nbsp.tasks.registration import PAPER_CYCLES

N_SEEDS = 3
SETTING = "3×768, 1e6 steps"
# The pair of table 2, and the one that stands in for sequences that the paper does not have
NEAREST = "ButtonPressTopdown-WindowOpen"

# Our methods and the paper's rows. All others have no counterpart with a number
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

Numbers = dict[str, tuple[float, float]]


def _row(asr: float, asr_error: float, fm: float, fm_error: float, fwt: float, fwt_error: float) -> Numbers:
    return {"ASR": (asr, asr_error), "FM": (fm, fm_error), "FWT": (fwt, fwt_error)}


# Sequence -> row -> metric -> (mean, error). NBSP's row is the same in all tables ("ours" in table 3, "both" in table 4)
PAPER: dict[str, dict[str, Numbers]] = {
    "WindowOpen-WindowClose": {
        # Table 1
        "EWC": _row(0.63, 0.03, 0.89, 0.07, 0.97, 0.02),
        "NPC": _row(0.26, 0.01, 0.68, 0.04, 0.26, 0.01),
        "ANCL": _row(0.66, 0.04, 0.84, 0.10, 0.97, 0.03),
        "CoTASP": _row(0.05, 0.01, 0.01, 0.01, 0.04, 0.01),
        "CReLU": _row(0.26, 0.14, 0.66, 0.42, 0.33, 0.19),
        "CBP": _row(0.67, 0.05, 0.78, 0.13, 0.95, 0.02),
        "PI": _row(0.61, 0.02, 0.91, 0.07, 0.95, 0.01),
        "NBSP": _row(0.90, 0.04, 0.18, 0.01, 0.96, 0.02),
        # Table 9
        "vanilla SAC": _row(0.63, 0.02, 0.91, 0.10, 0.97, 0.02),
        "only experience replay": _row(0.81, 0.08, 0.41, 0.13, 0.96, 0.01),
        "only gradient masking": _row(0.78, 0.11, 0.54, 0.26, 0.98, 0.01),
        "NBSP with hard gradient masking": _row(0.71, 0.04, 0.54, 0.13, 0.91, 0.05),
        # Table 3
        "activation": _row(0.65, 0.30, 0.56, 0.37, 0.73, 0.35),
        "weight": _row(0.73, 0.20, 0.44, 0.31, 0.81, 0.22),
        "random": _row(0.78, 0.09, 0.42, 0.13, 0.90, 0.06),
        # Table 4
        "actor": _row(0.76, 0.10, 0.58, 0.19, 0.97, 0.04),
        "critic": _row(0.79, 0.05, 0.48, 0.09, 0.94, 0.05),
    },
    "DrawerOpen-DrawerClose": {
        # Table 1
        "EWC": _row(0.68, 0.06, 0.80, 0.15, 0.98, 0.01),
        "NPC": _row(0.35, 0.05, 0.69, 0.05, 0.39, 0.09),
        "ANCL": _row(0.64, 0.02, 0.88, 0.09, 0.96, 0.01),
        "CoTASP": _row(0.07, 0.01, 0.01, 0.01, 0.09, 0.00),
        "CReLU": _row(0.29, 0.20, 0.31, 0.32, 0.42, 0.28),
        "CBP": _row(0.61, 0.03, 0.91, 0.03, 0.93, 0.04),
        "PI": _row(0.60, 0.07, 0.71, 0.30, 0.88, 0.15),
        "NBSP": _row(0.96, 0.02, 0.07, 0.06, 0.98, 0.01),
        # Table 10
        "vanilla SAC": _row(0.67, 0.05, 0.78, 0.10, 0.94, 0.04),
        "only experience replay": _row(0.78, 0.04, 0.48, 0.10, 0.97, 0.01),
        "only gradient masking": _row(0.74, 0.01, 0.64, 0.01, 0.98, 0.02),
        "NBSP with hard gradient masking": _row(0.59, 0.16, 0.52, 0.35, 0.82, 0.21),
        # Table 3
        "activation": _row(0.82, 0.06, 0.44, 0.16, 0.98, 0.02),
        "weight": _row(0.51, 0.17, 0.67, 0.00, 0.69, 0.22),
        "random": _row(0.72, 0.26, 0.41, 0.28, 0.83, 0.23),
        # Table 4
        "actor": _row(0.79, 0.05, 0.55, 0.15, 0.99, 0.01),
        "critic": _row(0.86, 0.02, 0.31, 0.03, 0.96, 0.02),
    },
    "ButtonPressTopdown-WindowOpen": {
        # Table 1
        "EWC": _row(0.66, 0.06, 0.85, 0.14, 0.96, 0.01),
        "NPC": _row(0.25, 0.00, 0.67, 0.00, 0.25, 0.01),
        "ANCL": _row(0.61, 0.01, 0.95, 0.05, 0.95, 0.03),
        "CoTASP": _row(0.03, 0.00, 0.01, 0.00, 0.04, 0.01),
        "CReLU": _row(0.33, 0.10, 0.94, 0.01, 0.42, 0.20),
        "CBP": _row(0.62, 0.01, 0.97, 0.03, 0.98, 0.02),
        "PI": _row(0.63, 0.02, 0.97, 0.05, 0.98, 0.02),
        "NBSP": _row(0.95, 0.05, 0.08, 0.12, 0.98, 0.01),
        # Table 2
        "vanilla SAC": _row(0.62, 0.01, 0.99, 0.02, 0.98, 0.02),
        "only experience replay": _row(0.70, 0.08, 0.50, 0.16, 0.92, 0.05),
        "only gradient masking": _row(0.71, 0.06, 0.73, 0.21, 0.97, 0.02),
        "NBSP with hard gradient masking": _row(0.71, 0.03, 0.72, 0.04, 0.98, 0.03),
        # Table 3
        "activation": _row(0.75, 0.01, 0.65, 0.02, 0.99, 0.00),
        "weight": _row(0.93, 0.06, 0.15, 0.12, 0.98, 0.02),
        "random": _row(0.72, 0.01, 0.70, 0.05, 0.96, 0.02),
        # Table 4
        "actor": _row(0.81, 0.11, 0.45, 0.28, 0.95, 0.01),
        "critic": _row(0.85, 0.16, 0.35, 0.38, 0.95, 0.03),
    },
    "WindowOpen-WindowClose-DrawerOpen-DrawerClose": {
        # Table 1
        "EWC": _row(0.44, 0.05, 0.74, 0.11, 0.83, 0.10),
        "NPC": _row(0.19, 0.04, 0.50, 0.02, 0.20, 0.05),
        "ANCL": _row(0.48, 0.04, 0.80, 0.04, 0.89, 0.06),
        "CoTASP": _row(0.04, 0.01, 0.04, 0.01, 0.08, 0.01),
        "CReLU": _row(0.10, 0.06, 0.39, 0.02, 0.13, 0.10),
        "CBP": _row(0.43, 0.03, 0.91, 0.05, 0.97, 0.02),
        "PI": _row(0.41, 0.06, 0.84, 0.05, 0.82, 0.10),
        "NBSP": _row(0.66, 0.14, 0.48, 0.18, 0.89, 0.12),
    },
    "ButtonPressTopdown-WindowClose-DoorOpen-DrawerClose": {
        # Table 1
        "EWC": _row(0.43, 0.03, 0.81, 0.09, 0.88, 0.10),
        "NPC": _row(0.17, 0.01, 0.47, 0.01, 0.19, 0.02),
        "ANCL": _row(0.44, 0.03, 0.87, 0.02, 0.91, 0.08),
        "CoTASP": _row(0.04, 0.01, 0.04, 0.00, 0.07, 0.02),
        "CReLU": _row(0.14, 0.11, 0.62, 0.16, 0.17, 0.15),
        "CBP": _row(0.41, 0.02, 0.94, 0.02, 0.97, 0.01),
        "PI": _row(0.38, 0.01, 0.97, 0.02, 0.92, 0.07),
        "NBSP": _row(0.74, 0.07, 0.34, 0.15, 0.95, 0.06),
    },
}


@dataclass(frozen=True)
class PaperRow:
    """
    A row of the paper's tables.

    :param name: how the paper calls the method
    :param sequence: name of the sequence that the numbers are of
    :param numbers: metric to mean and standard error
    """

    name: str
    sequence: str
    numbers: Numbers

    @property
    def label(self) -> str:
        """What it is, with its setting."""
        return f"paper: {self.name} ({' → '.join(PAPER_CYCLES[self.sequence])}, {SETTING})"


def paper_row(method: str, sequence: str) -> PaperRow | None:
    """
    The paper's row to put beside a method's.

    :param method: name of a method of :mod:`~sb3_nbsp.benchmark.methods`
    :param sequence: name of a sequence; for one that the paper does not have, the numbers are those of :data:`NEAREST`
    :return: the row; None if the paper has no number for this method on this sequence
    """
    known = sequence if sequence in PAPER else NEAREST
    name = ROWS.get(method)
    if name is None or name not in PAPER[known]:
        return None
    return PaperRow(name, known, PAPER[known][name])
