"""Which steps skill neurons are identified on, and what q(t) is for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_nbsp.batches import apply, take
from sb3_nbsp.interventions.base import Phase
from sb3_nbsp.interventions.goal_window import GoalWindow
from sb3_nbsp.interventions.own_seeds import own_seed
from sb3_nbsp.interventions.rollout import fresh_steps, has_own_spaces
from sb3_nbsp.interventions.scoring import looks_at_steps
from sb3_nbsp.messages import warn
from sb3_nbsp.tasks.recognize import has_phases
from sb3_nbsp.tasks.task_envs import task_makers

if TYPE_CHECKING:
    from sb3_nbsp.interventions.gradient_masking import GradientMasking

# The scores that compare what a neuron does with q(t)
GOAL_ORIENTED = ("goal", "balanced")
# With fewer of the steps that were asked for, there is a warning
ENOUGH_STEPS = 0.5


class IdentificationSteps:
    """
    Watches the steps of a phase, or lets the policy act afresh at its end.

    :param options: what the user asked for; it is attached to its agent
    :param n_envs: number of parallel environments
    """

    def __init__(self, options: GradientMasking, n_envs: int) -> None:
        self._options = options
        self.window = self._new_window(n_envs)
        self._warned: set[str] = set()
        self._task_makers: dict[str, Callable[[], gym.Env]] = {}

    def on_learn_start(self, reset: bool) -> None:
        """
        :param reset: whether the environments were reset
        :raises ValueError: if fresh steps are asked for and the environment's tasks cannot be made anew
        """
        if reset:
            self.window.break_episodes()
        env = self._options.agent.env
        assert env is not None
        self.window.of_sequence = has_phases(env)
        if self._options.identification_data != "training" and self.window.of_sequence:
            try:
                # A phase also ends when the environment is exchanged for one that may lack its task
                self._task_makers.update(task_makers(env))
            except ValueError as error:
                if self._options.identification_data == "fresh":
                    raise ValueError(f"{error}. For these, there is identification_data='training'") from error

    def add(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """Note a transition of every environment, see :meth:`Intervention.on_transition`."""
        if self._options.identification_data != "fresh":
            self.window.add(rewards, dones, infos)

    def take(self, phase: Phase, n_networks: int) -> tuple[PyTorchObs, th.Tensor, np.ndarray] | None:
        """
        :param phase: the phase that has ended
        :param n_networks: number of networks that draw random numbers of their own
        :return: observations, actions and q(t) of the steps to identify on, with T rows each; None, with a warning, if there
            are none to tell
        """
        window, buffer = self.window, self._options.agent.replay_buffer
        assert buffer is not None
        if not looks_at_steps(self._options):
            rows = envs = np.zeros(0, dtype=int)
            return (*self._batch(buffer, rows, envs), np.zeros(0))
        if self._wants_fresh_steps(phase):
            if phase.task not in self._task_makers:
                self._skip(phase, f"the environment's task_makers lack the task {phase.task!r}, which has just ended")
                return None
            window, buffer = self._fresh_steps(phase, n_networks)
        rows, envs, goal_metric = self._goal_metric(window, buffer)
        if len(rows) == 0:
            self._skip(phase, "there is no complete episode to identify them on; raise identification_steps")
            return None
        if self._options.identification in GOAL_ORIENTED and _is_constant(goal_metric):
            self._skip(phase, "the goal metric is the same at all steps, and so is the return of the episodes")
            return None
        self._check_number(len(rows))
        return (*self._batch(buffer, rows, envs), goal_metric)

    def _check_number(self, n_steps: int) -> None:
        self._options.agent.logger.record("nbsp/identification_steps", n_steps)
        if n_steps < ENOUGH_STEPS * self._options.identification_steps and "steps" not in self._warned:
            self._warned.add("steps")
            warn(
                f"Skill neurons are identified on {n_steps} steps instead of identification_steps="
                f"{self._options.identification_steps}: the phase had no more, or the replay buffer kept no more, or the "
                f"goal metric ({self._metric_name}) of the others is not known. Train for longer phases, raise buffer_size, "
                "give another goal_metric, or lower identification_steps. Later phases only record nbsp/identification_steps"
            )

    def _wants_fresh_steps(self, phase: Phase) -> bool:
        if self._options.identification_data != "auto":
            return self._options.identification_data == "fresh"
        return phase.task in self._task_makers and has_own_spaces(self._options.agent, self._task_makers[phase.task])

    def _skip(self, phase: Phase, reason: str) -> None:
        warn(f"No skill neurons are identified at the end of phase {phase.index + 1} ({phase.task}): {reason}")

    def _fresh_steps(self, phase: Phase, n_networks: int) -> tuple[GoalWindow, ReplayBuffer]:
        window = self._new_window(1)
        seed = own_seed(self._options.agent, phase, n_networks)
        bar = getattr(self._options.agent, "show_progress", False)
        if self._options.agent.verbose >= 1 and not bar:
            print(f"Skill neurons of {phase.task} are identified on {self._options.identification_steps} fresh steps")
        steps = fresh_steps(
            self._options.agent, self._task_makers[phase.task], self._options.identification_steps, seed, window, bar
        )
        return window, steps

    def _goal_metric(self, window: GoalWindow, buffer: ReplayBuffer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Steps with a known goal metric: rows and columns of the buffer's arrays, and q(t)."""
        name = "custom" if callable(self._options.goal_metric) else str(self._options.goal_metric)
        self._metric_name = name = window.best_known(buffer) if name == "auto" else name
        rows, envs, goal_metric = window.select(name, buffer)
        is_constant = _is_constant(goal_metric)
        self._options.agent.logger.record("nbsp/goal_metric_is_constant", int(is_constant))
        if self._options.identification not in GOAL_ORIENTED and len(rows) == 0:
            return window.select("any", buffer)
        if is_constant and name != "episode_return" and self._options.identification in GOAL_ORIENTED:
            fallback = window.select("episode_return", buffer)
            if "constant" not in self._warned and not _is_constant(fallback[2]):
                self._warned.add("constant")
                warn(
                    f"The goal metric ({name}) is the same at all steps of the window and cannot tell neurons apart: "
                    "the episode return takes its place. Later windows are recorded as nbsp/goal_metric_is_constant only"
                )
            self._metric_name = "episode_return"
            return fallback
        return rows, envs, goal_metric

    def _batch(self, buffer: ReplayBuffer, rows: np.ndarray, envs: np.ndarray) -> tuple[PyTorchObs, th.Tensor]:
        """Observations (normalized as in training) and actions of the steps."""
        normalizer = self._options.agent.get_vec_normalize_env()
        observations = buffer._normalize_obs(take(buffer.observations, (rows, envs)), normalizer)
        # Indexing has copied them
        seen: PyTorchObs = apply(lambda part: buffer.to_torch(part, copy=False), observations)
        return seen, buffer.to_torch(buffer.actions[rows, envs])

    def _new_window(self, n_envs: int) -> GoalWindow:
        custom: Callable[..., float] | None = self._options.goal_metric if callable(self._options.goal_metric) else None
        return GoalWindow(self._options.identification_steps, n_envs, custom)


def _is_constant(goal_metric: np.ndarray) -> bool:
    return len(goal_metric) == 0 or bool((goal_metric == goal_metric[0]).all())
