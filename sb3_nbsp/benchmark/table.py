"""Tables of a comparison: ASR, FM and FWT of every method over its seeds, beside the paper's if wanted."""

from __future__ import annotations

import argparse
import inspect
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from tqdm.auto import tqdm

from sb3_nbsp.benchmark.baselines import as_matrix
from sb3_nbsp.benchmark.paper import N_SEEDS, NEAREST, PAPER, SETTING, paper_row
from sb3_nbsp.benchmark.rendering import Number, Table, to_csv
from sb3_nbsp.benchmark.results import METRICS, Results, Run, load_results
from sb3_nbsp.benchmark.summary import NAN, RESAMPLES, Summary, summarize
from sb3_nbsp.files import atomic_write
from sb3_nbsp.tasks.metaworld import metaworld_cycle
from sb3_nbsp.tasks.registration import PAPER_CYCLES, sequences
from sb3_nbsp.tasks.sequence import TaskSequence

__all__ = ["Table", "add_arguments", "build_tables", "main"]

ARROWS = {"ASR": "↑", "FM": "↓", "FWT": "↑"}
UNKNOWN = "–"
FORMATS = ("markdown", "latex", "csv")
_FIRST_METRIC, _FIRST_IQM = 2, 3 + len(METRICS)
_HEADER = [
    "method",
    "seeds",
    *(f"{metric} {ARROWS[metric]}" for metric in METRICS),
    "steps",
    *(f"IQM of {metric} {ARROWS[metric]} (95 %)" for metric in METRICS),
]


@dataclass(frozen=True)
class _Row:
    """
    :param label: what the table calls it
    :param method: name of the method
    :param metrics: by name
    :param steps: mean number of environment steps of a run
    :param source: "ours", "baseline" for agents that have learned nothing, or where the numbers are taken from
    """

    label: str
    method: str
    metrics: dict[str, Summary]
    steps: float
    source: str = "ours"


@dataclass
class _Scores:
    """
    Runs of one method.

    :param method: its name
    :param runs: for every seed its run on each sequence
    """

    method: str
    runs: list[list[Run]] = field(default_factory=list)

    def row(self) -> _Row:
        """What the runs come to."""
        metrics = {
            name: summarize(np.array([[run.metrics[name] for run in runs] for runs in self.runs], dtype=float))
            for name in METRICS
        }
        return _Row(self.method, self.method, metrics, float(np.mean([[_steps(run) for run in runs] for runs in self.runs])))


def _steps(run: Run) -> float:
    steps = run.result.get("steps")
    return float(steps) if isinstance(steps, (int, float)) else NAN


def build_tables(results_list: Sequence[Results], paper: bool = False) -> list[Table]:
    """
    One table per comparison, and with several of them one over all: there a method has the seeds that it has done
    everywhere, its mean is over the sequences first, and the bootstrap's strata are the sequences.

    ASR, FM and FWT (NBSP, equations 9 to 11) are mean ± standard error over seeds; beside them the interquartile mean
    with the 95 % interval of a stratified bootstrap, whose seed is fixed. A run that is left out is named in the notes.

    :param results_list: the comparisons
    :param paper: add the paper's rows beside those of ours that have a counterpart
    :return: the tables, the one over all last
    :raises ValueError: if there is no comparison, or one is given twice
    :raises ImportError: if rliable cannot be imported
    """
    folders = [Path(results.folder).resolve() for results in results_list]
    if not folders:
        raise ValueError("A table needs at least one comparison")
    if len(set(folders)) < len(folders):
        raise ValueError(f"A folder is given twice: {', '.join(str(results.folder) for results in results_list)}")
    labels = _labels(results_list)
    tables = [_sequence_table(results, label, paper) for results, label in zip(results_list, labels, strict=True)]
    return [*tables, _overall_table(results_list, labels, paper)] if len(results_list) > 1 else tables


def _labels(results_list: Sequence[Results]) -> list[str]:
    """Sequence and size of each comparison; and the folder, where these do not tell them apart."""
    labels = [f"{results.plan.sequence} ({results.plan.preset})" for results in results_list]
    return [
        f"{label}, {results.folder}" if labels.count(label) > 1 else label
        for label, results in zip(labels, results_list, strict=True)
    ]


