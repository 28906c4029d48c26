"""What games have in common: what a whole game has brought, and its normalized score."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import gymnasium as gym

from sb3_nbsp.messages import did_you_mean
from sb3_nbsp.tasks.names import check_is_list

# info["game"] of the last step: return and length of the whole game; info["score"]: its normalized score
GAME, SCORE = "game", "score"

# What an id has beside the game's name: ALE/Pong-v5, PongNoFrameskip-v4, MinAtar/Breakout-v1
_OF_IDS = r"^\w+/|(NoFrameskip|Deterministic)?-v\d+$"


def normalized_score(game_return: float, random: float, reference: float) -> float:
    """
    The score of a game (NBSP, equation 12): 0 for random play, 1 for the reference.

    .. math:: R = (r_{agent} - r_{random}) / (r_{reference} - r_{random})

    :param game_return: return of a whole game, of raw rewards
    :param random: mean return of random play
    :param reference: mean return of a human, or of a trained agent
    :return: the score
    """
    return (game_return - random) / (reference - random)


def check_games(games: Sequence[str], known: Sequence[str], collection: str) -> list[str]:
    """
    :param games: names of games, in order
    :param known: all names
    :param collection: what has them
    :return: the names as a list
    :raises ValueError: if it is no list of such names
    """
    check_is_list(games)
    for game in games:
        if game not in known:
            hint = did_you_mean(re.sub(_OF_IDS, "", str(game)), known) or "."
            raise ValueError(f"tasks: {collection} has no game {game!r}{hint} Games: {', '.join(known)}")
    return list(games)


class GameReports(gym.Wrapper):
    """
    Says what the actions mean, in the info of every reset (``action_meanings``), and the normalized score of a whole game, in
    that of its last step (``score``), if the game has constants.

    :param env: a game whose last info has ``game``, as ``RecordEpisodeStatistics(stats_key="game")`` writes it
    :param action_meanings: a name for every action
    :param constants: returns of random play and of the reference; None if there are none
    """

    def __init__(self, env: gym.Env, action_meanings: Sequence[str], constants: tuple[float, float] | None) -> None:
        super().__init__(env)
        self.action_meanings = list(action_meanings)
        self._constants = constants

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, see Gymnasium."""
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, {**info, "action_meanings": self.action_meanings}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Play one step, see Gymnasium."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if GAME in info and self._constants is not None:
            info = {**info, SCORE: normalized_score(float(info[GAME]["r"]), *self._constants)}
        return observation, reward, terminated, truncated, info
