"""Compute all runs of a comparison, with their progress in one live display."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sb3_nbsp.benchmark.agents import check_settings
from sb3_nbsp.benchmark.baselines import measure_baselines
from sb3_nbsp.benchmark.cell import LOCK
from sb3_nbsp.benchmark.launchers import Launcher, Outcome
from sb3_nbsp.benchmark.plan import Cell, Plan, StoredPlan
from sb3_nbsp.benchmark.run_settings import RunSettings
from sb3_nbsp.files import read_json_object

POLL = 0.5  # seconds
N_LINES, N_CHARACTERS = 12, 2_000  # of a traceback


def run_plan(plan: StoredPlan, folder: Path, launcher: Launcher, console: Console | None = None) -> list[Outcome]:
    """
    Compute the runs of a comparison that are not done yet. Those that were cut off continue; one that fails is
    reported and the others continue; one that another process computes meanwhile is waited for.

    :param plan: the comparison
    :param folder: where its runs are kept
    :param launcher: computes them
    :param console: what to show the progress on
    :return: the runs that failed
    :raises ValueError: if the folder holds a comparison with other settings, or a run cannot have its settings
    """
    _check_settings(plan, folder)
    plan.save(folder)
    cells = plan.cells(folder)
    _check_done(plan, [cell for cell in cells if _is_done(cell)])
    todo = [cell for cell in cells if not _is_done(cell)]
    failed: list[Outcome] = []
    with launcher, _Display(console or Console(), len(cells), len(cells) - len(todo)) as display:
        for cell in todo:
            launcher.submit(cell, plan.settings_of(cell))
        unfinished, waiting = len(todo), set()  # type: int, set[Cell]
        while unfinished:
            for outcome in launcher.poll():
                if outcome.status == "busy":
                    waiting.add(outcome.cell)
                    display.say(outcome.cell, "another process is at it: waiting")
                    continue
                unfinished -= 1
                display.ended(outcome)
                failed += [outcome] if outcome.status == "failed" else []
            for cell in [cell for cell in waiting if not _is_busy(cell)]:
                waiting.remove(cell)
                launcher.submit(cell, plan.settings_of(cell))
            display.update(todo)
            time.sleep(POLL)
    if isinstance(plan, Plan) and (done := [cell for cell in cells if _is_done(cell)]):
        measure_baselines(plan, folder, done)
    return failed


def _check_settings(plan: StoredPlan, folder: Path) -> None:
    """Find a wrong name or value before anything is written: make the agent of every method once."""
    methods: dict[str, RunSettings] = {}
    for cell in plan.cells(folder):
        settings = plan.resolved(cell)
        methods.setdefault(json.dumps([settings.algo, settings.env_id, settings.hyperparams]), settings)
    for settings in methods.values():
        check_settings(settings)


def _check_done(plan: StoredPlan, done: list[Cell]) -> None:
    """Runs with other hyper-parameters, of a YAML file that has changed since, must not get into one row of a table."""
    for cell in done:
        if changed := plan.resolved(cell).differences(cell.folder):
            raise ValueError(
                f"{cell.folder} holds a run with other settings ({', '.join(changed)}): delete it, or choose another folder"
            )


def _is_busy(cell: Cell) -> bool:
    """Whether another process is at a run."""
    try:
        with FileLock(cell.folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True


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
        self._milestones: dict[Cell, str] = {}
        self._ended: set[Cell] = set()
        self._start = time.time()

    def __enter__(self) -> _Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, cells: list[Cell]) -> None:
        """Show how far the runs are."""
        for cell in cells:
            progress = None if cell in self._ended else _read_progress(cell, self._start)
            if progress is None:
                continue
            if cell not in self._bars:
                self._bars[cell] = self._progress.add_task(escape(cell.name), total=1, state="")
            state = {"completed": progress["completed"], "total": progress["total"], "state": escape(progress["state"])}
            self._progress.update(self._bars[cell], **state)
            self._tell_milestone(cell, progress["milestone"])

    def _tell_milestone(self, cell: Cell, milestone: str) -> None:
        """Where there is no terminal, a line for every milestone."""
        if not self._progress.console.is_terminal and self._milestones.get(cell) != milestone:
            self.say(cell, milestone)
        self._milestones[cell] = milestone

    def ended(self, outcome: Outcome) -> None:
        """A run has ended."""
        self._ended.add(outcome.cell)
        if outcome.cell in self._bars:
            self._progress.remove_task(self._bars.pop(outcome.cell))
        if outcome.status == "done":
            self._progress.advance(self._all)
            self.say(outcome.cell, _summary(outcome.cell))
        else:
            end = "\n".join(outcome.error.strip().splitlines()[-N_LINES:])[-N_CHARACTERS:]
            self.say(outcome.cell, f"failed:\n{end}\nMore in {outcome.cell.folder / 'log.txt'}", "red")

    def say(self, cell: Cell, text: str, style: str = "default") -> None:
        """A line about a run."""
        self._progress.console.print(f"[{style}]{escape(cell.name)}[/]: {escape(text)}", soft_wrap=True)


def _read_progress(cell: Cell, since: float) -> dict[str, Any] | None:
    """How far a run is that is being computed; None if nothing is known of it since a moment."""
    path = cell.folder / "progress.json"
    try:
        return read_json_object(path) if path.stat().st_mtime >= since else None
    except (OSError, ValueError):  # not written yet, or being replaced at this moment on a network's disk
        return None


def _summary(cell: Cell) -> str:
    result = json.loads((cell.folder / "result.json").read_text(encoding="utf-8"))
    known = [f"{name} {value:,.2f}" for name, value in result.items() if isinstance(value, float) and "minutes" not in name]
    return ", ".join([*known, f"{result['steps']:,} steps"])
