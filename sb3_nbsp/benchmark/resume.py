"""What lets a run that was killed end as one that was not."""

from __future__ import annotations

import os

import numpy as np
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import VecNormalize

from sb3_nbsp.benchmark.agents import STATISTICS
from sb3_nbsp.tasks import SequenceCheckpoint, latest_checkpoint


class StartAfresh(SequenceCheckpoint):
    """
    A checkpoint after which the run continues as the one that is started from it would: with an episode that
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
        if self._is_resumed:
            self._restore_statistics()
        self.model.set_random_seed(int(np.random.SeedSequence([self.seed, self.num_timesteps]).generate_state(1)[0]))
        self.model._last_obs = self.model.env.reset()  # type: ignore[assignment]
        normalizer = self.model.get_vec_normalize_env()
        if normalizer is not None:  # replay buffers store what is not normalized
            self.model._last_original_obs = normalizer.get_original_obs()
        self.model._last_episode_starts = np.ones(self.model.n_envs, dtype=bool)
        if isinstance(self.model, SAC) and self.model.use_sde:
            self.model.actor.reset_noise()

    def _restore_statistics(self) -> None:
        """Those of the checkpoint: since then, SB3 has reset the environment once more."""
        normalizer, checkpoint = self.model.get_vec_normalize_env(), latest_checkpoint(self.folder)
        if normalizer is not None and checkpoint is not None:
            saved = VecNormalize.load(str(checkpoint / STATISTICS), normalizer.venv)
            normalizer.obs_rms, normalizer.ret_rms = saved.obs_rms, saved.ret_rms
