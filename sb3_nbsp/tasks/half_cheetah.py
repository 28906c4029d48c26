"""HalfCheetah, asked to run forwards or backwards: two tasks of which solving one is failing the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_nbsp.checks import check_range, whole
from sb3_nbsp.extras import needs
from sb3_nbsp.tasks.sequence import TaskSequence, sequence_options

DIRECTIONS = {"forwards": 1.0, "backwards": -1.0}


class RunInDirection(gym.Wrapper):
    """
    The direction that is asked for is the last entry of the observation, so that one policy can know both tasks. The reward is
    the environment's own; a step is a success from where the cheetah is so far in that direction.

    :param env: HalfCheetah, with ``forward_reward_weight`` of the direction's sign
    :param direction: 1 for forwards, -1 for backwards
    :param distance: metres from the start of the episode
    """

    def __init__(self, env: gym.Env, direction: float, distance: float) -> None:
        super().__init__(env)
        self.direction, self.distance = direction, distance
        own = env.observation_space
        assert isinstance(own, spaces.Box)
        self.observation_space = spaces.Box(np.append(own.low, -1.0), np.append(own.high, 1.0), dtype=np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; see Gymnasium."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._start = info["x_position"]
        return np.append(observation, self.direction), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Play a step; see Gymnasium."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        success = self.direction * (info["x_position"] - self._start) >= self.distance
        return np.append(observation, self.direction), reward, terminated, truncated, {**info, "success": float(success)}


def _make(direction: str, horizon: int, distance: float, render_mode: str | None = None) -> gym.Env:
    sign = DIRECTIONS[direction]
    with needs("mujoco", "HalfCheetah-v5"):
        env = gym.make("HalfCheetah-v5", max_episode_steps=horizon, forward_reward_weight=sign, render_mode=render_mode)
    return RunInDirection(env, sign, distance)


@sequence_options
def half_cheetah_directions(
    tasks: Sequence[str] = ("forwards", "backwards"),
    horizon: int = 200,
    distance: float = 10.0,
    steps_per_task: int = 40_000,
    mastery_threshold: float | None = None,
    **kwargs: Any,
) -> TaskSequence:
    """
    Run forwards, then backwards. A policy that knows only one task runs the wrong way on the other, so that success on a task
    measures memory and nothing else; and as the observation tells the direction, one policy can know both.

    :param tasks: "forwards" and "backwards", in order
    :param horizon: steps of an episode, of 0.05 seconds each
    :param distance: metres in the asked direction that are a success; with the default horizon, a mean speed of 1 m/s
    :param steps_per_task: see :class:`TaskSequence`
    :param mastery_threshold: see :class:`TaskSequence`; None: every phase has all of its steps
    :param kwargs: options of :class:`TaskSequence`
    :return: the sequence
    :raises ValueError: if an option is out of its range
    """
    horizon = whole("horizon", horizon, 1)
    check_range("distance", distance, 0, np.inf, low_open=True)
    makers = {name: partial(_make, name, horizon, distance) for name in DIRECTIONS}
    return TaskSequence(makers, tasks, steps_per_task=steps_per_task, mastery_threshold=mastery_threshold, **kwargs)
