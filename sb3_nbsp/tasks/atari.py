"""Atari games as tasks, preprocessed as in the NBSP paper, and sequences of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation, RecordEpisodeStatistics
from stable_baselines3.common.atari_wrappers import ClipRewardEnv, FireResetEnv, MaxAndSkipEnv, NoopResetEnv

from sb3_nbsp.checks import check_option, check_range, whole
from sb3_nbsp.extras import needs
from sb3_nbsp.tasks.games import GAME, GameReports, check_games
from sb3_nbsp.tasks.lives import Lives
from sb3_nbsp.tasks.sequence import TaskSequence, sequence_options

# NBSP, table 7 (from Mnih et al. 2015): mean return of random play and of a human
CONSTANTS = {"Bowling": (23.1, 154.8), "Pong": (-20.7, 9.3), "BankHeist": (14.2, 734.4), "Alien": (227.5, 6875.0)}
SIZE, N_FRAMES = 84, 4


class GreyFrames(gym.ObservationWrapper):
    """
    Frames of 84×84 by bilinear interpolation, and of those the Y channel (NBSP, appendix C.3).

    :param env: an environment with RGB frames
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.observation_space = spaces.Box(0, 255, (SIZE, SIZE), np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """
        :param observation: RGB, shape (height, width, 3)
        :return: shape (84, 84)
        """
        import cv2

        small = cv2.resize(observation, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))


@dataclass(frozen=True)
class AtariTask:
    """
    Makes the environment of a game: four grey frames of 84×84, shape (4, 84, 84), channels first.

    The order of the wrappers is CleanRL's, whose configuration the paper keeps: statistics of the whole game in raw rewards
    (``info["game"]``: return "r", length "l" in frames), up to ``noop_max`` random no-ops, a step of ``frame_skip`` frames
    with the maximum of the last two, a life as an episode, FIRE at the start where the game has it, signs of the rewards, grey
    frames, a stack of them. (:class:`~sb3_nbsp.tasks.lives.Lives` presses FIRE itself after a lost life, and so is around
    ``FireResetEnv``; the games are the same.) In an evaluation, a lost life ends no episode, and rewards are not clipped. A
    game is truncated at ``max_frames``.

    :param game: its name, such as "BankHeist"
    :param full_action_space: all 18 actions, which mean the same in every game, not only those that the game uses
    :param sticky_actions: probability that a frame repeats the action of the frame before
    :param frame_skip: frames of a step
    :param noop_max: most no-ops at the start of a game; 0 for none
    :param max_frames: a game is cut off after so many frames; more than its start may take: noop_max + 2 frame_skip
    :param training: lives are episodes, and rewards become their signs
    :raises ValueError: if an option is out of its range
    """

    game: str
    full_action_space: bool = False
    sticky_actions: float = 0.0
    frame_skip: int = 4
    noop_max: int = 30
    max_frames: int = 108_000
    training: bool = True

    def __post_init__(self) -> None:
        check_option("full_action_space", self.full_action_space, (True, False))
        check_range("sticky_actions", self.sticky_actions, 0, 1)
        whole("frame_skip", self.frame_skip, 1)
        whole("noop_max", self.noop_max, 0)
        whole("max_frames", self.max_frames, self.noop_max + 2 * self.frame_skip + 1)  # longer than the start: no-ops, FIRE

    def for_evaluation(self) -> AtariTask:
        """What makes the game as it is evaluated."""
        return replace(self, training=False)

    def __call__(self, render_mode: str | None = None) -> gym.Env:
        """
        :param render_mode: as in Gymnasium
        :return: the environment
        :raises ModuleNotFoundError: if ale-py or OpenCV is missing
        """
        import_ale()
        raw = gym.make(
            f"ALE/{self.game}-v5",
            render_mode=render_mode,
            disable_env_checker=True,
            frameskip=1,  # the id's own would multiply with that of MaxAndSkipEnv
            repeat_action_probability=self.sticky_actions,
            full_action_space=self.full_action_space,
            max_num_frames_per_episode=int(self.max_frames),
        )
        meanings: list[str] = raw.get_wrapper_attr("get_action_meanings")()
        env: gym.Env = RecordEpisodeStatistics(raw, stats_key=GAME)
        if self.noop_max > 0:
            env = NoopResetEnv(env, int(self.noop_max))
        env = MaxAndSkipEnv(env, int(self.frame_skip))
        needs_fire = "FIRE" in meanings
        if needs_fire:
            env = FireResetEnv(env)
        # After a lost life a no-op, and what FireResetEnv does after a reset
        env = Lives(env, (0, 1, 2) if needs_fire else (0,), end_episode=self.training)
        if self.training:
            env = ClipRewardEnv(env)
        env = FrameStackObservation(GreyFrames(env), N_FRAMES)
        return GameReports(env, meanings, CONSTANTS.get(self.game))


def import_ale() -> None:
    """
    Import ale-py, which registers its ids, and OpenCV.

    :raises ModuleNotFoundError: if one of them is missing
    """
    with needs("atari", "An Atari game"):
        import ale_py  # noqa: F401
        import cv2  # noqa: F401


def game_names() -> list[str]:
    """Names of all games of ale-py."""
    import_ale()
    return [each.removeprefix("ALE/").removesuffix("-v5") for each in gym.registry if each.startswith("ALE/")]


@sequence_options
def atari_cycle(
    tasks: Sequence[str] = ("Pong", "Bowling"),
    full_action_space: bool | None = None,
    sticky_actions: float = 0.0,
    frame_skip: int = 4,
    noop_max: int = 30,
    max_frames: int = 108_000,
    steps_per_task: int = 1_500_000,
    mastery_threshold: float | None = None,
    **kwargs: Any,
) -> TaskSequence:
    """
    A cycle of Atari games. A phase ends with the game, not the life, that reaches its steps.

    :param tasks: names of the games of one cycle, in order, e.g. ["Pong", "Bowling"]
    :param full_action_space: all 18 actions in every game. None: only those that the games use, if they are equally many in
        all, as in the paper's two sequences. What an action means can then differ: 2 is RIGHT in Pong and UP in Bowling;
        ``info["action_meanings"]`` of a reset tells
    :param sticky_actions: probability that a frame repeats the action of the frame before
    :param frame_skip: frames of a step
    :param noop_max: most no-ops at the start of a game
    :param max_frames: a game is cut off after so many frames; more than its start may take: noop_max + 2 frame_skip
    :param steps_per_task: steps of a phase
    :param mastery_threshold: see :class:`TaskSequence`; games report no success
    :param kwargs: other options of :class:`TaskSequence`
    :return: the sequence
    :raises ValueError: if a game is unknown, the games have differently many actions, or an option is out of its range
    """
    games = check_games(tasks, game_names(), "ale-py")
    check_option("full_action_space", full_action_space, (True, False, None))
    numbers = {} if full_action_space else {game: number_of_actions(game) for game in games}
    if len(set(numbers.values())) > 1 and full_action_space is not None:
        raise ValueError(f"full_action_space=False needs games with equally many actions, but they have {numbers}: use True")
    is_full = len(set(numbers.values())) != 1
    options = (is_full, sticky_actions, frame_skip, noop_max, max_frames)
    makers = {game: AtariTask(game, *options) for game in games}
    return TaskSequence(makers, games, steps_per_task=steps_per_task, mastery_threshold=mastery_threshold, **kwargs)


def number_of_actions(game: str) -> int:
    """How many actions a game uses."""
    env = gym.make(f"ALE/{game}-v5")
    number = int(env.action_space.n)  # type: ignore[attr-defined]
    env.close()
    return number
