"""How many rows of a success matrix an agent has played; the number travels with the agent, whatever its class."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

# SB3 saves all attributes of an agent
_ATTRIBUTE = "sequence_history"


class AgentHistory:
    """
    The rows of the success matrix that an agent has played, counted over its life: a sequence that begins again, or
    another environment of the same tasks, adds to them.

    :param model: the agent
    :param tasks: names of the distinct tasks
    :param finished_here: phases that its environment has finished
    """

    def __init__(self, model: BaseAlgorithm, tasks: Sequence[str], finished_here: int) -> None:
        self._model, self._tasks = model, list(tasks)
        saved = vars(model).get(_ATTRIBUTE, {})
        self.is_known = saved.get("tasks") == self._tasks
        # Agents of this package count their phases; for others, their environment does
        finished = getattr(model, "n_finished_phases", finished_here)
        self.report_success: set[str] = set(saved["report_success"]) if self.is_known else set()
        if self.is_known:
            # An environment with fewer phases than before is another one, or has begun again
            played = finished - saved["finished"] if finished >= saved["finished"] else finished
            self.n_rows = saved["rows"] + played
        else:
            self.n_rows = finished_here
        self._finished = finished
        self._save()

    @property
    def is_new(self) -> bool:
        """Whether the agent has played nothing of this sequence."""
        return not self.is_known and self.n_rows == 0

    def add_row(self) -> None:
        """A phase has ended."""
        self.n_rows += 1
        self._finished += 1
        self._save()

    def add_reporting(self, tasks: Iterable[str]) -> None:
        """
        Remember that tasks report success.

        :param tasks: their names
        """
        self.report_success |= set(tasks)
        self._save()

    def _save(self) -> None:
        saved: dict[str, Any] = {"tasks": self._tasks, "rows": self.n_rows, "finished": self._finished}
        vars(self._model)[_ATTRIBUTE] = {**saved, "report_success": sorted(self.report_success)}


def keep_aside(folder: str | os.PathLike[str], names: Sequence[str]) -> list[str]:
    """
    Rename files so that new ones can take their names: "training.csv" becomes "training-1.csv", and so on.

    :param folder: folder of the files
    :param names: names of the files; those that are missing are passed over
    :return: the new names, with one number for all
    """
    there = [Path(folder) / name for name in names if (Path(folder) / name).exists()]
    number = 1
    while any(_numbered(path, number).exists() for path in there):
        number += 1
    return [path.rename(_numbered(path, number)).name for path in there]


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}")
