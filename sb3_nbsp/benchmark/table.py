"""Tables of a comparison: every measure of every method over its seeds, beside the paper's numbers if wanted."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pandas as pd
from gymnasium.envs.registration import load_env_creator

from sb3_nbsp.benchmark.comparison import short_name
from sb3_nbsp.benchmark.frames import CONTINUAL, Results, by_method
from sb3_nbsp.benchmark.methods import METHODS, PAPER_ROWS
from sb3_nbsp.benchmark.rendering import STEPS, UNKNOWN, Table
from sb3_nbsp.benchmark.statistics import RESAMPLES, summarize
from sb3_nbsp.tasks.registration import ATARI_CYCLES, PAPER_CYCLES, is_sequence, sequences
from sb3_nbsp.tasks.sequence import TaskSequence

_WIDTH = 3  # diagnostics beside each other on a terminal
_NUMBERS = ["method", "source", "measure", "mean", "se", "iqm", "low", "high", "n", "steps"]
PAPER_SEEDS = 3
# The pair of the paper's table 2, which stands in for sequences that it does not have
NEAREST = "ButtonPressTopdown-WindowOpen"
# The same for games, of its table 5
NEAREST_GAMES = "Atari-Pong-Bowling"
_TASKS = {**PAPER_CYCLES, **{f"Atari-{name}": tasks for name, (tasks, _) in ATARI_CYCLES.items()}}


class Measure(NamedTuple):
    """A column: its heading, digits after the point, and 1 where the highest value is the best, -1 where the lowest is."""

    title: str
    decimals: int = 2
    best: int = 0


SEQUENCE_MEASURES = {"ASR": Measure("ASR ↑", best=1), "FM": Measure("FM ↓", best=-1), "FWT": Measure("FWT ↑", best=1)}
ENVIRONMENT_MEASURES = {
    "return": Measure("return ↑", 0, 1),
    "training_return": Measure("training return ↑", 0, 1),
    "distillation_epochs": Measure("distillation epochs", 1),
    "share_ever_reset": Measure("share ever reset"),
    "weight_norm": Measure("weight norm"),
    "dormant_ratio": Measure("dormant ratio", 3),
    "gradient_norm": Measure("gradient norm", 1),
}


@cache
def paper() -> pd.DataFrame:
    """NBSP, tables 1 to 5, 9, 10: ASR (5: AR), FM and FWT with their standard errors, by ``sequence`` and ``row``."""
    with files("sb3_nbsp.benchmark").joinpath("paper.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, index_col=["sequence", "row"])


def stand_in(sequence: str) -> str:
    """The sequence itself if the paper has it, otherwise :data:`NEAREST` or, of games, :data:`NEAREST_GAMES`."""
    is_of_games = sequence.startswith(("Atari", "MinAtar"))
    return sequence if sequence in paper().index else NEAREST_GAMES if is_of_games else NEAREST


def paper_row(method: str, sequence: str) -> pd.Series | None:
    """The paper's numbers of a method on a sequence, or on the one that stands in for it; None if it has none."""
    place = (stand_in(sequence), PAPER_ROWS.get(method))
    return paper().loc[place] if place in paper().index else None


