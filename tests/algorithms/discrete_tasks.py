"""Real games and poles, for agents with discrete actions."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

from sb3_nbsp.tasks import TaskSequence

TINY: dict[str, Any] = {
    "policy": "MlpPolicy",
    "policy_kwargs": {"net_arch": [8, 8]},
    "buffer_size": 200,
    "learning_starts": 20,
    "batch_size": 16,
    "learning_rate": 3e-3,
    "seed": 0,
    "device": "cpu",
}


def tiny(cls: Any, env: Any = "CartPole-v1", **kwargs: Any) -> Any:
    """An agent with small networks."""
    return cls(env=env, **{**copy.deepcopy(TINY), **kwargs})


class ToTheRight(gym.Wrapper):
    """Reports a success wherever the pole leans to the right."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, {**info, "success": float(observation[2] > 0)}


def pole(horizon: int = 500, render_mode: str | None = None) -> gym.Env:
    """CartPole with a time limit."""
    return ToTheRight(gym.make("CartPole-v1", max_episode_steps=horizon, render_mode=render_mode))


def poles(steps_per_task: int = 60, cycles: int = 2) -> TaskSequence:
    """Two tasks, which differ in their time limits."""
    makers = {"short": partial(pole, 40), "long": partial(pole, 80)}
    return TaskSequence(makers, cycles=cycles, steps_per_task=steps_per_task, mastery_threshold=None)


def game(name: str, render_mode: str | None = None) -> gym.Env:
    """A game of the Arcade Learning Environment in four small grey frames, the channels first."""
    import ale_py

    gym.register_envs(ale_py)
    env = gym.make(f"{name}NoFrameskip-v4", render_mode=render_mode, max_episode_steps=12)
    return FrameStackObservation(AtariPreprocessing(env, screen_size=36, noop_max=0), 4)


def games(steps_per_task: int = 40) -> TaskSequence:
    """The paper's pair whose games have six actions each."""
    makers = {name: partial(game, name) for name in ("Pong", "Bowling")}
    return TaskSequence(makers, cycles=1, steps_per_task=steps_per_task, mastery_threshold=None)
