"""Compute all runs of a comparison, with their progress in one live display."""

from __future__ import annotations

import json
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sb3_nbsp.benchmark.baselines import measure_baselines
from sb3_nbsp.benchmark.comparison import Comparison, Run
from sb3_nbsp.benchmark.first_phase import share_first_phases
from sb3_nbsp.benchmark.folder import RunFolder
from sb3_nbsp.benchmark.launchers import Launcher, Outcome
from sb3_nbsp.tasks.registration import is_sequence

POLL = 0.5  # seconds
N_LINES, N_CHARACTERS = 12, 2_000  # of a traceback


def run_comparison(
    comparison: Comparison, folder: Path, launcher: Launcher, console: Console | None = None, share: bool = True
) -> list[Outcome]:
    """
    Compute the runs of a comparison that are not done yet. Those that were cut off continue; if one fails it is
    reported, and the others go on; one that another process computes meanwhile is waited for.

    :param folder: where its runs are kept
    :param console: what to show the progress on
    :param share: compute a first phase once for all methods that are the same agent until it ends; the results are the same
    :return: the runs that failed
    :raises ValueError: if the folder holds a comparison with other settings, or a run cannot have its settings
    """
    comparison.check_hyperparams()
    settings = {run: comparison.settings(run) for run in comparison.runs(folder)}
    different = {json.dumps([each.algo, each.env_id, each.hyperparams]): each for each in settings.values()}
    for each in different.values():  # a wrong name or value is found before anything is written
        each.check()
    comparison.save(folder)
    for run, each in settings.items():
        # With other settings, as after a change of the YAML file, it must not get into a row of a table
        if run.folder.is_done:
            run.folder.check(each)
    console = console or Console()
    if share:
        settings, sentences = share_first_phases(settings, folder)
        for sentence in sentences:
            console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    todo = [run for run in settings if not run.folder.is_done]
    if len(todo) < len(settings):
        console.print(f"{len(settings) - len(todo)} of {len(settings)} runs are done already")
    failed: list[Outcome] = []
    with launcher, _Display(console, len(settings), len(settings) - len(todo)) as display:
        unfinished, pending, active, waiting = len(todo), list(todo), set[Run](), set[Run]()
        while unfinished:
            for run in pending.copy():
                if launcher.has_room and _is_ready(run, active, waiting):
                    pending.remove(run)
                    waiting.discard(run)
                    active.add(run)
                    if (checkpoint := run.folder.checkpoint) is not None:
                        display.say(run, f"continues from {checkpoint.name}")
                    launcher.submit(run, settings[run])
            for outcome in launcher.poll():
                active.remove(outcome.run)
                if outcome.status == "busy":
                    waiting.add(outcome.run)
                    pending = [run for run in todo if run in {*pending, outcome.run}]
                    display.say(outcome.run, "another process is at it: waiting")
                    continue
                unfinished -= 1
                display.ended(outcome)
                failed += [outcome] if outcome.status == "failed" else []
            display.show(todo)
            time.sleep(POLL)
    measure_baselines(comparison, folder, [run for run in settings if run.folder.is_done and is_sequence(run.env_id)])
    return failed


def _is_ready(run: Run, active: set[Run], waiting: set[Run]) -> bool:
    """Whether a run can be computed now, while some are active and for some others another process is waited for."""
    if run in waiting and run.folder.is_busy():
        return False
    first = None if run.first_phase is None or run.folder.checkpoint is not None else RunFolder(run.first_phase)
    if first is None or first.is_done:
        return True
    return all(each.first_phase != run.first_phase for each in active) and not (run in waiting and first.is_busy())


class _Display(Progress):
    """A bar for the whole comparison and one for each run that is being computed; lines where there is no terminal."""

    def __init__(self, console: Console, total: int, done: int) -> None:
        columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"), TimeElapsedColumn()
        super().__init__(TextColumn("{task.description}"), *columns, console=console)
        self._all = self.add_task("all runs", total=total, completed=done, state="")
        self._bars: dict[Run, TaskID] = {}
        self._milestones: dict[Run, str] = {}
        self._ended: set[Run] = set()
        self._since = time.time()

    def show(self, runs: list[Run]) -> None:
        """Show how far the runs are; where there is no terminal, a line for every milestone."""
        for run in runs:
            progress = None if run in self._ended else run.folder.progress(self._since)
            if progress is None:
                continue
            if run not in self._bars:
                self._bars[run] = self.add_task(escape(run.name), state="")
            state = escape(progress["state"])
            self.update(self._bars[run], completed=progress["completed"], total=progress["total"], state=state)
            if not self.console.is_terminal and self._milestones.get(run) != progress["milestone"]:
                self.say(run, progress["milestone"])
            self._milestones[run] = progress["milestone"]

    def ended(self, outcome: Outcome) -> None:
        """Show the result of a run, or why it has failed."""
        run = outcome.run
        self._ended.add(run)
        if run in self._bars:
            self.remove_task(self._bars.pop(run))
        if outcome.status == "done":
            self.advance(self._all)
            result = run.folder.result()
            known = {name: value for name, value in result.items() if isinstance(value, float) and "minutes" not in name}
            texts = [f"{name} {value:,.2f}" for name, value in known.items()]
            self.say(run, ", ".join([*texts, f"{result['steps']:,} steps"]))
        else:
            end = "\n".join(outcome.error.strip().splitlines()[-N_LINES:])[-N_CHARACTERS:]
            self.say(run, f"failed:\n{end}\nMore in {run.folder.log}", "red")

    def say(self, run: Run, text: str, style: str = "default") -> None:
        """Print a line about a run."""
        self.console.print(f"[{style}]{escape(run.name)}[/]: {escape(text)}", soft_wrap=True)
