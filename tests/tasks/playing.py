"""Play whole episodes of a sequence."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sb3_nbsp.tasks import TaskSequence

MakeSequence = Callable[..., TaskSequence]
Options = dict[str, Any]
ACTION = np.zeros(1, np.float32)


def play_episode(env: TaskSequence, action: np.ndarray = ACTION) -> list[dict]:
    """One episode, without the reset: the infos of its steps."""
    infos = []
    over = False
    while not over:
        _, _, terminated, truncated, info = env.step(action)
        infos.append(info)
        over = terminated or truncated
    return infos


def play(env: TaskSequence, n_episodes: int) -> list[tuple[str, int, bool]]:
    """Whole episodes: (task, phase, boundary) of the last step of each."""
    said = []
    for _ in range(n_episodes):
        env.reset()
        *before, last = play_episode(env)
        assert not any(info["boundary"] for info in before)
        said.append((last["task"], last["phase"], last["boundary"]))
    return said
