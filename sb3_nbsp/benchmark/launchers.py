"""Where the runs of a comparison are computed: processes of this machine, or a Ray cluster."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import traceback
from abc import abstractmethod
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any, Literal, NamedTuple

import torch as th
from filelock import Timeout
from typing_extensions import override

from sb3_nbsp.benchmark.comparison import Run
from sb3_nbsp.benchmark.folder import RunFolder
from sb3_nbsp.benchmark.settings import Settings
from sb3_nbsp.benchmark.train import BUSY, train

N_LINES = 20  # of the log of a run whose process has ended without a word
MAX_RETRIES = 5  # of a run whose Ray node or process died


class Outcome(NamedTuple):
    """How a run ended ("busy": another process is at it), with the traceback of one that failed, or what is known of it."""

    run: Run
    status: Literal["done", "failed", "busy"]
    error: str = ""


class Launcher(AbstractContextManager["Launcher"]):
    """Computes runs. At its exit it ends those that are still being computed; their checkpoints stay."""

    @property
    def has_room(self) -> bool:
        """Whether another run can be submitted now."""
        return True

    @abstractmethod
    def submit(self, run: Run, settings: Settings) -> None:
        """Compute a run; there is room."""

    @abstractmethod
    def poll(self) -> list[Outcome]:
        """Those runs that have ended since the last call; to be called every now and then."""


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
        self._running: dict[Run, subprocess.Popen[bytes]] = {}

    @property
    @override
    def has_room(self) -> bool:
        return len(self._running) < self.jobs

    @override
    def submit(self, run: Run, settings: Settings) -> None:
        run.path.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "sb3_nbsp.benchmark.train", "--folder", str(run.path)]
        # The open pipe tells the process that this one lives
        command += ["--settings", json.dumps(asdict(settings)), "--end-with-stdin"]
        command += [] if run.first_phase is None else ["--first-phase", str(run.first_phase)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        with run.folder.log.open("ab") as log:
            self._running[run] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)

    @override
    def poll(self) -> list[Outcome]:
        ended = {run: process for run, process in self._running.items() if process.poll() is not None}
        for run, process in ended.items():
            process.communicate()  # closes the pipe
            del self._running[run]
        return [_outcome(run, process.returncode) for run, process in ended.items()]

    @override
    def __exit__(self, *error: object) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            process.communicate()
        self._running.clear()


def _outcome(run: Run, returncode: int) -> Outcome:
    if returncode in (0, BUSY):
        return Outcome(run, "busy" if returncode else "done")
    if error := run.folder.error():
        return Outcome(run, "failed", error)
    how = f"ended by signal {-returncode}" if returncode < 0 else f"ended with status {returncode}"
    end = run.folder.log.read_text(encoding="utf-8", errors="replace").splitlines()[-N_LINES:]
    return Outcome(run, "failed", "\n".join([*end, f"The process {how}"]))


class RayLauncher(Launcher):
    """
    One Ray task per run. All nodes must see the comparison's folder under the same path and have this package
    installed. A run whose node or process dies is computed again elsewhere, from its last checkpoint.

    :param address: the address of a running cluster ("auto", "ray://..."); None starts Ray on this machine
    :param cpus: cores, and threads of PyTorch, of a run
    :param gpus: share of a GPU that a run takes
    :raises ImportError: if Ray is not installed
    :raises ValueError: if the resources are no positive numbers
    """

    def __init__(self, address: str | None = None, cpus: int = 1, gpus: float = 0.0) -> None:
        if cpus < 1 or gpus < 0:
            raise ValueError(f"A run needs at least one core and no negative share of a GPU, not cpus={cpus}, gpus={gpus}")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # As Ray does it now: a task that asks for no GPU sees none
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
        try:
            import ray
        except ImportError as error:
            raise ImportError(f"The Ray launcher needs ray: pip install 'sb3_nbsp[ray]' ({error})") from error
        self._ray: Any = ray
        self._is_own = not ray.is_initialized()
        if self._is_own:
            try:
                ray.init(address=address or "local", log_to_driver=False, include_dashboard=False if address is None else None)
            except Exception as error:  # Ray has no class of its own for it
                raise ValueError(f"Ray cannot be started or reached: {error}") from error
        # A process of its own for every run: nothing of an earlier one can be left in it
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": MAX_RETRIES, "max_calls": 1}
        self._task = self._ray.remote(**options, runtime_env={"env_vars": {"OMP_NUM_THREADS": str(cpus)}})(_run)
        self._cpus = cpus
        self._running: dict[Any, Run] = {}

    @override
    def submit(self, run: Run, settings: Settings) -> None:
        first_phase = None if run.first_phase is None else str(run.first_phase.resolve())
        arguments = asdict(settings), str(run.path.resolve()), self._cpus, first_phase
        self._running[self._task.options(name=run.name).remote(*arguments)] = run

    @override
    def poll(self) -> list[Outcome]:
        if not self._running:
            return []
        ended, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [self._outcome(self._running.pop(reference), reference) for reference in ended]

    def _outcome(self, run: Run, reference: Any) -> Outcome:
        try:
            return Outcome(run, *self._ray.get(reference))
        except self._ray.exceptions.RayError as error:  # its process or node died more often than it may
            return Outcome(run, "failed", str(error))

    @override
    def __exit__(self, *error: object) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        if self._is_own:
            self._ray.shutdown()


def _run(settings: dict[str, Any], path: str, threads: int, first_phase: str | None) -> tuple[str, str]:
    """Compute a run inside a Ray task: its status and, if it failed, the traceback."""
    th.set_num_threads(threads)
    folder = RunFolder(path)
    folder.path.mkdir(parents=True, exist_ok=True)
    log = folder.log.open("a", buffering=1, encoding="utf-8")
    with log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            train(Settings(**settings), folder, None if first_phase is None else RunFolder(first_phase))
        except Timeout:
            return "busy", ""
        except Exception:
            # A failure is a result: raised, Ray would wrap it and could try it again
            return "failed", traceback.format_exc()
    return "done", ""
