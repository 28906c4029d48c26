"""An environment in which nothing is random."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Clockwork(gym.Env):
    """Nothing in it is random: its observations count the steps and repeat the action. Episodes of ten steps."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Box(-2.0, 2.0, (2,), np.float32)

    def __init__(self, tag: float = 1.0, render_mode: str | None = None) -> None:
        self.tag, self.render_mode = tag, render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return np.array([self.tag, 0.0, 0.0], dtype=np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        observation = np.array([self.tag, self.t / 10, action[0]], dtype=np.float32)
        success = float(action[1] > self.tag - 1.5)
        return observation, float(success - action[0] ** 2), False, self.t == 10, {"success": success}


class DiscreteClockwork(Clockwork):
    """The same with four actions."""

    action_space = spaces.Discrete(4)  # type: ignore[assignment]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """See :class:`Clockwork`."""
        return super().step(np.array([action // 2 - 0.5, 2 * (action % 2) - 1]))
