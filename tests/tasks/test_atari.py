"""Real Atari games as tasks, and sequences of them."""

import gymnasium as gym
import numpy as np
import pytest
from atari_games import inner, play, wrappers
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import DQN
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.env_util import make_vec_env

import sb3_nbsp  # noqa: F401  registers the sequences
from sb3_nbsp.tasks import SequenceCheckpoint, SequenceEvaluation, latest_checkpoint, load_checkpoint
from sb3_nbsp.tasks.atari import CONSTANTS, AtariTask
from sb3_nbsp.tasks.games import normalized_score
from sb3_nbsp.tasks.sequence import TaskSequence
from sb3_nbsp.tasks.task_envs import single_task_makers

pytest.importorskip("ale_py", reason="ale-py is not installed: pip install 'sb3_nbsp[atari]'")
FIVE = ["Pong", "Bowling", "BankHeist", "Alien", "Breakout"]


def test_the_papers_sequences() -> None:
    """NBSP, appendix C and table 6: two cycles, no mastery, minimal action sets of equal sizes."""
    for env_id, games, steps, n_actions in (
        ("Atari-Pong-Bowling-v0", ["Pong", "Bowling"], 1_500_000, 6),
        ("Atari-BankHeist-Alien-v0", ["BankHeist", "Alien"], 3_000_000, 18),
    ):
        env = gym.make(env_id)
        sequence = env.unwrapped
        assert isinstance(sequence, TaskSequence)
        assert (sequence.tasks, sequence.n_phases, sequence.mastery_threshold) == (games, 4, None)
        assert sequence.steps_per_task == steps
        assert sequence.action_space == gym.spaces.Discrete(n_actions)
        assert sequence.observation_space == gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
        env.close()


def test_wrappers_have_the_order_of_cleanrl() -> None:
    task = AtariTask("BankHeist")
    kept = ["RecordEpisodeStatistics", "NoopResetEnv", "MaxAndSkipEnv", "FireResetEnv", "GreyFrames", "FrameStackObservation"]
    in_training, in_evaluation = [*kept[:4], "Lives", "ClipRewardEnv", *kept[4:]], [*kept[:4], "Lives", *kept[4:]]
    for made, expected in ((task(), in_training), (task.for_evaluation()(), in_evaluation)):
        assert [name for name in wrappers(made) if name != "OrderEnforcing"] == [*expected, "GameReports"]
    options = task().spec.kwargs  # type: ignore[union-attr]
    # One frame a step: MaxAndSkipEnv's four are all that is skipped
    assert (options["frameskip"], options["repeat_action_probability"]) == (1, 0)
    assert options["max_num_frames_per_episode"] == 108_000


def slow_grey_frame(rgb: np.ndarray) -> np.ndarray:
    """The Y channel, and bilinear interpolation between the centres of the four nearest pixels."""
    y = rgb @ np.array([0.299, 0.587, 0.114])
    for axis in (0, 1):
        places = (np.arange(84) + 0.5) * y.shape[axis] / 84 - 0.5
        low = np.floor(places).astype(int)
        share = (places - low)[:, None] if axis == 0 else places - low
        y = (1 - share) * y.take(low, axis) + share * y.take(low + 1, axis)
    return y


def test_frames_are_the_bilinear_y_channel() -> None:
    env = AtariTask("Alien")()
    env.reset(seed=0)
    play(env, 20)
    rgb = inner(env, "AtariEnv").ale.getScreenRGB()  # type: ignore[attr-defined]
    assert len(np.unique(rgb)) > 5
    assert np.abs(inner(env, "GreyFrames").observation(rgb) - slow_grey_frame(rgb)).max() <= 1.5  # type: ignore[attr-defined]


