"""What games have in common: what a whole game has brought, its normalized score, and lives."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym

from sb3_nbsp.messages import did_you_mean
from sb3_nbsp.tasks.names import check_is_list

# info["game"] of the last step: return and length of the whole game; info["score"]: its normalized score
GAME, SCORE, LIFE_LOST = "game", "score", "life_lost"

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


class Lives(gym.Wrapper):
    """
    What follows a lost life is played in the step that loses it: a no-op, and FIRE in games that stand still without it.

    In training a lost life ends the episode, but not the game: ``info["life_lost"]`` says so, and the reset that follows plays
    on. Any other reset begins a new game, as does one with a seed; SB3's ``EpisodicLifeEnv`` plays on whenever the game is not
    over. If the game ends in what follows the life, it ends with that step, whose info has what the game's last one says: in
    a reset, nobody would see that end.

    In evaluation the episode goes on, with the same game as in training.

    :param env: an Atari game
    :param after_life_lost: the actions that follow a lost life
    :param end_episode: whether it ends the episode
    """

    def __init__(self, env: gym.Env, after_life_lost: Sequence[int], end_episode: bool) -> None:
        super().__init__(env)
        self.after_life_lost, self.end_episode = tuple(after_life_lost), end_episode
        self._lives = 0
        self._next_start: tuple[Any, dict[str, Any]] | None = None  # what the reset after a lost life returns

    def step(self, action: int) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Play one step, see Gymnasium."""
        self._next_start = None
        observation, reward, terminated, truncated, info = self.env.step(action)
        life_lost = self._lost_a_life()
        if life_lost and not (terminated or truncated):
            observation, reward, terminated, truncated, info = self._play_on(observation, reward, info)
        if self.end_episode:
            # Also where the frame limit is reached with the same step: an agent must not bootstrap there
            terminated |= life_lost
            info = {**info, LIFE_LOST: self._next_start is not None}
        return observation, reward, terminated, truncated, info

    def _play_on(self, observation: Any, reward: Any, info: dict[str, Any]) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """
        Play what follows a lost life.

        :return: the step that has lost it, with the end of the game if it ends; without end_episode, also with what followed
        """
        after, rewards = observation, reward
        for action in self.after_life_lost:
            after, more, terminated, truncated, last_info = self.env.step(action)
            rewards += more
            if terminated or truncated:
                break
        self._lives = self._lives_left()
        if not self.end_episode:
            return after, rewards, terminated, truncated, {**info, **last_info}
        if terminated or truncated:
            return observation, reward, True, False, {**info, **last_info}
        self._next_start = after, last_info
        return observation, reward, True, False, info

    def _lost_a_life(self) -> bool:
        before, self._lives = self._lives, self._lives_left()
        # Some games are at 0 lives for a few frames before they are over
        return 0 < self._lives < before

    def _lives_left(self) -> int:
        return int(self.env.unwrapped.ale.lives())  # type: ignore[attr-defined]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, see Gymnasium."""
        start, self._next_start = self._next_start, None
        if start is None or seed is not None:
            start = self.env.reset(seed=seed, options=options)
            self._lives = self._lives_left()
        return start


def ends_game(info: Mapping[str, Any]) -> bool:
    """
    :param info: of the last step of an episode
    :return: whether it is also the last of its game, as always where no lives are told apart
    """
    return not info.get(LIFE_LOST, False)
