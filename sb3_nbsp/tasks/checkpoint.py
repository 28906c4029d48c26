"""Checkpoints from which a killed run continues: the model together with its replay buffer."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

_NAME = re.compile(r"checkpoint_(\d+)_steps")


def latest_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """
    The last complete checkpoint in a folder.

    :param folder: where :class:`SequenceCheckpoint` writes
    :return: the checkpoint's own folder, with ``model.zip`` and ``replay_buffer.pkl``; None if there is none
    """
    found = [
        (int(match[1]), path) for path in Path(folder).glob("checkpoint_*_steps") if (match := _NAME.fullmatch(path.name))
    ]
    return max(found)[1] if found else None


def save_checkpoint(model: BaseAlgorithm, folder: str | os.PathLike[str]) -> Path:
    """
    Write a checkpoint and remove the older ones. A run that is killed meanwhile leaves the last one whole.

    :param model: the agent
    :param folder: where to write
    :return: the checkpoint's own folder
    """
    final = Path(folder) / f"checkpoint_{model.num_timesteps}_steps"
    temporary = final.with_name(f".{final.name}")
    for leftover in Path(folder).glob(".checkpoint_*_steps"):  # of runs that were killed
        shutil.rmtree(leftover)
    temporary.mkdir(parents=True)
    model.save(temporary / "model.zip")
    if isinstance(model, OffPolicyAlgorithm):
        model.save_replay_buffer(temporary / "replay_buffer.pkl")
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        normalizer.save(str(temporary / "vecnormalize.pkl"))
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    for older in Path(folder).glob("checkpoint_*_steps"):
        if older != final:
            shutil.rmtree(older)
    return final


class SequenceCheckpoint(BaseCallback):
    """
    Every ``save_freq`` steps, save the model and its replay buffer together and drop the previous checkpoint.

    :param save_freq: environment steps between two checkpoints
    :param folder: where to write
    :param verbose: 1 prints the path
    """

    def __init__(self, save_freq: int, folder: str | os.PathLike[str], verbose: int = 0) -> None:
        super().__init__(verbose)
        if save_freq < 1:
            raise ValueError(f"save_freq must be at least 1, not {save_freq!r}")
        self.save_freq = save_freq
        self.folder = Path(folder)

    def _on_training_start(self) -> None:
        self._last = self.num_timesteps

    def _on_rollout_start(self) -> None:
        # Between two rollouts the agent, its buffer and its environment are at the same step
        if self.num_timesteps - self._last >= self.save_freq:
            self._last = self.num_timesteps
            path = save_checkpoint(self.model, self.folder)
            if self.verbose:
                print(f"Saved {path}")

    def _on_step(self) -> bool:
        return True