@pytest.mark.parametrize("game", ["BankHeist", "Breakout"])
def test_games_are_those_of_sb3_but_for_the_interpolation(game: str) -> None:
    """The same no-ops, frame skip, lives, FIRE, signs and stack, over several games; SB3 interpolates by areas."""
    env = AtariTask(game)()
    theirs = gym.wrappers.FrameStackObservation(AtariWrapper(gym.make(f"{game}NoFrameskip-v4")), 4)
    observation, other = env.reset(seed=3)[0], theirs.reset(seed=3)[0]
    rng = np.random.default_rng(0)
    n_games, lives = 0, set()
    while n_games < 2:
        assert observation.shape == other.shape[:-1] == (4, 84, 84)
        assert np.abs(observation.astype(int) - other[..., 0]).mean() < 8
        action = rng.integers(env.action_space.n)  # type: ignore[attr-defined]
        (observation, *mine), (other, *same) = env.step(action), theirs.step(action)
        assert mine[:3] == same[:3]
        if mine[1]:
            n_games += not mine[3]["life_lost"]
            lives.add(mine[3]["lives"])
            observation, other = env.reset()[0], theirs.reset()[0]
    assert len(lives) >= 4


def test_what_an_action_means_differs_between_pong_and_bowling() -> None:
    meanings = {game: AtariTask(game)().reset()[1]["action_meanings"] for game in ("Pong", "Bowling")}
    assert meanings["Pong"][2] == "RIGHT"
    assert meanings["Bowling"][2] == "UP"
    full = {game: AtariTask(game, full_action_space=True)().reset()[1]["action_meanings"] for game in ("Pong", "Bowling")}
    assert full["Pong"] == full["Bowling"]
    assert len(full["Pong"]) == 18


