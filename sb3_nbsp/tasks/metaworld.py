"""Cycles of Meta-World tasks."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_nbsp.checks import check_option, whole
from sb3_nbsp.extras import needs
from sb3_nbsp.tasks.names import check_is_list
from sb3_nbsp.tasks.sequence import TaskSequence, sequence_options

if TYPE_CHECKING:
    from metaworld import MT1

# Meta-World publishes other goal bounds for every task, and its resets lie outside its own bounds
OBSERVATION_SPACE = spaces.Box(-np.inf, np.inf, shape=(39,), dtype=np.float32)


class MetaWorldTask(gym.ObservationWrapper):
    """
    One space for all tasks, and resets that can be seeded: Meta-World ignores the seed of ``reset()``.

    :param env: a Meta-World environment
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.observation_space = OBSERVATION_SPACE

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode with one of the task's goals; see Gymnasium."""
        if seed is not None:
            self.env.unwrapped.seed(seed)  # type: ignore[attr-defined]
        return super().reset(options=options)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """
        :param observation: in double precision
        :return: in single precision
        """
        return observation.astype(np.float32)


def full_task_name(name: str) -> str:
    """
    :param name: name of a Meta-World task, with or without its version: "drawer-close" or "drawer-close-v3"
    :return: the name with its version
    :raises ValueError: if there is no such task; the message names the closest one
    """
    with needs("metaworld", "A Meta-World task"):
        from metaworld import ALL_V3_ENVIRONMENTS

    full_name = name if name.endswith("-v3") else f"{name}-v3"
    if full_name not in ALL_V3_ENVIRONMENTS:
        closest = difflib.get_close_matches(full_name, ALL_V3_ENVIRONMENTS, n=1, cutoff=0.0)[0]
        raise ValueError(f"tasks: Meta-World has no task {name!r}; did you mean {closest.removesuffix('-v3')!r}?")
    return full_name


def make_metaworld_task(name: str, horizon: int = 500, goal_seed: int = 0, render_mode: str | None = None) -> gym.Env:
    """
    One Meta-World task as a Gymnasium environment: 50 goals, one of them drawn at every reset, all in the observation.

    :param name: name of the task, e.g. "drawer-close"
    :param horizon: steps of an episode, at most 500
    :param goal_seed: seed of the 50 goals
    :param render_mode: as in Gymnasium
    :return: the environment, whose ``info["success"]`` is 0 or 1
    :raises ValueError: if there is no such task or render mode, or the horizon or the seed is out of its range
    """
    with needs("metaworld", "A Meta-World task"):
        from metaworld.wrappers import RandomTaskSelectWrapper

    name = full_task_name(name)
    horizon, goal_seed = whole("horizon", horizon, 1, 500), whole("goal_seed", goal_seed, 0, 2**32 - 1)
    benchmark = _benchmark(name, goal_seed)
    check_option("render_mode", render_mode, (None, *benchmark.train_classes[name].metadata["render_modes"]))
    # What metaworld.make_mt_envs() makes
    task = benchmark.train_classes[name](render_mode=render_mode)  # type: ignore[arg-type]
    task.seed(goal_seed)
    task.action_space.seed(goal_seed)
    timed: gym.Env = gym.wrappers.RecordEpisodeStatistics(gym.wrappers.TimeLimit(task, horizon))
    return MetaWorldTask(RandomTaskSelectWrapper(timed, benchmark.train_tasks))


@cache
def _benchmark(full_name: str, goal_seed: int) -> MT1:
    """With the task's 50 goals. Meta-World draws them by 50 resets, four fifths of the time that an environment takes."""
    from metaworld import MT1

    return MT1(full_name, seed=goal_seed)


@sequence_options
def metaworld_cycle(
    tasks: Sequence[str] = ("button-press-topdown", "drawer-close"),
    horizon: int = 500,
    goal_seed: int = 0,
    **kwargs: Any,
) -> TaskSequence:
    """
    A cycle of Meta-World tasks.

    :param tasks: names of the tasks of one cycle, in order, e.g. ["window-open", "window-close"]
    :param horizon: steps of an episode, at most 500
    :param goal_seed: seed of each task's 50 goals
    :param kwargs: options of :class:`TaskSequence`: cycles, steps_per_task, mastery_threshold, ...
    :return: the sequence
    :raises ValueError: if a task is unknown or an option is out of its range
    """
    check_is_list(tasks)
    names = [full_task_name(str(task)).removesuffix("-v3") for task in tasks]
    horizon = whole("horizon", horizon, 1, 500)
    makers = {name: partial(make_metaworld_task, name, horizon, goal_seed) for name in names}
    return TaskSequence(makers, names, **{"check_spaces": False, **kwargs})
