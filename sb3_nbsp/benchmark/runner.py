"""Compute all runs of a comparison, with their progress in one live display."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sb3_nbsp.benchmark.launchers import Launcher, Outcome
from sb3_nbsp.benchmark.plan import Cell, Plan

POLL = 0.5  # seconds
RETRY = 5.0  # seconds until a run that another process is at is looked at again
N_LINES = 12  # of a traceback


def run_plan(plan: Plan, folder: Path, launcher: Launcher, console: Console | None = None) -> list[Outcome]:
    """
    Compute the runs of a comparison that are not done yet. Those that were cut off continue; one that fails is
    reported and the others go on; one that another process computes meanwhile is waited for.

    :param plan: the comparison
    :param folder: where its runs are kept
    :param launcher: computes them
    :param console: what to show the progress on
    :return: the runs that failed
    :raises ValueError: if the folder holds a comparison with other settings
    """
    plan.save(folder)
    cells = plan.cells(folder)
    todo = [cell for cell in cells if not _is_done(cell)]
    console = console or Console()
    failed: list[Outcome] = []
    with launcher, _Display(console, len(cells), len(cells) - len(todo)) as display:
        for cell in todo:
            launcher.submit(cell, plan.settings_of(cell))
        unfinished, retries = len(todo), {}  # type: int, dict[Cell, float]
        while unfinished:
            for outcome in launcher.poll():
                if outcome.status == "busy":
                    retries[outcome.cell] = time.monotonic() + RETRY
                    continue
                unfinished -= 1
                display.ended(outcome)
                failed += [outcome] if outcome.status == "failed" else []
            for cell in [cell for cell, due in retries.items() if due < time.monotonic()]:
                del retries[cell]
                launcher.submit(cell, plan.settings_of(cell))
            display.update(todo)
            time.sleep(POLL)
    for outcome in failed:
        end = "\n".join(outcome.error.strip().splitlines()[-N_LINES:])
        console.print(
            f"[red]{escape(outcome.cell.name)} failed[/]:\n{escape(end)}\n{escape(str(outcome.cell.folder / 'log.txt'))}"
        )
    return failed


def _is_done(cell: Cell) -> bool:
    return (cell.folder / "result.json").exists()


class _Display:
    """A bar for the whole comparison and one for each run that is being computed; lines where there is no terminal."""

    def __init__(self, console: Console, total: int, done: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._all = self._progress.add_task("all runs", total=total, completed=done, state="")
        self._bars: dict[Cell, TaskID] = {}
        self._phases: dict[Cell, str] = {}

    def __enter__(self) -> _Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, cells: list[Cell]) -> None:
        """Show how far the runs are."""
        for cell in cells:
            progress = _read_progress(cell)
            if progress is None or (cell not in self._bars and _is_done(cell)):
                continue
            if cell not in self._bars:
                self._bars[cell] = self._progress.add_task(escape(cell.name), total=1, state="")
            n_phases = len(progress["tasks"]) * progress["cycles"]
            phases_done = progress["phase"] + int(progress["sequence_over"])
            task = progress["tasks"][progress["phase"] % len(progress["tasks"])]
            recent = progress["successes"]
            success = f", success {sum(recent) / len(recent):.1f}" if recent else ""
            state = "evaluation" if phases_done == n_phases else f"{task}, step {progress['step']:,}{success}"
            self._progress.update(self._bars[cell], completed=phases_done, total=n_phases, state=escape(state))
            self._tell_phase(cell, f"phase {min(phases_done + 1, n_phases)} of {n_phases} ({task})")

    def _tell_phase(self, cell: Cell, phase: str) -> None:
        """Where there is no terminal, a line for every new phase."""
        if not self._progress.console.is_terminal and self._phases.get(cell) != phase:
            self._progress.console.print(f"{escape(cell.name)}: {escape(phase)}", soft_wrap=True)
        self._phases[cell] = phase

    def ended(self, outcome: Outcome) -> None:
        """A run has ended."""
        if outcome.cell in self._bars:
            self._progress.remove_task(self._bars.pop(outcome.cell))
        if outcome.status == "done":
            self._progress.advance(self._all)
        text = _summary(outcome.cell) if outcome.status == "done" else "[red]failed[/]"
        self._progress.console.print(f"{escape(outcome.cell.name)}: {text}", soft_wrap=True)


def _read_progress(cell: Cell) -> dict[str, Any] | None:
    """How far a run is that is being computed; None if that is not known."""
    try:
        progress: dict[str, Any] = json.loads((cell.folder / "progress.json").read_text())
    except FileNotFoundError:
        return None
    return progress


def _summary(cell: Cell) -> str:
    result = json.loads((cell.folder / "result.json").read_text())
    values = ", ".join(f"{name} {result[name]:.2f}" for name in ("ASR", "FM", "FWT"))
    return f"{values}, {result['steps']:,} steps"
