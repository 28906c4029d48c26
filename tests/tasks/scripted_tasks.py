"""Small tasks whose course is known beforehand."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np


class ScriptedTask(gym.Env):
    """
    Observations are (marker of the task, step of the episode, a random number).

    :param marker: first entry of all observations
    :param success: of an episode's number, from 0, and its step, from 1: is the step a success? None reports none
    :param horizon: steps of an episode
    :param terminates: whether the last step is a terminal state or a time limit
    :param size: number of entries of an observation
    :param key: under which name it reports success
    """

    def __init__(
        self,
        marker: float = 0.0,
        success: Callable[[int, int], bool] | None = None,
        horizon: int = 2,
        terminates: bool = False,
        size: int = 3,
        key: str = "success",
        render_mode: str | None = None,
    ) -> None:
        self.marker, self.success, self.horizon, self.terminates, self.key = marker, success, horizon, terminates, key
        self.observation_space = gym.spaces.Box(-1000, 1000, (size,))
        self.action_space = gym.spaces.Box(-1, 1, (1,))
        self.render_mode = render_mode
        self.episode, self.t = -1, 0
        self.closed = False

    def _observation(self) -> np.ndarray:
        observation = np.zeros(self.observation_space.shape, np.float32)
        observation[:3] = self.marker, self.t, self.np_random.random()
        return observation

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        # A reset that no step has followed does not count as an episode
        self.episode += int(self.t > 0 or self.episode < 0)
        self.t = 0
        return self._observation(), {"marker": self.marker}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        info: dict[str, Any] = {"marker": self.marker}
        if self.success is not None:
            info[self.key] = float(self.success(self.episode, self.t))
        over = self.t >= self.horizon
        return self._observation(), float(action[0]), over and self.terminates, over and not self.terminates, info

    def render(self) -> str:
        return f"picture of {self.marker}"

    def close(self) -> None:
        self.closed = True


class SignTask(ScriptedTask):
    """A success is an action with the sign of the random number less 0.5: it depends on the policy and the seed."""

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        self.seen, info = super().reset(**kwargs)
        return self.seen, info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        right = (action[0] > 0) == (self.seen[2] > 0.5)
        self.seen, reward, terminated, truncated, info = super().step(action)
        return self.seen, reward, terminated, truncated, {**info, "success": float(right)}