def _sequence_table(results: Results, label: str, paper: bool) -> Table:
    scores = [_Scores(method, [[run] for run in results.of(method)]) for method in results.methods]
    rows = _summarized(scores, label)
    notes = [f"Setting: {_setting(results)}.", _statistics_note(rows)]
    if paper:
        rows, paper_notes = _with_paper_rows(rows, results.plan.sequence)
        notes += paper_notes
    if baselines := _baseline_rows(results):
        rows += baselines
        notes.append(f"{' and '.join(row.label for row in baselines)}: what there is without learning; never counted as best.")
    notes += [f"{cell.name} is left out: {reason}" for cell, reason in results.left_out]
    return _fill(Table(label, list(_HEADER), notes=notes), rows)


def _baseline_rows(results: Results) -> list[_Row]:
    rows = []
    for agent, success in results.baselines.items() if results.runs else ():
        found = as_matrix(success, results.runs[0].matrix).metrics()
        metrics = {name: Summary(found[name], NAN, NAN, NAN, NAN, 0) for name in METRICS}
        rows.append(_Row(agent, agent, metrics, NAN, "baseline"))
    return rows


def _overall_table(results_list: Sequence[Results], labels: Sequence[str], paper: bool) -> Table:
    methods = dict.fromkeys(method for results in results_list for method in results.plan.methods)
    scores, notes = [], []
    for method in methods:
        by_seed = [{run.cell.seed: run for run in results.of(method)} for results in results_list]
        seeds = dict.fromkeys(seed for runs in by_seed for seed in runs)
        common = [seed for seed in seeds if all(seed in runs for runs in by_seed)]
        for seed in (seed for seed in seeds if seed not in common):
            lacking = [label for label, runs in zip(labels, by_seed, strict=True) if seed not in runs]
            notes.append(f"{method}, seed {seed} is left out: it has no result of {', '.join(lacking)}")
        if common:
            scores.append(_Scores(method, [[runs[seed] for runs in by_seed] for seed in common]))
        else:
            notes.append(f"{method} is left out: it has no seed that is done on all sequences")
    for label, results in zip(labels, results_list, strict=True):
        notes += [f"{label}: {cell.name} is left out: {reason}" for cell, reason in results.left_out]
    caption = f"All {len(labels)} sequences: {'; '.join(labels)}"
    rows = _summarized(scores, "all")
    head = ["A method's numbers are means over the sequences.", _statistics_note(rows)]
    if paper:
        head.append("The paper has no numbers over several sequences; see the tables of the single ones.")
    return _fill(Table(caption, list(_HEADER), notes=[*head, *notes]), rows)


def _summarized(scores: Sequence[_Scores], label: str) -> list[_Row]:
    return [each.row() for each in tqdm(scores, desc=f"bootstrap of {label}", unit="method", leave=False, disable=None)]


def _setting(results: Results) -> str:
    plan = results.plan
    defaults = {**inspect.signature(TaskSequence).parameters, **inspect.signature(metaworld_cycle).parameters}
    names = ("cycles", "steps_per_task", "mastery_threshold", "horizon")
    env = {**{name: defaults[name].default for name in names}, **sequences()[plan.env_id], **plan.env_kwargs}
    tasks = " → ".join(env.pop("tasks"))
    parts = [plan.env_id, tasks, *(f"{name} {value}" for name, value in env.items())]
    parts.append(f"{plan.n_eval_episodes} evaluation episodes per task after each phase")
    if plan.hyperparams:
        parts.append(f"hyper-parameters {json.dumps(plan.hyperparams)}")
    return ", ".join(parts)


def _statistics_note(rows: Sequence[_Row]) -> str:
    if not rows:
        return "No run is done yet."
    if all(summary.n < 2 for row in rows for summary in row.metrics.values()):
        return "One seed (n=1) has no standard error and no interval, and proves nothing."
    return (
        "± is the standard error over seeds. IQM: interquartile mean, with the 95 % interval of a stratified bootstrap "
        f"({RESAMPLES} resamples)."
    )


def _with_paper_rows(rows: Sequence[_Row], sequence: str) -> tuple[list[_Row], list[str]]:
    """The paper's row after each of ours that it has, and what has to be said about them."""
    both: list[_Row] = []
    without = []
    for row in rows:
        theirs = paper_row(row.method, sequence)
        both.append(row)
        if theirs is None:
            without.append(row.method)
            continue
        metrics = {name: Summary(mean, error, NAN, NAN, NAN, N_SEEDS) for name, (mean, error) in theirs.numbers.items()}
        both.append(_Row(theirs.label, row.method, metrics, NAN, theirs.label))
    notes = []
    if len(both) > len(rows):
        notes.append(
            f"Rows of the paper: mean ± standard error over {N_SEEDS} seeds, {SETTING} a task at most; never counted as best."
        )
    if sequence not in PAPER:
        notes.append(
            f"The paper does not have the sequence {sequence}. Its rows here are of the nearest that it has, "
            f"{' → '.join(PAPER_CYCLES[NEAREST])} (table 2): other tasks in another setting."
        )
    if without:
        notes.append(f"The paper has no numbers here of: {', '.join(without)}.")
    return both, notes


