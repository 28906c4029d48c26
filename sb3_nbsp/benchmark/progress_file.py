"""How far a run is, to be read by other processes."""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from sb3_nbsp.files import atomic_write


class ProgressFile(BaseCallback):
    """
    Writes how far a run is into a small file, for other processes.

    :param path: the file
    :param every: seconds between two writes
    """

    def __init__(self, path: Path, every: float = 1.0) -> None:
        super().__init__()
        self.path = path
        self.every = every
        self._written = 0.0

    def _on_step(self) -> bool:
        if time.monotonic() - self._written > self.every:
            self._write()
        return True

    def _on_training_end(self) -> None:
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        atomic_write(self.path, json.dumps(self.describe()))

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """
        How far the run is.

        :return: "completed" of "total", a "state" that changes all the time and a "milestone" that seldom changes
        """


class SequenceProgress(ProgressFile):
    """Of a run on a task sequence, in phases."""

    def describe(self) -> dict[str, Any]:
        """See :meth:`ProgressFile.describe`."""
        progress = self.training_env.env_method("get_progress", indices=0)[0]
        tasks, recent = progress["tasks"], progress["successes"]
        total, completed = len(tasks) * progress["cycles"], progress["phase"] + int(progress["sequence_over"])
        task = tasks[progress["phase"] % len(tasks)]
        reports = task in self.training_env.get_attr("report_success", indices=0)[0]
        success = f", success {sum(recent) / len(recent):.1f}" if recent and reports else ""
        state = "evaluation" if completed == total else f"{task}, step {self.num_timesteps:,}{success}"
        milestone = f"phase {min(completed + 1, total)} of {total} ({task})"
        return {"completed": completed, "total": total, "state": state, "milestone": milestone, "step": self.num_timesteps}


class StepProgress(ProgressFile):
    """
    Of a run on one environment, in steps.

    :param path: the file
    :param n_timesteps: steps of the whole run
    """

    def __init__(self, path: Path, n_timesteps: int) -> None:
        super().__init__(path)
        self.n_timesteps = n_timesteps

    def describe(self) -> dict[str, Any]:
        """See :meth:`ProgressFile.describe`."""
        returns = [episode["r"] for episode in self.model.ep_info_buffer or []]
        state = f"return {sum(returns) / len(returns):,.0f}" if returns else ""
        completed = min(self.num_timesteps, self.n_timesteps)
        milestone = f"{100 * completed // self.n_timesteps // 10 * 10} %"
        return {"completed": completed, "total": self.n_timesteps, "state": state, "milestone": milestone}
