"""Lives of a game: each is an episode in training, and none ends the game."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym

LIFE_LOST = "life_lost"


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
