"""Measure in turns, and say how far the measurements spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from rich.progress import track


def take_turns(tasks: Mapping[str, Callable[[], object]], rounds: int, what: str = "measuring") -> dict[str, np.ndarray]:
    """
    Time some tasks, which take turns so that a busy machine is the same for all of them.

    :param tasks: by name
    :param rounds: number of turns, apart from one to warm up
    :param what: title of the progress bar
    :return: seconds, by name, shape (rounds,)
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in track(range(rounds + 1), description=what, transient=True):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if turn > 0:
                times[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in times.items()}


@dataclass
class Row:
    """
    One line of the table.

    :param what: what was measured
    :param values: one for every round, shape (rounds,)
    :param unit: of the values; "%" for shares
    :param goal: what the median should reach; None for a line without a goal
    :param at_least: whether the goal is a lower bound, rather than an upper one
    """

    what: str
    values: np.ndarray
    unit: str
    goal: float | None = None
    at_least: bool = True

    def measured(self) -> str:
        """Median, with the quartiles if there are several rounds."""
        low, median, high = (self._text(value) for value in np.percentile(self.values, [25, 50, 75]))
        return f"{median} {self.unit}" if len(self.values) == 1 else f"{median} ({low} to {high}) {self.unit}"

    def wanted(self) -> str:
        """The goal, and whether it is reached; empty if there is none."""
        if self.goal is None:
            return ""
        median = float(np.median(self.values))
        is_reached = median >= self.goal if self.at_least else median <= self.goal
        return f"{'≥' if self.at_least else '≤'} {self._text(self.goal)} {'✓' if is_reached else '✗'}"

    def _text(self, value: float) -> str:
        return f"{100 * value:.1f}" if self.unit == "%" else f"{value:.2f}"