def build_tables(results_list: Sequence[Results], with_paper: bool = False) -> list[Table]:
    """
    One table per comparison and environment, and one over all if there are several sequences: in it a method has the seeds
    that it has done everywhere, its mean is over the sequences first, and the bootstrap's strata are the sequences.

    Measures are mean ± standard error over seeds (ASR, FM and FWT: NBSP, equations 9 to 11), beside them the interquartile
    mean with its 95 % interval. The best value is in bold if its interval overlaps with no other's. A run that is left out is
    named in the notes.

    :param with_paper: add the paper's rows beside those of ours that have a counterpart
    :return: the tables, the one over all last
    :raises ValueError: if there is no comparison, or one is given twice
    """
    if not results_list:
        raise ValueError("A table needs at least one comparison")
    if len({results.folder.resolve() for results in results_list}) < len(results_list):
        raise ValueError(f"A folder is given twice: {', '.join(str(results.folder) for results in results_list)}")
    parts = [(results.of(env_id), env_id) for results in results_list for env_id in results.comparison.env_ids.values()]
    names = [short_name(env_id) + f" ({each.comparison.preset})" * (env_id in sequences()) for each, env_id in parts]
    labels = [
        f"{name}, {results.folder}" if names.count(name) > 1 else name for name, (results, _) in zip(names, parts, strict=True)
    ]
    tables = [_table_of(*part, label, with_paper) for part, label in zip(parts, labels, strict=True)]
    by_label = {label: results for label, (results, env_id) in zip(labels, parts, strict=True) if is_sequence(env_id)}
    if len(by_label) > 1:
        tables.append(_overall_table(by_label, with_paper, results_list[0].folder / "table_all"))
    return tables


def _table_of(results: Results, env_id: str, label: str, with_paper: bool) -> Table:
    measures = SEQUENCE_MEASURES if is_sequence(env_id) else ENVIRONMENT_MEASURES
    rows: list[dict[str, Any]] = []
    for title, runs in results.runs.groupby("method", observed=True):
        rows += _summaries(title, [runs], measures)
        # What was measured at the start of training, to compare the end with
        history = results.plasticity[(results.plasticity.method == title) & (results.plasticity.step == 0)]
        first = history[history.measure.isin(measures)].pivot(index="seed", columns="measure", values="value")
        if len(first):
            rows += _summaries(f"{title}, at the start", [first], measures, "start")
    notes = [f"Setting: {_setting(results, env_id)}.", _statistics_note(rows)]
    if results.measure == "score":
        notes.append(
            "The tasks do not report success: ASR, FM and FWT are of their scores or, where they have none, of returns."
        )
    if with_paper and is_sequence(env_id):
        rows, paper_notes = _with_paper(rows, short_name(env_id))
        notes += paper_notes
    if baselines := results.baseline_metrics():
        rows += [
            {"method": agent, "source": "baseline", "measure": name, "mean": value, "n": 0}
            for agent, found in baselines.items()
            for name, value in found.items()
        ]
        notes.append(f"{' and '.join(baselines)}: what there is without learning; never counted as best.")
    notes += [f"Left out: {sentence}" for sentence in results.left_out_sentences()]
    return _fill(label, rows, measures, notes, results.folder / "table")


def _summaries(
    title: str, runs_of_sequences: list[pd.DataFrame], measures: Iterable[str], source: str = "ours"
) -> list[dict[str, Any]]:
    """A row for each measure; of several sequences all have the same seeds, in the same order."""
    known = [runs.reindex(columns=["steps", *measures]).astype(float) for runs in runs_of_sequences]
    same = {"method": title, "source": source, "steps": np.mean([runs.steps.mean() for runs in known])}
    return [{**same, "measure": name, **summarize(np.column_stack([runs[name] for runs in known]))} for name in measures]


