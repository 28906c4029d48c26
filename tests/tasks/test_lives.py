"""Lives of real Atari games: episodes in training, and what follows a lost one."""

import gymnasium as gym
import numpy as np
import pytest
from atari_games import inner, play

import sb3_nbsp  # noqa: F401  registers the sequences
from sb3_nbsp.tasks.atari import AtariTask
from sb3_nbsp.tasks.sequence import TaskSequence

pytest.importorskip("ale_py", reason="ale-py is not installed: pip install 'sb3_nbsp[atari]'")


def test_a_life_ends_an_episode_in_training_only() -> None:
    env = AtariTask("BankHeist")()
    env.reset(seed=0)
    ends = [(terminated, info["life_lost"], info.get("game")) for *_, terminated, _, info in play(env, 700) if terminated]
    lost = [life_lost for _, life_lost, _ in ends]
    assert lost[:4] == [True, True, True, False]  # four lives, then a new game
    assert [game is None for *_, game in ends] == lost
    whole = AtariTask("BankHeist").for_evaluation()()
    whole.reset(seed=0)
    ends = [info for *_, terminated, _, info in play(whole, 700) if terminated]
    assert all("life_lost" not in info and info["game"]["r"] % 10 == 0 for info in ends)


@pytest.mark.parametrize("max_frames", [96, 98, 100, 101, 104, 107, 112])
def test_a_game_that_ends_with_a_lost_life_or_right_after_it(max_frames: int) -> None:
    """
    By the limit, in the step that loses the life (97 to 100 frames) or in what is played before the next episode begins, where
    no step of an agent would report it (101 to 112). A lost life has the value 0 in any case.
    """
    env = AtariTask("Breakout", max_frames=max_frames, noop_max=0)()
    game = inner(env, "RecordEpisodeStatistics")
    env.reset(seed=1)
    reported = []
    for _ in range(200):
        lives = env.unwrapped.ale.lives()  # type: ignore[attr-defined]
        *_, terminated, truncated, info = env.step(0)
        assert terminated == (info["lives"] < lives)
        if terminated or truncated:
            assert ("game" in info) != info["life_lost"]
            if "game" in info:
                reported.append((info["game"]["r"], info["game"]["l"]))
            env.reset()
    assert len(reported) == game.episode_count >= 7  # type: ignore[attr-defined]
    assert reported == list(zip(game.return_queue, game.length_queue, strict=True))  # type: ignore[attr-defined]
    assert {length for _, length in reported} == {max_frames}


def test_a_phase_ends_with_a_game_that_ends_right_after_a_lost_life() -> None:
    env = gym.make("AtariCycle-v0", tasks=["Breakout", "Pong"], steps_per_task=20, max_frames=104, noop_max=0, cycles=1)
    env.reset(seed=1)
    for _ in range(25):
        *_, terminated, truncated, info = env.step(0)
        if terminated or truncated:
            break
    assert (terminated, info["life_lost"], info["boundary"], info["game"]["l"]) == (True, False, True, 104)
    assert env.reset()[1]["task"] == "Pong"


@pytest.mark.parametrize("game", ["BankHeist", "Breakout"])
def test_a_game_is_the_same_in_evaluation(game: str) -> None:
    """The same actions, the same whole games, at the same steps: only where episodes end differs, and the rewards' signs."""
    games = []
    for task in (AtariTask(game), AtariTask(game).for_evaluation()):
        env = task()
        env.reset(seed=2)
        steps = play(env, 700)
        ends = [(i, info["game"]["r"], info["game"]["l"]) for i, (*_, info) in enumerate(steps) if "game" in info]
        games.append((ends, sum(step[2] for step in steps), sum(step[1] for step in steps[: ends[-1][0] + 1])))
    (in_training, n_episodes, _), (in_evaluation, n_games, total) = games
    assert in_training == in_evaluation
    assert n_games == len(in_evaluation) < n_episodes
    assert total == sum(game_return for _, game_return, _ in in_evaluation) > 0


def test_evaluation_of_a_policy_that_has_never_had_to_press_fire() -> None:
    """Training presses FIRE after every lost life, so that the agent need not learn to."""
    env = AtariTask("Breakout", max_frames=4_000).for_evaluation()()
    env.reset(seed=0)
    steps = 0
    while not (ended := env.step(2 + steps % 2))[2]:
        steps += 1
        assert steps < 500
    assert ended[4]["lives"] == 0


def test_a_reset_that_follows_no_lost_life_begins_a_new_game() -> None:
    """SB3's EpisodicLifeEnv would play on, also with a seed."""
    env = AtariTask("Breakout", noop_max=0)()
    first = env.reset(seed=1)[0]
    ale = env.unwrapped.ale  # type: ignore[attr-defined]
    while not env.step(0)[2]:
        pass
    assert ale.lives() == 4
    env.reset()
    assert ale.lives() == 4  # after the lost life, the game goes on
    env.step(0)
    env.reset()
    assert ale.lives() == 5
    while not env.step(0)[2]:
        pass
    np.testing.assert_array_equal(env.reset(seed=1)[0], first)
    assert ale.lives() == 5


def test_a_phase_ends_with_the_game_not_with_the_life() -> None:
    env = gym.make("AtariCycle-v0", tasks=["Breakout", "Alien"], steps_per_task=20)
    env.reset(seed=0)
    infos = [step[4] for step in play(env, 600) if step[2] or step[3]]
    before = [info for info in infos if info["phase"] == 0]
    assert [info["life_lost"] for info in before] == [True] * (len(before) - 1) + [False]
    assert len(before) == 5
    assert [info["boundary"] for info in before] == [False] * (len(before) - 1) + [True]
    assert infos[len(before)]["task"] == "Alien"


def until_a_life_is_lost(**options: object) -> gym.Env:
    env = gym.make("AtariCycle-v0", tasks=["Breakout", "Pong"], noop_max=0, cycles=1, **options)
    env.reset(seed=1)
    while not env.step(0)[4]["life_lost"]:
        pass
    return env


def test_a_reset_that_leaves_a_game_ends_it() -> None:
    """It counts, and the phase may end with it; the one after a lost life plays on."""
    env = until_a_life_is_lost(steps_per_task=5)
    assert env.reset()[1]["task"] == "Breakout"
    assert env.reset()[1]["task"] == "Pong"
    env = until_a_life_is_lost(steps_per_task=5)
    assert env.reset(seed=1)[1]["task"] == "Pong"


def test_a_restart_after_a_lost_life_begins_a_new_game() -> None:
    env = until_a_life_is_lost()
    sequence = env.unwrapped
    assert isinstance(sequence, TaskSequence)
    sequence.restart()
    env.reset()
    assert sequence._env().unwrapped.ale.lives() == 5  # type: ignore[attr-defined]
    assert sequence.phase_steps == 0
