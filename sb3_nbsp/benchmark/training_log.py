"""The training success that a run has logged."""

from __future__ import annotations

import csv
import os
from collections import deque
from pathlib import Path

import numpy as np


def read_training(path: str | os.PathLike[str], window: int = 10) -> list[dict[str, list[float] | str]]:
    """
    Training success by phase.

    :param path: a run's ``training.csv``
    :param window: episodes of the running mean, which starts anew with each phase
    :return: for each phase its number (as text, from "0") and task, the steps at which episodes ended, and the
        mean success of the last episodes, in [0, 1]
    """
    phases: list[dict[str, list[float] | str]] = []
    recent: deque[float] = deque(maxlen=window)
    last_phase = ""
    with Path(path).open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["phase"] != last_phase:
                last_phase = row["phase"]
                phases.append({"phase": row["phase"], "task": row["task"], "steps": [], "success": []})
                recent.clear()
            recent.append(float(row["success"] == "True"))
            steps, success = phases[-1]["steps"], phases[-1]["success"]
            assert isinstance(steps, list) and isinstance(success, list)
            steps.append(float(row["step"]))
            success.append(float(np.mean(recent)))
    return phases
