"""A sequence of tasks as one Gymnasium environment."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

MakeEnv = Callable[..., gym.Env]


class TaskSequence(gym.Env):
    """
    Plays one task after another. It moves on when an episode ends and the task is mastered or its steps are used up.
    One such stretch is a phase; the list of tasks, played ``cycles`` times, makes ``len(tasks) * cycles``
    phases. After the last one it stays on the last task.

    Every ``info`` of a step and of a reset says:

    - ``task``, ``task_index``: name of the current task and its position among the distinct tasks
    - ``phase``, ``n_phases``: number of the current phase, from 0, and of all phases
    - ``boundary``: True at the last step of a phase; the reset that follows is the first of the next one
    - ``sequence_over``: True at the boundary of the last phase, and from then on
    - ``success``, ``is_success``: whether the step was a success, and whether any of the episode so far was, if the
      task reports success

    :param task_makers: name of each distinct task and what makes its environment (called with ``render_mode``)
    :param tasks: names of the tasks of one cycle, in order; default: all
    :param cycles: how often the list is played
    :param steps_per_task: a phase ends with the episode in which it reaches this many steps
        (per environment, if several run in parallel)
    :param mastery_threshold: a phase ends when the success rate of the last ``mastery_window`` episodes
        reaches this; None never ends a phase early
    :param mastery_window: number of episodes that mastery is judged on
    :param rotate: for evaluation: play the next task at every episode, without phases
    :param render_mode: as in Gymnasium
    :param check_spaces: make every task once, to find unequal spaces before training
    :raises ValueError: if an option is out of its range, a task is unknown or the tasks' spaces differ
    """

    def __init__(
        self,
        task_makers: Mapping[str, MakeEnv],
        tasks: Sequence[str] | None = None,
        cycles: int = 2,
        steps_per_task: int = 1_000_000,
        mastery_threshold: float | None = 0.9,
        mastery_window: int = 10,
        rotate: bool = False,
        render_mode: str | None = None,
        check_spaces: bool = True,
    ) -> None:
        self.metadata = {"render_modes": ["human", "rgb_array", "depth_array"]}
        self.task_makers = dict(task_makers)
        self.tasks = list(self.task_makers if tasks is None else tasks)
        self._check(cycles, steps_per_task, mastery_threshold, mastery_window)
        self.task_names = list(dict.fromkeys(self.tasks))
        self.cycles = cycles
        self.steps_per_task = steps_per_task
        self.mastery_threshold = mastery_threshold
        self.mastery_window = mastery_window
        self.rotate = rotate
        self.render_mode = render_mode
        self.n_phases = len(self.tasks) * cycles
        self._envs: dict[str, gym.Env] = {}
        self._seed: int | None = None
        self.phase, self.phase_steps, self.sequence_over = 0, 0, False
        self._successes: deque[bool] = deque(maxlen=mastery_window)
        self._episode_success: bool | None = None
        self._move_on, self._asked_to_move_on = False, False
        first = self._env()
        self.action_space, self.observation_space = first.action_space, first.observation_space
        for task in self.task_names if check_spaces else []:
            self._env(task)

    def _check(self, cycles: int, steps: int, threshold: float | None, window: int) -> None:
        if not self.tasks:
            raise ValueError("tasks must name at least one task")
        unknown = [task for task in self.tasks if task not in self.task_makers]
        if unknown:
            raise ValueError(f"tasks: {unknown} are not among {list(self.task_makers)}")
        for name, value in (("cycles", cycles), ("steps_per_task", steps), ("mastery_window", window)):
            if not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        if threshold is not None and not 0 < threshold <= 1:
            raise ValueError(f"mastery_threshold must be in (0, 1] or None, not {threshold!r}")

    @property
    def sb3_nbsp_phases(self) -> bool:
        """What agents and callbacks know a task sequence by (:func:`~sb3_nbsp.tasks.recognize.has_phases`)."""
        return not self.rotate

    @property
    def task(self) -> str:
        """Name of the current task."""
        return self.tasks[self.phase % len(self.tasks)]

    def _env(self, task: str | None = None) -> gym.Env:
        """A task's environment (default: the current task's), made when it is first needed."""
        task = self.task if task is None else task
        if task not in self._envs:
            env = self.task_makers[task](render_mode=self.render_mode)
            if self._envs:
                self._check_spaces(task, env)
            if self._seed is not None:
                env.reset(seed=self._seed + self.task_names.index(task))
            self._envs[task] = env
        return self._envs[task]

    def _check_spaces(self, task: str, env: gym.Env) -> None:
        for kind in ("observation", "action"):
            common, own = getattr(self, f"{kind}_space"), getattr(env, f"{kind}_space")
            if common != own:
                raise ValueError(
                    f"tasks must have equal spaces: the {kind} space of {task!r} is {own}, "
                    f"that of {self.tasks[0]!r} is {common}"
                )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, of the next task if the phase has ended; see Gymnasium."""
        super().reset(seed=seed)
        if seed is not None:
            self._seed = seed
            for name, env in self._envs.items():
                env.reset(seed=seed + self.task_names.index(name))
        if self._move_on:
            self._next_phase()
        self._episode_success = None
        observation, info = self._env().reset(options=options)
        return observation, {**info, **self._describe(boundary=False)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Play one step of the current task; see Gymnasium."""
        observation, reward, terminated, truncated, info = self._env().step(action)
        self.phase_steps += 1
        success = info.get("success", info.get("is_success"))
        if success is not None:
            self._episode_success = bool(success) or bool(self._episode_success)
            info.setdefault("success", success)  # of the step, when is_success becomes the episode's
        truncated = truncated or self._asked_to_move_on
        boundary = False
        if terminated or truncated:
            boundary = self._end_episode()
        return observation, float(reward), terminated, truncated, {**info, **self._describe(boundary)}

    def _end_episode(self) -> bool:
        """Whether the phase ends with this episode."""
        asked, self._asked_to_move_on = self._asked_to_move_on, False
        if self.rotate:
            self._move_on = True
            return False
        if self._episode_success is not None and not asked:
            self._successes.append(self._episode_success)
        is_full = len(self._successes) == self.mastery_window
        mastered = self.mastery_threshold is not None and is_full and np.mean(self._successes) >= self.mastery_threshold
        ends = mastered or self.phase_steps >= self.steps_per_task or asked
        if not ends or self.sequence_over:
            return False
        if self.phase == self.n_phases - 1:
            self.sequence_over = True
        else:
            self._move_on = True
        return True

    def _next_phase(self) -> None:
        self.phase += 1
        self.phase_steps = 0
        self._successes.clear()
        self._move_on = False

    def _describe(self, boundary: bool) -> dict[str, Any]:
        described: dict[str, Any] = {
            "task": self.task,
            "task_index": self.task_names.index(self.task),
            "phase": 0 if self.rotate else self.phase,
            "n_phases": self.n_phases,
            "boundary": boundary,
            "sequence_over": self.sequence_over,
        }
        if self._episode_success is not None:
            described["is_success"] = self._episode_success
        return described

    def next_phase(self) -> None:
        """Cut the current episode off at its next step and move on: another of several parallel environments has done so."""
        self._asked_to_move_on = True

    def restart(self) -> None:
        """Begin with the first phase again, at the next reset."""
        self.phase, self.phase_steps, self.sequence_over = 0, 0, False
        self._successes.clear()
        self._move_on, self._asked_to_move_on = False, False

    def get_progress(self) -> dict[str, Any]:
        """
        How far the sequence is, to be given to :meth:`set_progress` of a new one.

        :return: numbers, strings and lists only
        """
        return {
            "tasks": self.tasks,
            "cycles": self.cycles,
            "phase": self.phase + int(self._move_on),
            "phase_steps": 0 if self._move_on else self.phase_steps,
            "successes": [] if self._move_on else [bool(success) for success in self._successes],
            "sequence_over": self.sequence_over,
        }

    def set_progress(self, progress: dict[str, Any]) -> None:
        """
        Continue where another sequence was, at the start of an episode. Ignored if that was a sequence of other tasks.

        :param progress: what :meth:`get_progress` returned
        """
        if progress["tasks"] != self.tasks or progress["cycles"] != self.cycles:
            return
        self.phase, self.phase_steps = progress["phase"], progress["phase_steps"]
        self.sequence_over = progress["sequence_over"]
        self._successes = deque(progress["successes"], maxlen=self.mastery_window)
        self._move_on, self._asked_to_move_on = False, False

    def render(self) -> Any:
        """Render the current task; see Gymnasium."""
        return self._env().render()

    def close(self) -> None:
        """Close the environments of all tasks."""
        for env in self._envs.values():
            env.close()
        self._envs.clear()


def gymnasium_cycle(env_ids: Sequence[str], env_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> TaskSequence:
    """
    A cycle of registered Gymnasium environments.

    :param env_ids: ids of environments with equal spaces, in order
    :param env_kwargs: arguments for each of them
    :param kwargs: options of :class:`TaskSequence`
    :return: the sequence
    :raises ValueError: if the spaces differ
    """
    if isinstance(env_ids, str) or not env_ids:
        raise ValueError(f"env_ids must be a list of at least one environment id, not {env_ids!r}")
    makers = {env_id: partial(gym.make, env_id, **(env_kwargs or {})) for env_id in env_ids}
    return TaskSequence(makers, list(env_ids), **kwargs)
