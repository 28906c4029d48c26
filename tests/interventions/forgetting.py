"""Two tasks of which the second asks for the opposite of the first: a small agent masters one, then the other."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
import torch as th
from tagged_tasks import TaggedTask, tiny

from sb3_nbsp import ContinualSAC
from sb3_nbsp.tasks import TaskSequence

STEPS = 400


class Mirrored(TaggedTask):
    """The right action is the noise that is seen; with a negative tag, its opposite."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        wanted = self.last[2] * np.sign(self.tag)
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float(1 - (action[0] - wanted) ** 2), terminated, truncated, info


def mirrored_sequence() -> TaskSequence:
    makers = {"red": partial(Mirrored, 1.0), "blue": partial(Mirrored, -1.0)}
    return TaskSequence(makers, ["red", "blue"], cycles=1, steps_per_task=STEPS, mastery_threshold=None)


def error(agent: Any, tag: float) -> float:
    """Mean squared distance of the policy's mean from the right action: 0.37 for an agent that does nothing."""
    noise = np.linspace(-1, 1, 21, dtype=np.float32)
    observations = np.stack([np.full_like(noise, tag), np.full_like(noise, 0.3), noise, np.zeros_like(noise)], axis=1)
    actions = agent.predict(observations, deterministic=True)[0][:, 0]
    return float(np.mean((actions - np.sign(tag) * noise) ** 2))


def after_both_tasks(cls: type, **options: Any) -> tuple[Any, float, float]:
    """The agent, and its errors on the first and the second task."""
    small = {"policy_kwargs": {"net_arch": [32, 32], "activation_fn": th.nn.Tanh}, "batch_size": 64, "learning_starts": 50}
    agent = tiny(cls, mirrored_sequence(), gamma=0.0, ent_coef=0.01, **small, **options)
    agent.learn(STEPS)
    assert error(agent, 1.0) < 0.02, "the first task has been learned"
    agent.learn(STEPS, reset_num_timesteps=False)
    return agent, error(agent, 1.0), error(agent, -1.0)


@cache
def plain_after_both_tasks() -> tuple[float, float]:
    """The errors of an agent without a method."""
    return after_both_tasks(ContinualSAC)[1:]
