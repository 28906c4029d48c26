"""Real MinAtar games as tasks of equal spaces."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_nbsp import ContinualDiscreteSAC
from sb3_nbsp.tasks import SequenceEvaluation, TaskSequence, minatar
from sb3_nbsp.tasks.minatar import ACTIONS, GAMES, RANDOM, make_minatar_task

minatar_gym = pytest.importorskip("minatar.gym", reason="MinAtar is not installed: pip install 'sb3_nbsp[minatar]'")
SPACE = gym.spaces.Box(0, 1, (10, 10, 10), np.uint8)


def play(env: gym.Env, actions: list[int]) -> list[tuple]:
    """Steps of one game, to its end at most."""
    steps = []
    for action in actions:
        steps.append(env.step(action))
        if steps[-1][2] or steps[-1][3]:
            break
    return steps


@pytest.mark.parametrize("name", ["Breakout-SpaceInvaders", "Asterix-Freeway", "AllGames"])
def test_sequences(name: str) -> None:
    sequence = gym.make(f"MinAtar-{name}-v0").unwrapped
    assert isinstance(sequence, TaskSequence)
    assert (sequence.steps_per_task, sequence.cycles, sequence.mastery_threshold) == (300_000, 2, None)
    assert (sequence.observation_space, sequence.action_space) == (SPACE, gym.spaces.Discrete(6))
    if name == "AllGames":
        assert sorted(sequence.tasks) == list(GAMES)


@pytest.mark.parametrize("game", GAMES)
def test_observations_are_minatars_planes_and_empty_ones(game: str) -> None:
    env, raw = make_minatar_task(game, sticky_actions=0.0), minatar_gym.BaseEnv(GAMES[game][0], sticky_action_prob=0.0)
    observation, info = env.reset(seed=2)
    assert info["action_meanings"] == ACTIONS
    other = raw.reset(seed=2)[0]
    for action in [3, 1, 2, 4, 5, 0] * 3:
        assert observation in SPACE
        n_channels = other.shape[2]
        np.testing.assert_array_equal(observation[:n_channels], other.transpose(2, 0, 1))
        assert not observation[n_channels:].any()
        (observation, reward, *_), (other, expected, *_) = env.step(np.int64(action)), raw.step(action)
        assert reward == expected


def test_the_time_limit_of_freeway_is_a_truncation() -> None:
    """MinAtar calls step 2501 a termination."""
    env = make_minatar_task("Freeway")
    for _ in range(2):
        env.reset(seed=0)
        ends = [(terminated, truncated) for *_, terminated, truncated, _ in play(env, [0] * 3_000)]
        assert ends == [(False, False)] * 2_500 + [(False, True)]


def test_a_game_is_cut_off() -> None:
    env = make_minatar_task("Seaquest", max_steps=7)
    env.reset(seed=0)
    steps = play(env, [0] * 10)
    assert [step[2:4] for step in steps] == [(False, False)] * 6 + [(False, True)]
    assert steps[-1][4]["game"]["l"] == 7
    lost = make_minatar_task("Breakout")
    lost.reset(seed=0)
    assert play(lost, [0] * 100)[-1][2:4] == (True, False)  # the ball has fallen


def test_a_seed_repeats_whatever_was_played_before() -> None:
    """MinAtar itself keeps the last action, which the first step of the next game may repeat."""
    played = []
    for before in ([], [1, 1, 1], [3, 3]):
        env = make_minatar_task("Breakout", sticky_actions=0.9)
        env.reset(seed=8)
        play(env, before)
        env.reset(seed=9)
        played.append(np.array([step[0] for step in play(env, [0, 1, 0, 3, 0])]))
    np.testing.assert_array_equal(played[0], played[1])
    np.testing.assert_array_equal(played[0], played[2])


def test_gymnasiums_checker_accepts_it() -> None:
    check_env(gym.make("MinAtar-AllGames-v0").unwrapped, skip_render_check=True)


def test_a_picture_can_be_seen() -> None:
    """MinAtar's own has 10 × 10 pixels from 0 to 1, which a video takes for black."""
    env = gym.make("MinAtar-Breakout-SpaceInvaders-v0", render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.shape == (320, 320, 3)
    fields = picture[::32, ::32]
    np.testing.assert_array_equal(picture, fields.repeat(32, axis=0).repeat(32, axis=1))
    ball, paddle, bricks = fields[3, 0], fields[9, 4], fields[1:4, 1:9]
    assert ball.any() and paddle.any() and bricks.any(axis=2).all() and bricks.max() > 100
    assert not fields[5:8].any()  # nothing is there
    assert env.metadata["render_fps"] == 20


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tasks": ["Pong"]}, "MinAtar has no game 'Pong'.*Games: Asterix, Breakout"),
        ({"tasks": ["Breakot"]}, "did you mean Breakout"),
        ({"max_steps": 0}, "max_steps must be a whole number of at least 1, not 0"),
        ({"sticky_actions": -1}, r"sticky_actions must be a number in \[0, 1\], not -1"),
        ({"difficulty_ramping": 2}, "difficulty_ramping must be one of"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gym.make("MinAtarCycle-v0", **options)


def test_scores_have_constants_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(RANDOM) == set(GAMES)
    monkeypatch.setitem(minatar.TRAINED, "Breakout", RANDOM["Breakout"] + 4)
    env = make_minatar_task("Breakout")
    env.reset(seed=0)
    info = play(env, [0] * 100)[-1][4]
    assert info["score"] == pytest.approx((info["game"]["r"] - RANDOM["Breakout"]) / 4)
    monkeypatch.delitem(minatar.TRAINED, "Breakout")
    env = make_minatar_task("Breakout")
    env.reset(seed=0)
    assert "score" not in play(env, [0] * 100)[-1][4]


@pytest.mark.filterwarnings("ignore:The tasks do not report success", "ignore:Only some of the games have a normalized")
def test_an_agent_learns_on_five_games(tmp_path) -> None:
    env = make_vec_env("MinAtar-AllGames-v0", env_kwargs={"steps_per_task": 30, "max_steps": 20, "cycles": 1}, seed=0)
    model = DQN("MlpPolicy", env, buffer_size=200, learning_starts=10, batch_size=8, seed=0, device="cpu")
    model.learn(1_000, callback=SequenceEvaluation(tmp_path, n_eval_episodes=2, progress_bar=False))
    lines = (tmp_path / "success_matrix.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == ["Breakout", "SpaceInvaders", "Asterix", "Freeway", "Seaquest"]


@pytest.mark.filterwarnings("ignore:The tasks do not report success")
@pytest.mark.parametrize("scored", [[], ["Breakout"], ["Breakout", "SpaceInvaders"]])
def test_means_over_scores_and_returns_are_not_silent(
    scored: list[str], monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(minatar, "TRAINED", {game: RANDOM[game] + 4 for game in scored})
    kwargs = {"steps_per_task": 30, "max_steps": 20, "cycles": 1}
    env = make_vec_env("MinAtar-Breakout-SpaceInvaders-v0", env_kwargs=kwargs, seed=0)
    model = DQN("MlpPolicy", env, buffer_size=200, learning_starts=1_000, seed=0, device="cpu")
    model.learn(100, callback=SequenceEvaluation(n_eval_episodes=1, progress_bar=False))
    warned = [str(each.message) for each in recwarn if "Only some of the games have a normalized score" in str(each.message)]
    assert len(warned) == (len(scored) == 1)


class Ends(BaseCallback):
    """Notes the games that end, whole or not."""

    def _on_step(self) -> bool:
        infos = [info for done, info in zip(self.locals["dones"], self.locals["infos"], strict=True) if done]
        self.whole += [info["game"]["l"] for info in infos if "game" in info]
        self.n_cut_off += sum("game" not in info for info in infos)
        return True

    def _on_training_start(self) -> None:
        self.whole: list[int] = []
        self.n_cut_off = 0


def test_a_game_that_another_environment_cuts_off_is_not_logged(tmp_path) -> None:
    kwargs = {"steps_per_task": 60, "max_steps": 1_000, "cycles": 1}
    env = make_vec_env("MinAtar-Breakout-SpaceInvaders-v0", 2, env_kwargs=kwargs, seed=0)
    ends, evaluation = Ends(), SequenceEvaluation(tmp_path, n_eval_episodes=1, progress_bar=False)
    model = ContinualDiscreteSAC("MlpPolicy", env, buffer_size=200, learning_starts=10_000, seed=3, device="cpu")
    model.learn(500, callback=[ends, evaluation])
    rows = [line.split(",") for line in (tmp_path / "training.csv").read_text().splitlines()]
    assert [int(float(row[-1])) for row in rows[1:]] == ends.whole != []
    assert ends.n_cut_off == 2  # one for each phase
