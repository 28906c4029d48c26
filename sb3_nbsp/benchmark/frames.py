"""A comparison's folder as tidy pandas frames: the only way from the files of runs to tables and figures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sb3_nbsp.benchmark.baselines import read_baselines
from sb3_nbsp.benchmark.comparison import Comparison, Run
from sb3_nbsp.benchmark.folder import RunFolder
from sb3_nbsp.benchmark.methods import METHODS
from sb3_nbsp.diagnostics.history import read_history
from sb3_nbsp.tasks.metrics import SuccessMatrix
from sb3_nbsp.tasks.registration import is_sequence

Frames = dict[str, pd.DataFrame]
CONTINUAL = ["ASR", "FM", "FWT"]
# Shares of a phase at which the training success of runs is compared
SHARES = np.linspace(0, 1, 101)
WINDOW = 10  # episodes of the running mean of the training success


@dataclass
class Results:
    """
    What a comparison has produced so far. Every frame has the columns ``env`` (its id) and ``seed``, and ``method``: the title
    of the method, in the order of the comparison.

    :param comparison: what it is a comparison of
    :param folder: where it is
    :param runs: a row for each run that is done: ``name``, ``config`` (a dictionary, empty if it cannot be read) and what its
        ``result.json`` says; ASR, FM and FWT follow from the success matrix
    :param success: success on ``task`` after ``phase`` (from 1), which has ``trained`` another task or this one
    :param training: running mean of the training success at :data:`SHARES` of each phase: ``phase``, ``task``, ``share``,
        ``success``, and the environment ``steps`` of the phase
    :param retention: after a switch, success on ``task`` at ``step`` of the second phase
    :param plasticity: ``measure`` and ``value`` at ``step``, from ``plasticity.csv``
    :param neurons: skill neurons of ``task`` as identified after ``phase``: ``network``, ``layer`` (its number, from 1),
        ``width``, ``neurons`` (a set of indices) and ``masked`` (the number of neurons with a mask below 1 by then)
    :param histograms: activation of the best skill neurons: ``phase``, ``task``, ``network``, ``layer``, ``neuron``,
        ``score``, ``edges``, ``success``, ``failure``
    :param baselines: success of each ``agent`` that has learned nothing on each ``task``
    :param left_out: every other run, and why
    :param damaged: what could not be read of runs that are done
    """

    comparison: Comparison
    folder: Path
    runs: pd.DataFrame
    success: pd.DataFrame
    training: pd.DataFrame
    retention: pd.DataFrame
    plasticity: pd.DataFrame
    neurons: pd.DataFrame
    histograms: pd.DataFrame
    baselines: pd.DataFrame
    left_out: list[tuple[Run, str]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    def of(self, env_id: str) -> Results:
        """The same, with the rows of one of the environments only."""
        frames = {name: each[each.env == env_id] for name, each in vars(self).items() if isinstance(each, pd.DataFrame)}
        left_out = [(run, reason) for run, reason in self.left_out if run.env_id == env_id]
        return Results(**{**vars(self), **frames, "left_out": left_out})

    @property
    def measure(self) -> str:
        """What the success matrix holds: "success", or "score" of tasks that report none (their score or return)."""
        is_score = len(self.training) > 0 and self.training.success.isna().all()
        return "score" if is_score else "success"

    def left_out_sentences(self) -> list[str]:
        """What is left out, see :func:`by_method`."""
        return by_method((run.title, run.seed, reason) for run, reason in self.left_out)

    def baseline_metrics(self) -> dict[str, dict[str, float]]:
        """ASR, FM and FWT on the only sequence of each agent that has learned nothing: its success is always the same."""
        phases = list(self.success.drop_duplicates("phase").sort_values("phase").trained)
        tasks = list(self.success.task.unique())
        found = {}
        for agent, frame in self.baselines.groupby("agent", sort=False) if phases else ():
            row = list(frame.set_index("task").success.reindex(tasks))
            found[agent] = SuccessMatrix(tasks, phases, [row] * len(phases)).metrics()
        return found


def by_method(left_out: Iterable[tuple[str, int, str]]) -> list[str]:
    """
    :param left_out: runs, by the title of the method and the seed, and why each is left out
    :return: a line for each method and reason: "NBSP, seeds 1, 2: not started"
    """
    seeds: dict[tuple[str, str], list[str]] = {}
    for title, seed, reason in left_out:
        seeds.setdefault((title, reason), []).append(str(seed))
    return [f"{title}, seed{'s' * (len(of) > 1)} {', '.join(of)}: {reason}" for (title, reason), of in seeds.items()]


def load_results(folder: str | os.PathLike[str]) -> Results:
    """
    Read the folder of a comparison. A run that is missing, unfinished or damaged is left out, never counted as zero.

    :param folder: where ``benchmark run`` wrote
    :raises ValueError: if the folder holds no comparison, or runs on one environment are of different sequences
    """
    folder, comparison = Path(folder), Comparison.load(folder)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in _FRAMES}
    left_out: list[tuple[Run, str]] = []
    damaged: list[str] = []
    for run in sorted(comparison.runs(folder), key=lambda run: comparison.methods.index(run.method)):
        try:
            found = _required(comparison, run)
        except (ValueError, OSError) as error:
            left_out.append((run, str(error)))
            continue
        for read in _OPTIONAL:
            try:
                found |= read(run, found)
            except (ValueError, OSError) as error:
                damaged.append(f"{run.name}: {error}")
        for name, frame in found.items():
            rows[name] += frame.assign(env=run.env_id, method=METHODS[run.method].title, seed=run.seed).to_dict("records")
    titles = [METHODS[method].title for method in comparison.methods]
    frames = {name: pd.DataFrame(records, columns=None if records else _COLUMNS) for name, records in rows.items()}
    frames = {name: each.assign(method=pd.Categorical(each.method, titles, ordered=True)) for name, each in frames.items()}
    _check_phases(frames["success"])
    baselines = pd.DataFrame(read_baselines(folder), columns=["env", "agent", "task", "success"])
    return Results(comparison, folder, **frames, baselines=baselines, left_out=left_out, damaged=damaged)


def _required(comparison: Comparison, run: Run) -> Frames:
    """What a run must have to count."""
    if reason := run.folder.why_unfinished():
        raise ValueError(reason)
    result: dict[str, Any] = {"steps": np.nan, **run.folder.result(), "name": run.name, "config": {}}
    if not is_sequence(run.env_id):
        history = pd.DataFrame(read_history(run.path)).melt("step", var_name="measure").dropna()
        last = history.groupby("measure").value.last()
        return {"runs": pd.DataFrame([{**last, **result}]), "plasticity": history}
    matrix, n_phases = run.folder.matrix(), comparison.n_phases(run.env_id)
    if len(matrix.rows) != n_phases:
        raise ValueError(f"{run.path / 'success_matrix.csv'} has {len(matrix.rows)} phases instead of {n_phases}")
    frame = pd.DataFrame(matrix.rows, columns=matrix.tasks, dtype=float)
    if frame.empty or not np.isfinite(frame).all(axis=None):
        raise ValueError(f"{run.path / 'success_matrix.csv'} has phases whose success is not known")
    frame = frame.assign(phase=range(1, n_phases + 1), trained=matrix.phase_tasks)
    success = frame.melt(["phase", "trained"], var_name="task", value_name="success")
    return {"runs": pd.DataFrame([{**result, **matrix.metrics()}]), "success": success}


def _check_phases(success: pd.DataFrame) -> None:
    for env_id, frame in success.groupby("env"):
        phases = frame.groupby(["method", "seed"], observed=True).apply(
            lambda run: tuple(zip(run.phase, run.trained, run.task, strict=True)), include_groups=False
        )
        if phases.nunique() > 1:
            different = phases[phases != phases.iloc[0]].index[0]
            raise ValueError(
                f"{env_id}: {different[0]}, seed {different[1]} has other phases than {phases.index[0][0]}, "
                f"seed {phases.index[0][1]}: they cannot be compared"
            )


def episodes_frame(folder: RunFolder) -> pd.DataFrame:
    """
    :param folder: the folder of a run
    :return: a row for each training episode: ``step``, ``phase`` (from 1), ``task``, ``success`` (the running mean of the last
        :data:`WINDOW` episodes of the phase) and ``part``, which grows whenever another phase begins
    :raises ValueError: if ``training.csv`` is missing or damaged
    """
    frame = pd.DataFrame(folder.episodes(), columns=["step", "phase", "task", "success", "return", "length"])
    # NaN where the task does not report success
    success = frame.success.map({"True": 1.0, "False": 0.0}).astype(float)
    frame = frame.astype({"step": int, "phase": int}).assign(success=success)
    frame["part"] = (frame.phase != frame.phase.shift()).cumsum()
    means = frame.groupby("part").success.rolling(WINDOW, min_periods=1).mean()
    return frame.assign(phase=frame.phase + 1, success=means.to_numpy())


def _training(run: Run, found: Frames) -> Frames:
    if "success" not in found:
        return {}
    episodes, path = episodes_frame(run.folder), run.path / "training.csv"
    trained = found["success"].drop_duplicates("phase").set_index("phase").trained
    parts, start = [], 0
    for _, part in episodes.groupby("part"):
        phase, task, ends = part.phase.iloc[0], part.task.iloc[0], part.step.to_numpy()
        if trained.get(phase) != task:
            raise ValueError(
                f"{path} is damaged: its phase {phase} ({task}) is not in the success matrix of the run: {[*trained]}"
            )
        if (steps := ends[-1] - start) <= 0:
            raise ValueError(f"{path} is damaged: its steps do not grow in phase {phase}")
        success = np.interp(SHARES, (ends - start) / steps, part.success)
        parts.append(pd.DataFrame({"phase": phase, "task": task, "share": SHARES, "success": success, "steps": steps}))
        start = ends[-1]
    return {"training": pd.concat(parts)} if parts else {}


def _retention(run: Run, found: Frames) -> Frames:
    rows = run.folder.retention()
    if not rows or "success" not in found:
        return {}
    # The evaluations after both phases are its first and its last
    ends = found["success"].pivot(index="phase", columns="task", values="success")
    steps = pd.DataFrame(run.folder.episodes()).astype({0: int}).groupby(1)[0].max()
    first, last = ({"step": step, **ends.loc[phase]} for phase, step in ((1, 0), (2, int(steps["1"] - steps["0"]))))
    frame = pd.DataFrame([first, *rows, last]).astype({"step": int})
    return {"retention": frame.melt("step", var_name="task", value_name="success")}


def _neurons(run: Run, _found: Frames) -> Frames:
    content = run.folder.neurons() or {"phases": []}
    rows, histograms = [], []
    for entry in content["phases"]:
        for name, identified in entry["networks"].items():
            critic = name.removeprefix("qf")
            network = f"critic {int(critic) + 1}" if critic.isdecimal() else name  # what people read
            place = {"phase": entry["phase"] + 1, "task": entry["task"], "network": network}
            layers = content["networks"][name]
            for number, (layer, width) in enumerate(layers, 1):
                neurons = frozenset(identified["skill_neurons"].get(layer, ()))
                masked = identified.get("masked", {}).get(layer, np.nan)
                rows.append({**place, "layer": number, "width": width, "neurons": neurons, "masked": masked})
            numbers = {layer: number for number, (layer, _) in enumerate(layers, 1)}
            histograms += [{**place, **each, "layer": numbers[each["layer"]]} for each in identified.get("histograms", [])]
    return {"neurons": pd.DataFrame(rows), "histograms": pd.DataFrame(histograms)} if rows else {}


def _config(run: Run, found: Frames) -> Frames:
    return {"runs": found["runs"].assign(config=[run.folder.config()])}


# What is shown if it can be read; a damaged file is named
_OPTIONAL: list[Callable[[Run, Frames], Frames]] = [_config, _training, _retention, _neurons]
_FRAMES = ("runs", "success", "training", "retention", "plasticity", "neurons", "histograms")
_COLUMNS = "env method seed name config steps phase trained task success share step measure value network layer width".split()
