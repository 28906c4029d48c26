"""A sequence of tasks as one Gymnasium environment."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial, wraps
from typing import Any, ParamSpec

import cloudpickle  # type: ignore[import-untyped]
import gymnasium as gym
import numpy as np

from sb3_nbsp.checks import check_range, whole
from sb3_nbsp.messages import did_you_mean
from sb3_nbsp.tasks.boundaries import CUT_OFF
from sb3_nbsp.tasks.lives import ends_game
from sb3_nbsp.tasks.makers import MakeEnv, check_makers, for_evaluation, make_registered, make_task
from sb3_nbsp.tasks.names import check_task_names
from sb3_nbsp.tasks.reports import as_number, step_success

# Methods that agents ask an environment for: policies with action masks, and hindsight experience replay
_ACTION_MASKS = "action_masks"
_OF_GOALS = ("compute_reward", "compute_terminated", "compute_truncated")

P = ParamSpec("P")


class TaskSequence(gym.Env):
    """
    Plays one task after another. It moves on at the end of an episode, when the task is mastered or its steps are used up.
    Such a stretch is a phase; the list of tasks, played ``cycles`` times, makes ``len(tasks) * cycles``
    phases. After the last one it stays on the last task.

    An episode ends when its task ends it, or when the sequence is reset: a wrapper around the sequence, such as a time limit,
    may also end an episode. Then only the info of the reset shows that a phase has ended;
    :func:`~sb3_nbsp.tasks.boundaries.ended_phases` handles both cases.

    An episode succeeds if any of its steps does. Once a task has reported a success or a failure, an episode without a
    report is a failure; before that, its success is unknown.

    A game whose episodes are its lives reports ``info["life_lost"]`` when a life ends, but not the game. The phase and its
    success count whole games, not such episodes. The next reset, unless it has a seed, plays on; a second one leaves the game.

    Methods that agents need are forwarded: ``action_masks()`` to the current task and, if observations contain goals,
    ``compute_reward()`` to that of the last step. Either all tasks or none must have them.

    Every ``info`` of a step and of a reset contains:

    - ``task``, ``task_index``: name of the current task and its position among the distinct tasks
    - ``phase``, ``n_phases``: number of the current phase, from 0, and of all phases
    - ``boundary``: True at the last step of a phase; the reset that follows is the first of the next one
    - ``sequence_over``: True at the boundary of the last phase, and from then on
    - ``success`` (steps only): whether the step was a success, if the task reports it
    - ``is_success`` (steps only): whether any step of the episode so far was, if the task has ever reported success
    - ``cut_off``: True where an episode ends only because another of several parallel environments has ended the phase;
      otherwise it is missing

    :param task_makers: for each distinct task, its name (numbers become text) and a function that creates its environment and
        is called with ``render_mode``. If it has a method ``for_evaluation()``, the result of that makes the task where it is
        evaluated: a game whose lives are episodes in training only
    :param tasks: names of the tasks of one cycle, in order; default: all
    :param cycles: how often the list of tasks is played
    :param steps_per_task: a phase ends with the episode in which it reaches this many steps
        (per environment, if several run in parallel)
    :param mastery_threshold: a phase ends when the success rate of the last ``mastery_window`` episodes
        reaches this; None never ends a phase early
    :param mastery_window: number of episodes over which this rate is computed
    :param last_phase_steps: if given, the last phase has this many steps, mastered or not; None: it ends as the others do
    :param rotate: for evaluation: play the next task, as it is evaluated, at every episode, without phases
    :param render_mode: as in Gymnasium
    :param check_spaces: create every task once, to find unequal spaces before training
    :raises ValueError: if an option is out of its range, a task is unknown or the tasks' spaces differ
    :raises TypeError: if a task's environment cannot be made
    """

    def __init__(
        self,
        task_makers: Mapping[str, MakeEnv],
        tasks: Sequence[str] | None = None,
        cycles: int = 2,
        steps_per_task: int = 1_000_000,
        mastery_threshold: float | None = 0.9,
        mastery_window: int = 10,
        last_phase_steps: int | None = None,
        rotate: bool = False,
        render_mode: str | None = None,
        check_spaces: bool = True,
    ) -> None:
        self.metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array", "depth_array"]}
        check_makers(task_makers)
        self.task_makers = {str(name): for_evaluation(make) if rotate else make for name, make in task_makers.items()}
        check_task_names(list(task_makers), tasks)
        self.tasks = [str(task) for task in (task_makers if tasks is None else tasks)]
        self.task_names = list(dict.fromkeys(self.tasks))
        self.cycles = whole("cycles", cycles, 1)
        self.steps_per_task = whole("steps_per_task", steps_per_task, 1)
        if mastery_threshold is not None:
            check_range("mastery_threshold", mastery_threshold, 0, 1, low_open=True)
        self.mastery_threshold = mastery_threshold
        self.mastery_window = whole("mastery_window", mastery_window, 1)
        self.last_phase_steps = None if last_phase_steps is None else whole("last_phase_steps", last_phase_steps, 1)
        self.rotate = rotate
        self.render_mode = render_mode
        self.n_phases = len(self.tasks) * self.cycles
        self._envs: dict[str, gym.Env] = {}
        self._seed: int | None = None
        self._report_success: set[str] = set()  # tasks that have done so
        self._last_played: str | None = None  # task of the last step
        self._plays_on = False  # the next reset does, in the same game: the last step has lost a life
        self._go_to()
        first = self._env()
        self.action_space, self.observation_space = first.action_space, first.observation_space
        self._update_render_fps(first)
        for task in self.task_names if check_spaces else []:
            self._env(task)

    def _go_to(
        self, phase: int = 0, phase_steps: int = 0, sequence_over: bool = False, successes: Iterable[bool] = ()
    ) -> None:
        """Be there at the start of an episode."""
        if self._plays_on:
            self._env().reset()  # that of a lost life, after which the game is left
        self._plays_on = False
        self.phase, self.phase_steps, self.sequence_over = phase, phase_steps, sequence_over
        self._successes = deque(successes, maxlen=self.mastery_window)
        self._episode_success, self._episode_steps = False, 0
        self._move_on, self._asked_to_move_on = False, False

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
            env = make_task(self.task_makers, task, self.render_mode)
            if self._envs:
                self._check_fits(task, env)
            if self._seed is not None:
                env.reset(seed=self._seed + self.task_names.index(task))
            self._envs[task] = env
        return self._envs[task]

    def _check_fits(self, task: str, env: gym.Env) -> None:
        for kind in ("observation", "action"):
            common, own = getattr(self, f"{kind}_space"), getattr(env, f"{kind}_space")
            if common != own:
                raise ValueError(
                    f"tasks must have equal spaces: the {kind} space of {task!r} is {own}, "
                    f"that of {self.tasks[0]!r} is {common}"
                )
        first = next(iter(self._envs.values()))
        for name in (_ACTION_MASKS, *_OF_GOALS):
            if env.has_wrapper_attr(name) != first.has_wrapper_attr(name):
                raise ValueError(f"tasks: of {self.tasks[0]!r} and {task!r} only one has a method {name}(); both need it")

    def _update_render_fps(self, env: gym.Env) -> None:
        # In place, as wrappers may hold the dictionary
        self.metadata.pop("render_fps", None)
        if "render_fps" in env.metadata:
            self.metadata["render_fps"] = env.metadata["render_fps"]

    def __getattr__(self, name: str) -> Any:
        """A method of the current task that agents ask for. Some that have no goals have a ``compute_reward()``, too."""
        handed_through = [] if name.startswith("_") or "observation_space" not in vars(self) else [_ACTION_MASKS]
        if handed_through and "desired_goal" in getattr(self.observation_space, "spaces", ()):
            handed_through += _OF_GOALS
        if name in handed_through:
            # Steps of the task that has just ended may be relabelled until the first step of the next one
            return self._env(self._last_played if name in _OF_GOALS else None).get_wrapper_attr(name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """
        Start an episode, of the next task if the phase has ended; see Gymnasium. An episode that is under way ends here: its
        success counts, and the phase may end with it.
        """
        super().reset(seed=seed)
        plays_on, self._plays_on = self._plays_on and seed is None, False
        if self._episode_steps > 0 and not plays_on:
            self._end_episode()
        if seed is not None:
            self._seed = seed
            for name, env in self._envs.items():
                env.reset(seed=seed + self.task_names.index(name))
        if self._move_on:
            self._next_phase()
        env = self._env()
        self._update_render_fps(env)
        observation, info = env.reset(options=options)
        return observation, {**info, **self._describe(boundary=False)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Play one step of the current task; see Gymnasium."""
        self._last_played = self.task
        observation, reward, terminated, truncated, own_info = self._env().step(action)
        self.phase_steps += 1
        self._episode_steps += 1
        info = dict(own_info)  # the task may keep writing into its own
        success = step_success(own_info)
        if success is not None:
            self._report_success.add(self.task)
            self._episode_success |= success
            if as_number(info.get("success")) is None:
                info["success"] = own_info["is_success"]  # of the step, as is_success becomes the episode's
        info.pop("is_success", None)
        if self.task in self._report_success:
            info["is_success"] = self._episode_success
        self._plays_on = not ends_game(info)
        if self._asked_to_move_on and not (self._plays_on or terminated or truncated):
            truncated, info[CUT_OFF] = True, True
        boundary = self._end_episode() if (terminated or truncated) and not self._plays_on else False
        return observation, float(reward), terminated, truncated, {**info, **self._describe(boundary)}

    def _end_episode(self) -> bool:
        """Whether the phase ends with this episode."""
        success, self._episode_success, self._episode_steps = self._episode_success, False, 0
        asked, self._asked_to_move_on = self._asked_to_move_on, False
        if self.rotate:
            self._move_on = True
            return False
        if not asked:
            self._successes.append(success)
        is_full = len(self._successes) == self.mastery_window
        threshold = self.mastery_threshold
        mastered = threshold is not None and is_full and bool(np.mean(self._successes) >= threshold)
        is_last = self.phase == self.n_phases - 1
        fixed = self.last_phase_steps if is_last else None
        ends = (mastered and fixed is None) or self.phase_steps >= (fixed or self.steps_per_task) or asked
        if not ends or self.sequence_over:
            return False
        self.sequence_over, self._move_on = is_last, not is_last
        return True

    def _next_phase(self) -> None:
        self.phase += 1
        self.phase_steps = 0
        self._successes.clear()
        self._move_on = False

    def _describe(self, boundary: bool) -> dict[str, Any]:
        return {
            "task": self.task,
            "task_index": self.task_names.index(self.task),
            "phase": 0 if self.rotate else self.phase,
            "n_phases": self.n_phases,
            "boundary": boundary,
            "sequence_over": self.sequence_over,
        }

    @property
    def report_success(self) -> list[str]:
        """Names of the tasks that have reported success, of a step or of none."""
        return [task for task in self.task_names if task in self._report_success]

    def expect_success(self, task: str) -> None:
        """
        From now on, an episode without a report is a failure: the task has reported success elsewhere.

        :param task: its name
        """
        self._report_success.add(task)

    def next_phase(self) -> None:
        """Cut the current episode off at its next step and move on: another of several parallel environments has done so."""
        self._asked_to_move_on = True

    def restart(self) -> None:
        """Begin with the first phase again, at the next reset."""
        self._go_to()

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
            "successes": [] if self._move_on else list(self._successes),
            "sequence_over": self.sequence_over,
            "report_success": self.report_success,
        }

    def set_progress(self, progress: dict[str, Any]) -> None:
        """
        Continue where another sequence was, at the start of an episode. Ignored if that was a sequence of other tasks.

        :param progress: what :meth:`get_progress` returned
        """
        if progress["tasks"] == self.tasks and progress["cycles"] == self.cycles:
            self._go_to(**{name: progress[name] for name in ("phase", "phase_steps", "sequence_over", "successes")})
            self._report_success |= set(progress["report_success"])

    def pickled_task_makers(self) -> tuple[bytes, str]:
        """
        ``task_makers`` for another process; functions defined in functions and the like travel, too.

        :return: by cloudpickle, and why it cannot be done, if so: an error would end a process of SB3's ``SubprocVecEnv``
        """
        try:
            return cloudpickle.dumps(self.task_makers), ""
        except Exception as error:
            return b"", f"{type(error).__name__}: {error}"

    def render(self) -> Any:
        """Render the current task; see Gymnasium."""
        return self._env().render()

    def close(self) -> None:
        """Close the environments of all tasks."""
        for env in self._envs.values():
            env.close()
        self._envs.clear()