def _fill(table: Table, rows: Sequence[_Row]) -> Table:
    for row in rows:
        (n,) = {summary.n for summary in row.metrics.values()}
        table.rows.append(
            [
                row.label,
                str(n) if n else UNKNOWN,
                *(_mean_cell(row.metrics[name]) for name in METRICS),
                _steps_cell(row.steps),
                *(_iqm_cell(row.metrics[name]) for name in METRICS),
            ]
        )
        for name in METRICS:
            summary = row.metrics[name]
            values = (summary.mean, summary.se, summary.iqm, summary.low, summary.high, summary.n)
            table.numbers.append(Number(row.method, row.source, name, *values, row.steps))
    ours = [(index, row) for index, row in enumerate(rows) if row.source == "ours"]
    for position, name in enumerate(METRICS):
        means = {index: row.metrics[name].mean for index, row in ours}
        iqms = {index: row.metrics[name].iqm for index, row in ours}
        table.best |= {(row, _FIRST_METRIC + position) for row in _best(means, ARROWS[name])}
        table.best |= {(row, _FIRST_IQM + position) for row in _best(iqms, ARROWS[name])}
    return table


def _best(values: dict[int, float], arrow: str) -> list[int]:
    """Keys of the best values, as they are shown: what looks equal is a tie. Nothing is best among fewer than two."""
    shown = {key: round(value, 2) for key, value in values.items() if not math.isnan(value)}
    if len(shown) < 2:
        return []
    best = max(shown.values()) if arrow == "↑" else min(shown.values())
    return [key for key, value in shown.items() if value == best]


def _decimals(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # no "-0.00"


def _mean_cell(summary: Summary) -> str:
    if math.isnan(summary.mean):
        return UNKNOWN
    if summary.n == 0:
        return _decimals(summary.mean)
    return f"{_decimals(summary.mean)} {'(n=1)' if summary.n == 1 else f'± {_decimals(summary.se)}'}"


def _iqm_cell(summary: Summary) -> str:
    if math.isnan(summary.iqm):
        return UNKNOWN
    interval = "n=1" if summary.n == 1 else f"{_decimals(summary.low)} to {_decimals(summary.high)}"
    return f"{_decimals(summary.iqm)} ({interval})"


def _steps_cell(steps: float) -> str:
    return UNKNOWN if math.isnan(steps) else f"{steps:,.0f}".replace(",", "\u00a0")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    :param parser: the parser of the subcommand
    """
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folder of a comparison; several get a table over all too")
    parser.add_argument("--paper", action="store_true", help="add the paper's rows")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="print the tables in this format only; default: print them for people, and write DIR/table.md, .tex and .csv",
    )


def main(args: argparse.Namespace) -> None:
    """
    Print the tables and, without ``--format``, write them: each into its own DIR, the one over all into the first.

    :param args: what :func:`add_arguments` asks for
    :raises ValueError: if a folder holds no comparison
    :raises ImportError: if rliable cannot be imported
    """
    tables = build_tables([load_results(folder) for folder in args.folders], args.paper)
    if args.format is not None:
        sys.stdout.write(render(tables, args.format))
        return
    console = Console()
    names = [Path(folder) / "table" for folder in args.folders]
    if len(tables) > len(names):
        names.append(Path(args.folders[0]) / "table_all")
    for table, name in zip(tables, names, strict=True):
        table.print(console)
        for suffix, form in ((".md", "markdown"), (".tex", "latex"), (".csv", "csv")):
            atomic_write(name.with_suffix(suffix), render([table], form))
        console.print(f"Written: {name}.md, .tex, .csv", markup=False, highlight=False, soft_wrap=True)


def render(tables: Sequence[Table], form: str) -> str:
    """
    :param tables: the tables
    :param form: "markdown", "latex" or "csv"
    :return: all of them as one text
    """
    if form == "csv":
        return to_csv(tables)
    return "\n".join(table.markdown() if form == "markdown" else table.latex() for table in tables)
