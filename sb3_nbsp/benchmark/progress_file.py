"""How far a run is, for whoever watches it from outside."""

from __future__ import annotations

import json
import time
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback

from sb3_nbsp.files import atomic_write


class ProgressFile(BaseCallback):
    """
    Writes how far a run is into a small file, for whoever watches it from outside.

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
        progress = self.training_env.env_method("get_progress", indices=0)[0]
        atomic_write(self.path, json.dumps({**progress, "step": self.num_timesteps}))
