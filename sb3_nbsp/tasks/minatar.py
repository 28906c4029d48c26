"""MinAtar games as tasks of equal spaces, and sequences of them: a size that a laptop gets through."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit

from sb3_nbsp.checks import check_option, check_range, whole
from sb3_nbsp.extras import needs
from sb3_nbsp.tasks.games import GAME, GameReports, check_games
from sb3_nbsp.tasks.sequence import TaskSequence, sequence_options

# By game: MinAtar's name of it, and the steps after which MinAtar itself ends it
GAMES: dict[str, tuple[str, int | None]] = {
    "Asterix": ("asterix", None),
    "Breakout": ("breakout", None),
    "Freeway": ("freeway", 2_500),
    "Seaquest": ("seaquest", None),
    "SpaceInvaders": ("space_invaders", None),
}
ACTIONS = ["NOOP", "LEFT", "UP", "RIGHT", "DOWN", "FIRE"]
# Of Seaquest, the game with most; the planes that another game lacks are empty
N_CHANNELS = 10
# Edge of one of the 10 × 10 fields in a picture, in pixels, and MinAtar's own pace of showing them
FIELD, FRAMES_PER_SECOND = 32, 20

# Mean return of games with MinAtar's own settings and at most 5000 steps, by tools/minatar_scores.py. Of random play over
# 1000 games (Freeway: 100): standard errors 0.03, 0.02, 0.04, 0.01, 0.07
RANDOM = {"Asterix": 0.485, "Breakout": 0.506, "Freeway": 0.12, "Seaquest": 0.094, "SpaceInvaders": 2.677}
# Of SB3's DQN after 300 000 steps on a game alone, one seed, over 100 games: standard errors 0.5, 0.8, 2.4. A game that is not
# here has no score, and is evaluated in raw returns: in Asterix (0.75) and Seaquest (0.39), DQN has hardly learned by then
TRAINED = {"Breakout": 10.13, "Freeway": 27.21, "SpaceInvaders": 38.42}


class MinAtarObservations(gym.ObservationWrapper):
    """
    Observations as bytes of 0 and 1, channels first, padded to shape (10, 10, 10). A time limit of MinAtar's own, which it
    calls a termination, becomes a truncation; the sticky action of one game does not reach into the next one; and pictures
    are of bytes and large enough to be seen.

    :param env: MinAtar's own environment
    :param time_limit: steps after which the game itself ends; None if it does not
    """

    def __init__(self, env: gym.Env, time_limit: int | None) -> None:
        super().__init__(env)
        self.observation_space = spaces.Box(0, 1, (N_CHANNELS, 10, 10), np.uint8)
        self.metadata = {**env.metadata, "render_fps": FRAMES_PER_SECOND}
        self._time_limit, self._steps = time_limit, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start a game, see Gymnasium."""
        self._steps = 0
        self.env.unwrapped.game.last_action = 0  # type: ignore[attr-defined]
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Play one step, see Gymnasium."""
        observation, reward, terminated, truncated, info = super().step(int(action))
        self._steps += 1
        if terminated and self._time_limit is not None and self._steps > self._time_limit:
            terminated, truncated = False, True
        return observation, reward, bool(terminated), truncated, info

    def render(self) -> Any:
        """A picture of bytes, shape (320, 320, 3), where the render mode asks for one; see Gymnasium."""
        fields = self.env.render()
        if self.render_mode != "rgb_array":
            return fields
        # MinAtar's own has 10 × 10 pixels with colours from 0 to 1
        return np.kron((255 * np.asarray(fields)).astype(np.uint8), np.ones((FIELD, FIELD, 1), np.uint8))

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """
        :param observation: booleans, shape (10, 10, channels)
        :return: shape (10, 10, 10), channels first
        """
        padded = np.zeros((N_CHANNELS, 10, 10), np.uint8)
        padded[: observation.shape[2]] = observation.transpose(2, 0, 1)
        return padded


def make_minatar_task(
    game: str,
    sticky_actions: float = 0.1,
    difficulty_ramping: bool = True,
    max_steps: int = 5_000,
    render_mode: str | None = None,
) -> gym.Env:
    """
    A MinAtar game: observations of bytes, shape (10, 10, 10), channels first, and six actions that mean the same in all games.

    :param game: its name, such as "SpaceInvaders"
    :param sticky_actions: probability that a step repeats the action of the step before
    :param difficulty_ramping: whether games become harder with time
    :param max_steps: a game is cut off after so many steps; a good player's would never end
    :param render_mode: None or "rgb_array"
    :return: the environment
    :raises ModuleNotFoundError: if MinAtar is missing
    :raises ValueError: if there is no such game, or an option is out of its range
    """
    check_games([game], list(GAMES), "MinAtar")
    check_range("sticky_actions", sticky_actions, 0, 1)
    check_option("difficulty_ramping", difficulty_ramping, (True, False))
    with needs("minatar", "A MinAtar game"):
        from minatar.gym import BaseEnv
    name, time_limit = GAMES[game]
    own = {"sticky_action_prob": sticky_actions, "difficulty_ramping": difficulty_ramping}
    env: gym.Env = MinAtarObservations(BaseEnv(name, render_mode=render_mode, **own), time_limit)
    env = RecordEpisodeStatistics(TimeLimit(env, whole("max_steps", max_steps, 1)), stats_key=GAME)
    constants = (RANDOM[game], TRAINED[game]) if game in TRAINED else None
    return GameReports(env, ACTIONS, constants)


@sequence_options
def minatar_cycle(
    tasks: Sequence[str] = ("Breakout", "SpaceInvaders"),
    sticky_actions: float = 0.1,
    difficulty_ramping: bool = True,
    max_steps: int = 5_000,
    steps_per_task: int = 300_000,
    mastery_threshold: float | None = None,
    **kwargs: Any,
) -> TaskSequence:
    """
    A cycle of MinAtar games.

    :param tasks: names of the games of one cycle, in order
    :param sticky_actions: see :func:`make_minatar_task`
    :param difficulty_ramping: see :func:`make_minatar_task`
    :param max_steps: see :func:`make_minatar_task`
    :param steps_per_task: steps of a phase
    :param mastery_threshold: see :class:`TaskSequence`; games report no success
    :param kwargs: other options of :class:`TaskSequence`
    :return: the sequence
    :raises ValueError: if a game is unknown or an option is out of its range
    """
    games = check_games(tasks, list(GAMES), "MinAtar")
    makers = {game: partial(make_minatar_task, game, sticky_actions, difficulty_ramping, max_steps) for game in games}
    return TaskSequence(makers, games, steps_per_task=steps_per_task, mastery_threshold=mastery_threshold, **kwargs)