def _with_paper(rows: list[dict[str, Any]], sequence: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The paper's row after each of ours that it has, and what has to be said about them."""
    both, without, notes = [], [], []
    nearest, names = stand_in(sequence), {method.title: method.name for method in METHODS.values()}
    for title in dict.fromkeys(row["method"] for row in rows):
        both += [row for row in rows if row["method"] == title]
        theirs = paper_row(names[title], sequence)
        if theirs is None:
            without.append(title)
            continue
        same = {"method": f"paper: {title}", "source": f"paper, table {theirs.table:.0f}: {theirs.name[1]}", "n": PAPER_SEEDS}
        both += [{**same, "measure": each, "mean": theirs[each], "se": theirs[f"{each}_error"]} for each in CONTINUAL]
    if len(both) > len(rows):
        steps = ATARI_CYCLES.get(nearest.removeprefix("Atari-"), ([], 0))[1]
        size = f"convolutions and 2×768, {steps:.1e} steps a task" if steps else "3×768, 1e6 steps a task at most"
        setting = f"mean ± standard error over {PAPER_SEEDS} seeds, {size}, two cycles; never counted as best"
        notes.append(f"Rows of the paper: {' → '.join(_TASKS[nearest])}, {setting}.")
    if nearest != sequence:
        place = f"{' → '.join(_TASKS[nearest])} (table {5 if nearest == NEAREST_GAMES else 2})"
        missing = f"The paper does not have the sequence {sequence}"
        notes.append(f"{missing}. Its rows here are of the nearest that it has, {place}: other tasks in another setting.")
        if nearest == NEAREST_GAMES:
            notes.append(
                "The paper's are scores, 0 for random play and 1 for a human. What is a return or another score cannot be "
                "compared with them."
            )
    if without:
        notes.append(f"The paper has no numbers here of: {', '.join(without)}.")
    return both, notes


def _overall_table(parts: dict[str, Results], with_paper: bool, file: Path) -> Table:
    rows, left_out = [], []
    titles = dict.fromkeys(METHODS[name].title for results in parts.values() for name in results.comparison.methods)
    for title in titles:
        done = {label: results.runs[results.runs.method == title].set_index("seed") for label, results in parts.items()}
        seeds = dict.fromkeys(seed for runs in done.values() for seed in runs.index)
        lacking = {seed: [label for label, runs in done.items() if seed not in runs.index] for seed in seeds}
        left_out += by_method((title, seed, f"no result of {', '.join(of)}") for seed, of in lacking.items() if of)
        common = [seed for seed, of in lacking.items() if not of]
        if common:
            rows += _summaries(title, [runs.loc[common] for runs in done.values()], CONTINUAL)
        else:
            left_out.append(f"{title}: no seed is done on all sequences")
    left_out += [f"{label}: {sentence}" for label, results in parts.items() for sentence in results.left_out_sentences()]
    notes = ["The numbers of a method are means over the sequences.", _statistics_note(rows)]
    if with_paper:
        notes.append("The paper has no numbers over several sequences; see the tables of the single ones.")
    notes += [f"Left out: {sentence}" for sentence in left_out]
    return _fill(f"All {len(parts)} sequences: {'; '.join(parts)}", rows, SEQUENCE_MEASURES, notes, file)


def _setting(results: Results, env_id: str) -> str:
    comparison = results.comparison
    parts = [env_id]
    if is_sequence(env_id):
        entry_point: Any = gym.spec(env_id).entry_point
        own = inspect.signature(load_env_creator(entry_point)).parameters
        defaults = {**inspect.signature(TaskSequence).parameters, **own}
        names = ("cycles", "steps_per_task", "mastery_threshold", "mastery_window", "horizon")
        env = {**{name: defaults[name].default for name in names if name in defaults}, **comparison.sequence(env_id)}
        if env["mastery_threshold"] is None:
            del env["mastery_window"]  # of no effect
        parts += [" → ".join(env.pop("tasks")), *(f"{name} {value}" for name, value in env.items())]
        length = f"{comparison.n_eval_episodes} evaluation episodes"
        length = f"whole games for {comparison.n_eval_steps} evaluation steps" if comparison.n_eval_steps else length
        parts.append(f"{length} per task after each phase")
        parts += [f"{comparison.eval_policy} policy"] * (comparison.eval_policy != "deterministic")
    else:
        steps = f"{comparison.n_timesteps:,}" if comparison.n_timesteps else "the YAML file's number of"
        parts += [f"{steps} steps", f"{comparison.n_eval_episodes} evaluation episodes at the end"]
    return ", ".join([*parts, *([f"hyperparameters {json.dumps(comparison.hyperparams)}"] * bool(comparison.hyperparams))])


def _statistics_note(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return "No run is done yet."
    if all(row["n"] < 2 for row in rows):
        return "One seed (n=1) has no standard error and no interval, and proves nothing."
    return (
        "± is the standard error over seeds. IQM: interquartile mean, with the 95 % interval of a stratified bootstrap "
        f"({RESAMPLES} resamples). Bold: the best, if its interval overlaps with no other's."
    )


def _fill(
    caption: str, rows: list[dict[str, Any]], measures: dict[str, Measure], notes: list[str], file: Path = Path()
) -> Table:
    numbers = pd.DataFrame(rows, columns=_NUMBERS)
    # Measures that no run has take no column
    known = set(numbers.measure[numbers["mean"].notna()]) if rows else set(measures)
    shown = {name: each for name, each in measures.items() if name in known}
    judged = {name: each for name, each in shown.items() if each.best}
    iqm = {name: f"{each.title}: IQM [95 %]" for name, each in judged.items()}
    best = {name: _best(numbers[numbers.measure == name], each.best) for name, each in judged.items()}
    lines, bold = [], []
    for title, group in numbers.groupby("method", sort=False):
        of = group.set_index("measure")
        n, steps = of.n.iloc[0], of.steps.iloc[0]
        line = {"method": title, "seeds": str(n) if n else UNKNOWN}
        line |= {each.title: _mean_text(of.loc[name], each.decimals) for name, each in shown.items()}
        line |= {STEPS: UNKNOWN if pd.isna(steps) else f"{steps:,.0f}".replace(",", "\u00a0")}
        line |= {iqm[name]: _iqm_text(of.loc[name], each.decimals) for name, each in judged.items()}
        lines.append(line)
        bold.append({heading: best[name] == title for name in judged for heading in (shown[name].title, iqm[name])})
    headings = ["method", "seeds", *(each.title for each in shown.values()), STEPS, *iqm.values()]
    diagnostics = [each.title for name, each in shown.items() if name not in judged]
    blocks = [["seeds", *(each.title for each in judged.values()), STEPS]]
    blocks += [diagnostics[i : i + _WIDTH] for i in range(0, len(diagnostics), _WIDTH)] + [list(iqm.values())] * bool(iqm)
    cells = pd.DataFrame(lines, columns=headings, dtype=object)
    marks = pd.DataFrame(bold, columns=headings, index=cells.index).eq(True).to_numpy()
    return Table(caption, cells, blocks, marks, numbers.assign(table=caption)[["table", *_NUMBERS]], notes, file)


def _best(numbers: pd.DataFrame, sign: int) -> str | None:
    """The method of ours with the best interquartile mean, if its interval overlaps with that of no other one."""
    ours = numbers[(numbers.source == "ours") & numbers.low.notna()].set_index("method")
    if len(ours) < 2:
        return None
    best = (sign * ours.iqm).idxmax()
    others = ours.drop(best)
    is_apart = (others.high < ours.low[best]) if sign > 0 else (others.low > ours.high[best])
    return str(best) if is_apart.all() else None


def _text(value: float, decimals: int) -> str:
    # A mean of 0.825 can be a little less in binary; and no "-0.00"
    return f"{round(value + 1e-9, decimals) + 0.0:,.{decimals}f}"


def _mean_text(number: pd.Series, decimals: int) -> str:
    if pd.isna(number["mean"]):
        return UNKNOWN
    error = {0: "", 1: " (n=1)"}.get(number.n, f" ± {_text(number.se, decimals)}")
    return _text(number["mean"], decimals) + error


def _iqm_text(number: pd.Series, decimals: int) -> str:
    if pd.isna(number.iqm):
        return UNKNOWN
    interval = "n=1" if number.n == 1 else f"{_text(number.low, decimals)}, {_text(number.high, decimals)}"
    return f"{_text(number.iqm, decimals)} [{interval}]"