def test_action_spaces_of_a_sequence() -> None:
    """Those that the games use where these are equally many, otherwise all 18."""
    assert gym.make("AtariCycle-v0", tasks=["Pong", "Bowling"]).action_space.n == 6  # type: ignore[attr-defined]
    assert gym.make("AtariCycle-v0", tasks=["Pong", "Alien"]).action_space.n == 18  # type: ignore[attr-defined]
    given = gym.make("AtariCycle-v0", tasks=["Pong", "Bowling"], full_action_space=True)
    assert given.action_space.n == 18  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"full_action_space=False needs .* \{'Pong': 6, 'Alien': 18\}"):
        gym.make("AtariCycle-v0", tasks=["Pong", "Alien"], full_action_space=False)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tasks": ["Pong", "Bowlin"]}, "no game 'Bowlin'; did you mean Bowling"),
        ({"tasks": ["Xyzzy"]}, r"no game 'Xyzzy'\. Games: "),
        ({"tasks": ["ALE/Pong-v5"]}, "no game 'ALE/Pong-v5'; did you mean Pong"),
        ({"tasks": ["PongNoFrameskip-v4"]}, "did you mean Pong"),
        ({"tasks": "Pong"}, "tasks must be a list"),
        ({"tasks": None}, "tasks must be a list"),
        ({"sticky_actions": 2}, r"sticky_actions must be a number in \[0, 1\], not 2"),
        ({"max_frames": 38}, "max_frames must be a whole number of at least 39, not 38"),
        ({"frame_skip": 0}, "frame_skip must be a whole number of at least 1, not 0"),
        ({"full_action_space": "yes"}, "full_action_space must be one of"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gym.make("AtariCycle-v0", **options)


def test_rewards_are_signs_in_training_and_raw_in_evaluation() -> None:
    task = AtariTask("Alien", max_frames=1_600)
    in_training, raw = task(), task.for_evaluation()()
    for env in (in_training, raw):
        env.reset(seed=5)
    assert {reward for _, reward, *_ in play(in_training, 600, seed=1)} == {0.0, 1.0}
    rewards = [(step[1], step[4].get("game")) for step in play(raw, 600, seed=1)]
    assert {reward for reward, _ in rewards} == {0.0, 10.0}
    whole = next(index for index, (_, game) in enumerate(rewards) if game)
    assert rewards[whole][1]["r"] == sum(reward for reward, _ in rewards[: whole + 1])


def test_tasks_in_turn_are_whole_games_with_raw_rewards() -> None:
    """``rotate=True`` is for evaluation: the zoo chooses its best model by such returns."""
    env = gym.make("AtariCycle-v0", tasks=["Alien", "BankHeist"], cycles=1, max_frames=1_600, rotate=True)
    env.reset(seed=5)
    steps = [(step[1], step[4]) for step in play(env, 1_300, seed=1)]
    games = [(info["task"], info["game"]["r"], "life_lost" in info) for _, info in steps if "game" in info]
    assert [task for task, *_ in games[:3]] == ["Alien", "BankHeist", "Alien"]
    assert not any(has_lives for *_, has_lives in games)
    end = next(index for index, (_, info) in enumerate(steps) if "game" in info)
    assert games[0][1] == sum(reward for reward, _ in steps[: end + 1]) > 9  # Alien pays 10 for a dot


def test_a_time_limit_truncates() -> None:
    env = AtariTask("Pong", max_frames=60, noop_max=0)()
    env.reset(seed=0)
    ends = [(terminated, truncated) for *_, terminated, truncated, _ in play(env, 30)]
    # FIRE and RIGHT at the start take a step of four frames each: 13 steps are left
    assert ends == 2 * ([(False, False)] * 12 + [(False, True)]) + [(False, False)] * 4


def test_time_limits_bootstrap() -> None:
    """What DQN stores of a game that was cut off is no end of the task; a lost life is one."""
    env = make_vec_env("AtariCycle-v0", env_kwargs={"tasks": ["Breakout"], "max_frames": 400})
    model = DQN("CnnPolicy", env, buffer_size=300, learning_starts=1_000, seed=0, device="cpu")
    model.learn(250)
    buffer = model.replay_buffer
    assert buffer is not None
    ends = buffer.dones[:250, 0] == 1
    cut = buffer.timeouts[:250, 0] == 1
    assert 0 < cut.sum() < ends.sum()
    assert (ends | ~cut).all()


def test_sticky_actions_are_those_of_the_emulator() -> None:
    sticky, free = AtariTask("Pong", sticky_actions=0.25)(), AtariTask("Pong")()
    assert sticky.spec.kwargs["repeat_action_probability"] == 0.25  # type: ignore[union-attr]
    for env in (sticky, free):
        env.reset(seed=0)
    frames = [np.array([step[0] for step in play(env, 40)]) for env in (sticky, free)]
    assert not np.array_equal(*frames)


def test_a_phase_that_another_environment_has_ended_waits_for_no_game() -> None:
    env = gym.make("AtariCycle-v0", tasks=["BankHeist", "Alien"])
    env.reset(seed=0)
    env.step(0)
    env.unwrapped.next_phase()  # type: ignore[attr-defined]
    *_, truncated, info = env.step(0)
    assert (truncated, info["boundary"], info["life_lost"]) == (True, True, False)
    assert env.reset()[1]["task"] == "Alien"


def test_a_seed_repeats() -> None:
    played = []
    for _ in range(2):
        env = gym.make("Atari-BankHeist-Alien-v0")
        env.reset(seed=7)
        played.append(np.array([step[0] for step in play(env, 60)]))
    np.testing.assert_array_equal(*played)


def test_gymnasiums_checker_accepts_it() -> None:
    check_env(gym.make("Atari-Pong-Bowling-v0").unwrapped, skip_render_check=True)


def test_scores_are_equation_12_with_table_7() -> None:
    assert normalized_score(9.3, *CONSTANTS["Pong"]) == pytest.approx(1)
    assert normalized_score(227.5, *CONSTANTS["Alien"]) == 0
    assert normalized_score(100, *CONSTANTS["BankHeist"]) == pytest.approx((100 - 14.2) / (734.4 - 14.2))
    env = AtariTask("Bowling", max_frames=400).for_evaluation()()
    env.reset(seed=0)
    info = next(step[4] for step in play(env, 200) if step[3])
    assert info["score"] == pytest.approx((info["game"]["r"] - 23.1) / (154.8 - 23.1))
    other = AtariTask("Breakout", max_frames=40)()
    other.reset(seed=0)
    assert all("score" not in step[4] for step in play(other, 40))  # table 7 has no constants of it


def test_tasks_are_evaluated_without_lives_and_signs() -> None:
    sequence = gym.make("Atari-BankHeist-Alien-v0")
    makers = single_task_makers(sequence)
    assert not inner(makers["Alien"](), "Lives").end_episode  # type: ignore[attr-defined]
    around = single_task_makers(gym.wrappers.TransformReward(sequence, lambda reward: 2 * reward))
    alien = around["Alien"]().unwrapped._env()  # type: ignore[attr-defined]
    assert not inner(alien, "Lives").end_episode  # type: ignore[attr-defined]
    assert "ClipRewardEnv" not in wrappers(alien)


def test_evaluation_in_scores_of_whole_games_for_a_number_of_steps(tmp_path) -> None:
    options = {"tasks": ["BankHeist", "Pong"], "steps_per_task": 30, "max_frames": 200, "cycles": 1}
    env = make_vec_env("AtariCycle-v0", env_kwargs=options)
    model = DQN("CnnPolicy", env, buffer_size=200, learning_starts=1_000, seed=0, device="cpu")
    evaluation = SequenceEvaluation(tmp_path, n_eval_steps=60, deterministic=False, progress_bar=False)
    model.learn(1_000, callback=evaluation)
    matrix = evaluation.matrix
    assert matrix is not None and len(matrix.rows) == 2
    # Fifty steps a game at most: two games for 60 steps
    for bank_heist, pong in matrix.rows:
        for score, (random, human) in ((bank_heist, CONSTANTS["BankHeist"]), (pong, CONSTANTS["Pong"])):
            game_return = random + score * (human - random)
            assert game_return == pytest.approx(round(2 * game_return) / 2, abs=1e-9)
    assert matrix.metrics()["ASR"] == pytest.approx(np.mean([matrix.rows[0][0], np.mean(matrix.rows[1])]))


@pytest.mark.slow
def test_five_games_through_their_boundaries_with_save_and_load(tmp_path) -> None:
    env_kwargs = {"tasks": FIVE, "steps_per_task": 15, "max_frames": 80, "noop_max": 0, "cycles": 1}

    def run(n_steps: int, checkpoint=None) -> DQN:
        env = make_vec_env("AtariCycle-v0", env_kwargs=env_kwargs, seed=0)
        options = {"buffer_size": 40, "learning_starts": 10_000, "seed": 0, "device": "cpu"}
        options |= {"policy_kwargs": {"net_arch": [], "features_extractor_kwargs": {"features_dim": 8}}}
        model = DQN("CnnPolicy", env, **options) if checkpoint is None else load_checkpoint(DQN, checkpoint, env)
        evaluation = SequenceEvaluation(tmp_path, n_eval_episodes=1, progress_bar=False)
        callbacks = [evaluation, SequenceCheckpoint(20, tmp_path)]
        with pytest.warns(UserWarning, match="do not report success"):  # Breakout has no constants
            model.learn(n_steps, callback=callbacks, reset_num_timesteps=False)
        return model

    first = run(50)
    stopped_at = first.num_timesteps
    phases = SequenceEvaluation(tmp_path)._earlier_matrix
    assert 0 < len(phases(FIVE).rows) < 5
    second = run(2_000, latest_checkpoint(tmp_path))
    assert second.num_timesteps > stopped_at
    matrix = phases(FIVE)
    assert matrix.phase_tasks == FIVE
    assert not np.isnan(matrix.rows).any()