def sequence_options(make: Callable[P, TaskSequence]) -> Callable[P, TaskSequence]:
    """
    Let a function that hands its other options to :class:`TaskSequence` refuse those that neither has.

    :param make: the function
    :return: the same, which raises TypeError with what was probably meant
    """
    own = [name for name, each in inspect.signature(make).parameters.items() if each.kind is not each.VAR_KEYWORD]
    common = [name for name in inspect.signature(TaskSequence).parameters if name not in ("task_makers", "tasks")]
    known = list(dict.fromkeys([*own, *common]))

    @wraps(make)
    def checked(*args: P.args, **kwargs: P.kwargs) -> TaskSequence:
        for name in kwargs:
            if name not in known:
                raise TypeError(f"There is no option {name!r}{did_you_mean(name, known)} (options: {', '.join(known)})")
        return make(*args, **kwargs)

    return checked


@sequence_options
def gymnasium_cycle(
    env_ids: Sequence[str | tuple[str, dict[str, Any]]], env_kwargs: dict[str, Any] | None = None, **kwargs: Any
) -> TaskSequence:
    """
    A cycle of registered Gymnasium environments.

    :param env_ids: ids of environments with equal spaces, in order, or pairs of an id and arguments of that task alone:
        ``[("Pendulum-v1", {"g": 10.0}), ("Pendulum-v1", {"g": 2.0})]``, whose tasks are "Pendulum-v1 (g=10.0)" and
        "Pendulum-v1 (g=2.0)"
    :param env_kwargs: arguments for each of them
    :param kwargs: options of :class:`TaskSequence`
    :return: the sequence
    :raises ValueError: if an entry is neither, or the spaces differ
    """
    if isinstance(env_ids, str) or not isinstance(env_ids, Collection) or len(env_ids) == 0:
        raise ValueError(f"env_ids must be a list of at least one environment id, not {env_ids!r}")
    makers: dict[str, MakeEnv] = {}
    names = []
    for entry in env_ids:
        env_id, own = _id_and_arguments(entry)
        given = ", ".join(f"{name}={value!r}" for name, value in _in_order(own).items())
        names.append(f"{env_id} ({given})" if own else env_id)
        makers[names[-1]] = partial(make_registered, env_id, {**(env_kwargs or {}), **own})
    return TaskSequence(makers, names, **kwargs)


def _in_order(value: Any) -> Any:
    """Dictionaries by name, as in a YAML file: the same arguments make the same name of a task, in whatever order."""
    if isinstance(value, dict):
        return {name: _in_order(each) for name, each in sorted(value.items(), key=lambda item: str(item[0]))}
    return type(value)(map(_in_order, value)) if type(value) in (list, tuple) else value


def _id_and_arguments(entry: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(entry, str):
        return entry, {}
    match entry:
        case (str(env_id), dict(arguments)) if all(isinstance(name, str) for name in arguments):
            return env_id, arguments
    raise ValueError(f"env_ids: an entry must be an environment id or a pair of an id and a dictionary, not {entry!r}")
