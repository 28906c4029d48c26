"""What lets a run that was killed end as one that was not."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from sb3_nbsp.algorithms import ContinualSAC
from sb3_nbsp.tasks import SequenceCheckpoint


class SequencePosition(BaseCallback):
    """How far the sequence is, as an attribute of an agent that does not know of sequences, so that its zip holds it."""

    def _on_rollout_start(self) -> None:
        vars(self.model)["sequence_position"] = self.training_env.env_method("get_progress", indices=0)[0]

    def _on_step(self) -> bool:
        return True


class StartAfresh(SequenceCheckpoint):
    """
    A checkpoint behind which the run goes on as the one that is started from it would: with an episode that
    begins and with random numbers that follow from the seed and the step. So a run that was
    killed and started again ends as one that was not.

    :param seed: the run's seed
    :param save_freq: environment steps between two checkpoints
    :param folder: where to write
    :param waits: checkpoints wait for the end of an episode; otherwise they break it off
    """

    def __init__(self, seed: int, save_freq: int, folder: str | os.PathLike[str], waits: bool = True) -> None:
        super().__init__(save_freq, folder)
        self.seed = seed
        self.waits = waits
        self._episode_over = False

    def _on_training_start(self) -> None:
        super()._on_training_start()
        self._is_resumed = self.num_timesteps > 0

    def _on_rollout_start(self) -> None:
        last = self._last
        if (self._episode_over or not self.waits) and not self._is_resumed:
            super()._on_rollout_start()
        # Here in both cases, because with gSDE SB3 has just drawn random numbers
        if self._is_resumed or self._last != last:
            self._start_afresh()
            self._is_resumed = False

    def _on_step(self) -> bool:
        self._episode_over = bool(self.locals["dones"][0])
        return True

    def _start_afresh(self) -> None:
        assert self.model.env is not None
        self.model.set_random_seed(int(np.random.SeedSequence([self.seed, self.num_timesteps]).generate_state(1)[0]))
        self.model._last_obs = self.model.env.reset()  # type: ignore[assignment]
        self.model._last_episode_starts = np.ones(self.model.n_envs, dtype=bool)
        if isinstance(self.model, SAC) and self.model.use_sde:
            self.model.actor.reset_noise()


def sequence_position(model: BaseAlgorithm) -> dict[str, Any]:
    """
    :param model: a loaded agent, before it goes on
    :return: how far its task sequence is
    """
    if isinstance(model, ContinualSAC):
        assert model._sequence_progress is not None
        return model._sequence_progress[0]
    position: dict[str, Any] = vars(model)["sequence_position"]
    return position
