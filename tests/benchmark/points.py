"""Two small tasks, registered with Gymnasium: a point that is to reach one side of a square."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

IDS = ["PointLeft-v0", "PointRight-v0"]


class Point(gym.Env):
    """Starts at a random place and moves by its action. Episodes of 25 steps."""

    observation_space = spaces.Box(-2.0, 2.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, side: float, render_mode: str | None = None) -> None:
        self.side, self.render_mode = side, render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.t, self.place = 0, self.np_random.uniform(-1, 1, 2)
        return self.place.astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        self.place = np.clip(self.place + 0.2 * action, -2, 2)
        distance = abs(self.place[0] - self.side)
        return self.place.astype(np.float32), -float(distance), False, self.t == 25, {"success": float(distance < 0.5)}


for env_id, side in zip(IDS, (-1.0, 1.0), strict=True):
    if env_id not in gym.registry:
        gym.register(env_id, entry_point=Point, kwargs={"side": side})
