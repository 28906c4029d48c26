"""The folder of one run: whatever is written there or read from there, this module names, writes and reads."""

from __future__ import annotations

import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from filelock import FileLock, Timeout

from sb3_nbsp.files import atomic_write, read_json_object, write_json
from sb3_nbsp.machine import machine, versions
from sb3_nbsp.tasks import SuccessMatrix, latest_checkpoint
from sb3_nbsp.tasks.episode_log import read_rows

if TYPE_CHECKING:
    from sb3_nbsp.benchmark.settings import Settings


class RunFolder:
    """
    The files of one run. What reads one raises ValueError if it is damaged.

    :param path: the folder; it is made when something is written
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.model, self.log = self.path / "model.zip", self.path / "log.txt"
        self.statistics = self.path / "vecnormalize.pkl"
        self._config, self._result = self.path / "config.json", self.path / "result.json"
        self._error, self._progress = self.path / "error.txt", self.path / "progress.json"
        self._matrix, self._training = self.path / "success_matrix.csv", self.path / "training.csv"
        self._neurons, self._retention = self.path / "neurons.json", self.path / "retention.csv"

    def lock(self) -> FileLock:
        """What only one process can hold; to enter it raises ``filelock.Timeout`` if another one does."""
        self.path.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path / ".lock", timeout=0)

    def is_busy(self) -> bool:
        """Whether another process is at this run."""
        try:
            with self.lock():
                return False
        except Timeout:
            return True

    @property
    def checkpoint(self) -> Path | None:
        """The last checkpoint; None if there is none."""
        return latest_checkpoint(self.path)

    @property
    def history(self) -> list[Path]:
        """The files that grow with the run, as far as they are there."""
        return [path for path in (self._matrix, self._training) if path.exists()]

    @property
    def is_done(self) -> bool:
        """Whether the run has a result."""
        return self._result.exists()

    def begin(self, settings: Settings) -> None:
        """
        Prepare the folder for a start of the run: remove what an earlier start has left unfinished, and write the settings
        with the versions and the machine.

        :raises ValueError: if the run continues, but was started with other settings, or has lost them
        """
        # What was logged before the first checkpoint is played again
        for path in [self._error, *self.path.glob(".[0-9]*-*"), *(self.history if self.checkpoint is None else ())]:
            path.unlink(missing_ok=True)
        if self.checkpoint is not None:
            if not self._config.exists():
                raise ValueError(f"{self.path} has lost its {self._config.name}: delete the folder to begin anew")
            self.check(settings)
        write_json(self._config, {**asdict(settings), "versions": versions(), "machine": machine()})

    def check(self, settings: Settings) -> None:
        """ValueError if the run in this folder was started with other settings."""
        if changed := settings.differences(read_json_object(self._config)):
            raise ValueError(
                f"{self.path} holds a run with other settings ({', '.join(changed)}): delete it, or choose another folder"
            )

    def config(self) -> dict[str, Any]:
        """What ``config.json`` says, with ``hyperparams``, ``versions`` and ``machine``; empty if there is none."""
        if not self._config.exists():
            return {}
        content = read_json_object(self._config)
        for name in ("hyperparams", "versions", "machine"):
            if not isinstance(content.setdefault(name, {}), dict):
                raise ValueError(f"{self._config} is damaged: its {name} are {content[name]!r}")
        return content

    def write_result(self, result: dict[str, float]) -> None:
        """The run is done, with these numbers by name."""
        write_json(self._result, result)

    def result(self) -> dict[str, Any]:
        """What :meth:`write_result` has written."""
        content = read_json_object(self._result)
        for name, value in content.items():
            if not isinstance(value, (int, float, type(None))):
                raise ValueError(f"{self._result} is damaged: its {name} is {value!r}, which is no number")
        return content

    def write_error(self, text: str) -> None:
        """The run has failed, and this is why."""
        atomic_write(self._error, text)

    def error(self) -> str | None:
        """Why the run has failed; None if it has not, or has ended without a word."""
        return self._error.read_text(encoding="utf-8") if self._error.exists() else None

    def why_unfinished(self) -> str | None:
        """Why the run has no result; None if it has one."""
        if not self.path.exists():
            return "not started"
        if (error := self.error()) is not None:
            return f"failed: {(error.strip().splitlines() or ['for an unknown reason'])[-1]}"
        return None if self.is_done else "not finished"

    def write_progress(self, progress: dict[str, Any]) -> None:
        """How far the run is, for those who watch it from outside."""
        write_json(self._progress, progress, indent=None)

    def progress(self, since: float) -> dict[str, Any] | None:
        """What :meth:`write_progress` has written since a time in seconds since 1970; None if nothing."""
        try:
            return read_json_object(self._progress) if self._progress.stat().st_mtime >= since else None
        except (OSError, ValueError):  # not written yet, or being replaced at this moment on a network's disk
            return None

    def matrix(self) -> SuccessMatrix:
        """The success on every task after each phase."""
        return SuccessMatrix.load(self._matrix)

    def episodes(self) -> list[list[str]]:
        """Step, phase, task, success, return and length of each training episode; ValueError if the file is missing, too."""
        if not self._training.exists():
            raise ValueError(f"{self._training} is missing")
        return read_rows(self._training)

    def write_retention(self, rows: list[dict[str, float]]) -> None:
        """Success on every task at steps of the last phase: for each step a dictionary of ``step`` and the tasks."""
        atomic_write(self._retention, pd.DataFrame(rows).to_csv(index=False))

    def retention(self) -> list[dict[str, float]]:
        """What :meth:`write_retention` has written, empty if nothing."""
        try:
            rows = pd.read_csv(self._retention, float_precision="round_trip", keep_default_na=False, dtype=float)
            return [] if rows.empty else rows.to_dict("records")
        except FileNotFoundError:
            return []
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self._retention} is damaged: {error}") from error

    def write_neurons(self, sizes: dict[str, Any], phase: int, entries: list[dict[str, Any]]) -> None:
        """
        Enter the skill neurons that are known after a phase, in place of what is there for it and for later phases.

        :param sizes: for each network its layers, each with its number of neurons
        :param phase: number of the phase, from 0
        :param entries: what was identified after it
        """
        earlier = read_json_object(self._neurons)["phases"] if self._neurons.exists() else []
        phases = [entry for entry in earlier if entry["phase"] < phase] + entries
        write_json(self._neurons, {"networks": sizes, "phases": phases}, indent=None)

    def neurons(self) -> dict[str, Any] | None:
        """
        :return: ``networks`` (for each its layers and their numbers of neurons) and ``phases``, each with ``phase``, ``task``
            and ``networks``, of which each has ``skill_neurons`` and ``masked`` by layer and ``histograms`` of the best;
            None if there is no such file, as of methods without masks
        """
        if not self._neurons.exists():
            return None
        content = read_json_object(self._neurons)
        try:
            for phase in content["phases"]:
                for name, network in phase["networks"].items():
                    _check_network(network, dict(content["networks"][name]))
                int(phase["phase"]), str(phase["task"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{self._neurons} is damaged: {reason}") from error
        return content


def _check_network(network: dict[str, Any], widths: dict[str, int]) -> None:
    for layer, neurons in network["skill_neurons"].items():
        if any(not 0 <= int(neuron) < widths[layer] for neuron in neurons):
            raise ValueError(f"{layer} has {widths[layer]} neurons, not {max(neurons) + 1}")
    for layer, n_masked in dict(network.get("masked", {})).items():
        if not 0 <= int(n_masked) <= widths[layer]:
            raise ValueError(f"{layer} has {widths[layer]} neurons, of which {n_masked} cannot be masked")
    for histogram in network.get("histograms", []):
        edges, success, failure = (histogram[name] for name in ("edges", "success", "failure"))
        if not len(edges) - 1 == len(success) == len(failure) >= 1:
            raise ValueError(f"a histogram has {len(edges)} edges for {len(success)} and {len(failure)} bins")
        if not all(math.isfinite(value) for value in (*edges, *success, *failure, histogram["score"])):
            raise ValueError("a histogram has a value that is no finite number")
        if not 0 <= int(histogram["neuron"]) < widths[histogram["layer"]]:
            raise ValueError(f"{histogram['layer']} has {widths[histogram['layer']]} neurons, not {histogram['neuron'] + 1}")
