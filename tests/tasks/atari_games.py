"""Look into real Atari games, and play them."""

import gymnasium as gym


def wrappers(env: gym.Env) -> list[str]:
    """From the innermost to the outermost."""
    found = []
    while isinstance(env, gym.Wrapper):
        found.append(type(env).__name__)
        env = env.env
    return found[::-1]


def inner(env: gym.Env, name: str) -> gym.Env:
    while type(env).__name__ != name:
        env = env.env  # type: ignore[attr-defined]
    return env


def play(env: gym.Env, n_steps: int, seed: int = 0) -> list[tuple]:
    """Steps of random actions, with a reset after each end."""
    env.action_space.seed(seed)
    steps = []
    for _ in range(n_steps):
        steps.append(env.step(env.action_space.sample()))
        if steps[-1][2] or steps[-1][3]:
            env.reset()
    return steps
