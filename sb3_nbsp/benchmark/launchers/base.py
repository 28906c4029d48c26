"""What a launcher is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

from sb3_nbsp.benchmark.plan import Cell


@dataclass(frozen=True)
class Outcome:
    """
    How a run ended.

    :param cell: the run
    :param status: "done", "failed", or "busy" if another process is at it
    :param error: why the run failed: the end of its traceback, or what else is known
    """

    cell: Cell
    status: Literal["done", "failed", "busy"]
    error: str = ""


class Launcher(ABC):
    """Computes runs, as many at a time as there is room for."""

    @abstractmethod
    def submit(self, cell: Cell, settings: dict[str, Any]) -> None:
        """
        Compute a run as soon as there is room.

        :param cell: the run
        :param settings: arguments of :func:`~sb3_nbsp.benchmark.cell.run_cell`, plain values only
        """

    @abstractmethod
    def poll(self) -> list[Outcome]:
        """
        Look after the runs; to be called every now and then.

        :return: those that ended since the last call
        """

    @abstractmethod
    def close(self) -> None:
        """End the runs that are still being computed; their checkpoints stay."""

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
