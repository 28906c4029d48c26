"""Follow the phases of a task sequence, which the environment announces in its infos."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutReturn

from sb3_nbsp.algorithms.persistence import File, PersistentMemory
from sb3_nbsp.interventions import Phase

# Attributes that are rebuilt when a model is loaded
_NOT_SAVED = ["_crossed", "_sequence_over", "_last_progress", "show_progress"]


class PhasedAlgorithm(PersistentMemory):
    """
    An off-policy algorithm that learns of phases from ``info["boundary"]``, which is True at the last step of a
    phase, and from ``info["task"]`` and ``info["phase"]`` of the reset behind it. On an environment that says
    nothing of this kind there is one phase, and nothing here acts.
    """

    clear_replay_buffer: bool
    phase_learning_starts: int | None
    known_task_threshold: float | None
    look_episodes: int
    show_progress = False

    def _init_phases(self) -> None:
        self.phase = Phase(0, "")
        self.phase_steps = 0  # transitions stored in this phase
        self._phase_over = False
        self._env_phase: int | None = None  # phase of the environment's own count
        self._sequence_progress: list[dict[str, Any]] | None = None  # of a saved model, until learn() is called
        self._last_progress: list[dict[str, Any]] | None = None  # when learn() last returned
        self._sequence_over = False
        self._crossed = np.zeros(0, dtype=bool)  # by environment: has it left the current phase?
        # A phase other than the first begins with a look at what the policy can do already
        self._is_looking = False
        self._look: list[bool] = []  # success of the episodes of the look
        self._warmup_end = 0  # phase_steps after which this phase learns
        self._is_known = False  # is the policy good enough to act in the warm-up?

    def save(self, path: File, exclude: Any = None, include: Any = None) -> None:
        """Save the model and how far its environment is in the task sequence; see :meth:`PersistentAlgorithm.save`."""
        loaded = self._sequence_progress
        self._sequence_progress = loaded or self._get_progress()
        try:
            super().save(path, exclude, include)
        finally:
            self._sequence_progress = loaded

    def _get_progress(self) -> list[dict[str, Any]] | None:
        """How far each environment is in the task sequence; None if there is no sequence."""
        if self.env is None:
            return None
        try:
            progress = self.env.env_method("get_progress") if self.env.has_attr("get_progress") else None
        except (OSError, EOFError):  # the environments' processes have been closed
            return self._last_progress
        if progress is not None and self._crossed.any():
            # Who loads the model starts new episodes: no need to wait for those that are still in the old phase
            ahead = progress[int(self._crossed.argmax())]
            progress = [own if crossed else ahead for own, crossed in zip(progress, self._crossed, strict=True)]
        return progress

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Exchange the environment, see SB3."""
        before = self.env
        super().set_env(env, force_reset)
        if self.env is not before:
            self._crossed = np.zeros(self.n_envs, dtype=bool)

    def _excluded_save_params(self) -> list[str]:
        return super()._excluded_save_params() + _NOT_SAVED

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> Any:
        assert self.env is not None, "set_env() must be called before learn()"
        self.show_progress = progress_bar
        reset_num_timesteps = self._begins_anew(reset_num_timesteps)
        if self.env.has_attr("sequence_over") and all(self.env.get_attr("sequence_over")):
            self.env.env_method("restart")
            self._last_obs = None
        reset = reset_num_timesteps or self._last_obs is None
        if self._sequence_progress is not None and self.env.has_attr("set_progress"):
            self._restore_sequence(self._sequence_progress)
        self._sequence_progress = None
        result = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        self._sequence_over = False
        if len(self._crossed) != self.n_envs:
            self._crossed = np.zeros(self.n_envs, dtype=bool)
        self.hooks.on_learn_start(reset)
        if not self._crossed.any():
            self._catch_up_with_environment()
        return result

    def _restore_sequence(self, saved: list[dict[str, Any]]) -> None:
        """Put new environments where those of the saved model were; a sequence that was over begins again."""
        assert self.env is not None
        present = self.env.env_method("get_progress", indices=0)[0]
        if any(saved[0][name] != present[name] for name in ("tasks", "cycles")):
            warnings.warn(
                f"The saved model was in the sequence {saved[0]['tasks']} x {saved[0]['cycles']}, the environment is "
                f"{present['tasks']} x {present['cycles']}: it starts at its first phase, as a further phase of the agent",
                stacklevel=2,
            )
        for index in range(self.n_envs):
            progress = saved[min(index, len(saved) - 1)]
            if not progress["sequence_over"]:
                self.env.env_method("set_progress", progress, indices=index)

    def _catch_up_with_environment(self) -> None:
        """The first phase gets its task's name; an environment that was exchanged or begins again is a new phase."""
        assert self.env is not None
        info = self.env.unwrapped.reset_infos[0]
        if "phase" not in info:
            return
        here = (info["phase"], info["task"])
        if self._env_phase is None:
            self._env_phase, self.phase = info["phase"], Phase(self.phase.index, info["task"])
        elif self._phase_over or here != (self._env_phase, self.phase.task):
            if not self._phase_over:
                self._end_phase()
            self._start_phase(info)

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        if self._crossed.any():
            # Parallel environments can be in different phases for a step or two: those steps belong
            # to no phase as a whole and are left out
            self._last_obs = new_obs
            if self._vec_normalize_env is not None:
                self._last_original_obs = self._vec_normalize_env.get_original_obs()
        else:
            super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
            self.phase_steps += self.n_envs
            raw_reward = reward if self._vec_normalize_env is None else self._vec_normalize_env.get_original_reward()
            self.hooks.on_transition(raw_reward, dones, infos)
            if self._is_looking:
                self._follow_look(dones, infos)
        if "boundary" in infos[0]:
            self._follow_boundaries(infos)

    def _follow_boundaries(self, infos: list[dict[str, Any]]) -> None:
        assert self.env is not None
        waiting_before = bool(self._crossed.any())
        self._crossed |= [info["boundary"] for info in infos]
        if self._crossed.all():
            self._crossed[:] = False
            self._end_phase()
            self._sequence_over = infos[0]["sequence_over"]
            if not self._sequence_over:
                self._start_phase(self.env.unwrapped.reset_infos[0])
        elif self._crossed.any() and not waiting_before and self.env.has_attr("next_phase"):
            self.env.env_method("next_phase", indices=np.flatnonzero(~self._crossed).tolist())

    def _end_phase(self) -> None:
        self._phase_over = True
        self.hooks.on_phase_end(self.phase)
        if self.logger.name_to_value:
            self.logger.dump(self.num_timesteps)

    def _start_phase(self, info: dict[str, Any]) -> None:
        """A phase starts: D is emptied, the counters begin anew."""
        self.phase = Phase(self.phase.index + 1, info["task"])
        self._env_phase, self._phase_over, self.phase_steps = info["phase"], False, 0
        assert self.replay_buffer is not None
        if self.clear_replay_buffer:
            self.replay_buffer.reset()
        self._look, self._is_looking = [], self.known_task_threshold is not None
        if not self._is_looking:
            self._end_look(is_known=False)
        self.hooks.on_phase_start(self.phase)

    def _follow_look(self, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """Count the successes of the look, and end it as soon as its outcome is certain."""
        threshold = self.known_task_threshold if self.known_task_threshold is not None else 1.0
        ended = [info for done, info in zip(dones, infos, strict=True) if done]
        self._look += [bool(info.get("is_success", False)) for info in ended]
        needed = math.ceil(threshold * self.look_episodes - 1e-9)  # 0.28 * 25 is a little more than 7
        is_known = sum(self._look) >= needed
        is_new = any("is_success" not in info for info in ended) or self._look.count(False) > self.look_episodes - needed
        if is_known or is_new:
            self._is_looking = False
            self.logger.record("phase/known", float(is_known))
            self._end_look(is_known)

    def _end_look(self, is_known: bool) -> None:
        """
        Warm up: where the policy knows the task, it fills D itself, and goes on from what it can. Otherwise actions are
        random from here on, and what the agent was told to reset is reset.
        """
        warmup = self.learning_starts if self.phase_learning_starts is None else self.phase_learning_starts
        self._is_known = is_known
        self._warmup_end = warmup if is_known else self.phase_steps + warmup
        if not is_known:
            self._reset_for_phase()

    def _reset_for_phase(self) -> None:
        """What else an algorithm resets when a phase starts."""

    def _is_warming_up(self) -> bool:
        """Whether a phase other than the first is too young to learn. (Of the first, SB3 takes care.)"""
        if self.phase.index == 0:
            return False
        assert self.replay_buffer is not None
        batch = min(self.batch_size, self.replay_buffer.buffer_size * self.n_envs)
        has_batch = self.replay_buffer.size() * self.n_envs >= batch
        return self._is_looking or self.phase_steps <= self._warmup_end or not has_batch

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.phase.index > 0:
            is_random = not self._is_looking and not self._is_known and self.phase_steps < self._warmup_end
            learning_starts = self.num_timesteps + 1 if is_random else 0
        return super()._sample_action(learning_starts, action_noise, n_envs)

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> RolloutReturn:
        """Collect experience, see SB3; training stops when the task sequence is over."""
        rollout = super().collect_rollouts(*args, **kwargs)
        return rollout._replace(continue_training=False) if self._sequence_over else rollout


def reset_optimizer(optimizer: th.optim.Optimizer) -> None:
    """
    Forget an optimizer's moments.

    :param optimizer: the optimizer
    """
    optimizer.state.clear()
