"""Runs as processes of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from typing import IO, Any

from sb3_nbsp.benchmark.cell import BUSY
from sb3_nbsp.benchmark.launchers.base import Launcher, Outcome
from sb3_nbsp.benchmark.plan import Cell

N_LINES = 20  # of a log, if a run ends without a word


class LocalLauncher(Launcher):
    """
    One process per run, with one thread of PyTorch each. The processes end with the launcher's own, however that ends.

    :param jobs: runs at a time
    :raises ValueError: if it is not a positive number
    """

    def __init__(self, jobs: int) -> None:
        if jobs < 1:
            raise ValueError(f"jobs must be at least 1, not {jobs}")
        self.jobs = jobs
        self._queue: deque[tuple[Cell, dict[str, Any]]] = deque()
        self._running: list[tuple[Cell, subprocess.Popen[bytes], IO[bytes]]] = []

    def submit(self, cell: Cell, settings: dict[str, Any]) -> None:
        """See :meth:`Launcher.submit`."""
        self._queue.append((cell, settings))

    def poll(self) -> list[Outcome]:
        """See :meth:`Launcher.poll`."""
        outcomes, running = [], []
        for cell, process, log in self._running:
            if process.poll() is None:
                running.append((cell, process, log))
            else:
                log.close()
                outcomes.append(_outcome(cell, process.returncode))
        self._running = running
        while self._queue and len(self._running) < self.jobs:
            self._start(*self._queue.popleft())
        return outcomes

    def _start(self, cell: Cell, settings: dict[str, Any]) -> None:
        cell.folder.mkdir(parents=True, exist_ok=True)
        log = (cell.folder / "log.txt").open("ab")
        # The open pipe tells the process that this one lives
        command = [sys.executable, "-m", "sb3_nbsp.benchmark.cell", "--json", json.dumps(settings), "--end-with-stdin"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)
        self._running.append((cell, process, log))

    def close(self) -> None:
        """See :meth:`Launcher.close`."""
        self._queue.clear()
        for _, process, _ in self._running:
            process.terminate()
        for _, process, log in self._running:
            process.wait()
            log.close()
        self._running.clear()


def _outcome(cell: Cell, returncode: int) -> Outcome:
    if returncode == 0:
        return Outcome(cell, "done")
    if returncode == BUSY:
        return Outcome(cell, "busy")
    if (cell.folder / "error.txt").exists():
        return Outcome(cell, "failed", (cell.folder / "error.txt").read_text(encoding="utf-8"))
    how = f"ended by signal {-returncode}" if returncode < 0 else f"ended with status {returncode}"
    end = "\n".join((cell.folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()[-N_LINES:])
    return Outcome(cell, "failed", f"{end}\nThe process {how}")
