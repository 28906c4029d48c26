"""Runs as tasks of a Ray cluster."""

from __future__ import annotations

import contextlib
import os
import traceback
from pathlib import Path
from typing import Any

from filelock import Timeout

from sb3_nbsp.benchmark.launchers.base import Launcher, Outcome
from sb3_nbsp.benchmark.plan import Cell


class RayLauncher(Launcher):
    """
    One Ray task per run. All nodes must see the comparison's folder under the same path and have this package
    installed. A run whose node or process dies is computed again elsewhere, from its last checkpoint.

    :param address: address of a running cluster ("auto", "ray://..."); None starts Ray on this machine
    :param cpus: cores, and threads of PyTorch, of a run
    :param gpus: share of a GPU that a run takes
    :param max_retries: how often a run is computed again after its node or process died
    :raises ImportError: if Ray is not installed
    :raises ValueError: if the resources are no positive numbers
    """

    def __init__(self, address: str | None = None, cpus: int = 1, gpus: float = 0.0, max_retries: int = 5) -> None:
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
            ray.init(address=address or "local", log_to_driver=False, include_dashboard=False if address is None else None)
        resources = {"num_cpus": cpus, "num_gpus": gpus}
        # A process of its own for every run: nothing of an earlier one can be left in it
        environment = {"env_vars": {"OMP_NUM_THREADS": str(cpus)}}
        options = {**resources, "max_retries": max_retries, "max_calls": 1, "runtime_env": environment}
        self._task = self._ray.remote(**options)(_run)
        self._cpus = cpus
        self._running: dict[Any, Cell] = {}

    def submit(self, cell: Cell, settings: dict[str, Any]) -> None:
        """See :meth:`Launcher.submit`."""
        absolute = {**settings, "folder": str(cell.folder.resolve())}
        self._running[self._task.options(name=cell.name).remote(absolute, self._cpus)] = cell

    def poll(self) -> list[Outcome]:
        """See :meth:`Launcher.poll`."""
        if not self._running:
            return []
        ended, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [self._outcome(self._running.pop(reference), reference) for reference in ended]

    def _outcome(self, cell: Cell, reference: Any) -> Outcome:
        try:
            status, error = self._ray.get(reference)
        except self._ray.exceptions.RayError as ray_error:  # its process or node died more often than it may
            return Outcome(cell, "failed", str(ray_error))
        return Outcome(cell, status, error)

    def close(self) -> None:
        """See :meth:`Launcher.close`."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        if self._is_own:
            self._ray.shutdown()


def _run(settings: dict[str, Any], threads: int) -> tuple[str, str]:
    """Compute a run inside a Ray task: its status and, if it failed, the traceback."""
    import torch as th

    from sb3_nbsp.benchmark.cell import run_cell

    th.set_num_threads(threads)
    folder = Path(settings["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    log = (folder / "log.txt").open("a", buffering=1, encoding="utf-8")
    with log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            run_cell(**settings)
        except Timeout:
            return "busy", ""
        except Exception:
            # A failure is a result: raised, Ray would wrap it and could try it again
            return "failed", traceback.format_exc()
    return "done", ""
