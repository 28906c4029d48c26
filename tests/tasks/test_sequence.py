"""When a sequence moves on, and what it says."""

import numpy as np
import pytest
from playing import ACTION, MakeSequence, Options, play, play_episode
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_nbsp.tasks import TaskSequence, gymnasium_cycle


def test_moves_on_by_steps_at_the_end_of_an_episode(make_sequence: MakeSequence, hard: Options) -> None:
    env = make_sequence({"a": {**hard, "horizon": 3}, "b": {**hard, "horizon": 5}}, cycles=2, steps_per_task=7)
    # a: 3, 6, 9 steps; b: 5, 10 steps
    assert play(env, 10) == [
        ("a", 0, False),
        ("a", 0, False),
        ("a", 0, True),
        ("b", 1, False),
        ("b", 1, True),
        ("a", 2, False),
        ("a", 2, False),
        ("a", 2, True),
        ("b", 3, False),
        ("b", 3, True),
    ]


@pytest.mark.parametrize("terminates", [True, False])
def test_exactly_the_last_step_is_enough(make_sequence: MakeSequence, hard: Options, terminates: bool) -> None:
    env = make_sequence({"a": {**hard, "terminates": terminates}, "b": hard}, steps_per_task=4)
    assert play(env, 3) == [("a", 0, False), ("a", 0, True), ("b", 1, False)]


def test_moves_on_by_mastery(make_sequence: MakeSequence, hard: Options) -> None:
    # Episodes 0, 1 and 7 fail. Of the last ten, 7 are successes after episode 9, 8 after 10, 9 after 11
    scripted = {"success": lambda episode, step: episode not in (0, 1, 7)}
    env = make_sequence({"a": scripted, "b": hard})
    assert play(env, 13) == [("a", 0, False)] * 11 + [("a", 0, True), ("b", 1, False)]


def test_a_last_phase_with_steps_of_its_own_is_not_ended_by_mastery(make_sequence: MakeSequence, easy: Options) -> None:
    env = make_sequence({"a": easy, "b": easy}, cycles=1, mastery_window=1, last_phase_steps=5)
    assert play(env, 4) == [("a", 0, True), ("b", 1, False), ("b", 1, False), ("b", 1, True)]


def test_no_mastery_before_the_window_is_full(make_sequence: MakeSequence, easy: Options) -> None:
    env = make_sequence({"a": easy, "b": easy}, mastery_window=4)
    assert play(env, 5) == [("a", 0, False)] * 3 + [("a", 0, True), ("b", 1, False)]


def test_the_window_starts_anew_in_every_phase(make_sequence: MakeSequence, easy: Options) -> None:
    # b fails in its first two episodes, so nine successes of ten are there after its eleventh
    slow = {"success": lambda episode, step: episode >= 2}
    env = make_sequence({"a": easy, "b": slow}, cycles=2)
    said = play(env, 10 + 11 + 10 + 10)
    assert [i for i, (_, _, boundary) in enumerate(said) if boundary] == [9, 20, 30, 40]
    assert [task for task, _, boundary in said if boundary] == ["a", "b", "a", "b"]


def test_mastery_can_be_switched_off(make_sequence: MakeSequence, easy: Options) -> None:
    env = make_sequence({"a": easy, "b": easy}, mastery_threshold=None, steps_per_task=50)
    assert [boundary for _, _, boundary in play(env, 25)] == [False] * 24 + [True]


def test_threshold_is_inclusive(make_sequence: MakeSequence, hard: Options) -> None:
    env = make_sequence({"a": {"success": lambda episode, step: episode > 2}}, mastery_threshold=0.7, cycles=1)
    assert [boundary for _, _, boundary in play(env, 10)] == [False] * 9 + [True]


def test_success_of_any_step_of_the_episode(make_sequence: MakeSequence) -> None:
    task = {"success": lambda episode, step: episode == 1 and step == 2, "horizon": 4}
    env = make_sequence({"a": task})
    said = []
    for _ in range(3):
        _, info = env.reset()
        assert "is_success" not in info  # no step, no answer
        said.append([info["is_success"] for info in play_episode(env)])
    assert said == [[False] * 4, [False, True, True, True], [False] * 4]
    assert all(type(value) is bool for value in said[1])


def test_task_that_reports_is_success_of_a_step(make_sequence: MakeSequence) -> None:
    """The name is taken by the episode's; the step's stays under another."""
    env = make_sequence({"a": {"success": lambda episode, step: step == 2, "horizon": 3, "key": "is_success"}})
    env.reset()
    said = [(bool(info["success"]), info["is_success"]) for info in play_episode(env)]
    assert said == [(False, False), (True, True), (False, True)]


def test_without_success_no_mastery_but_steps(make_sequence: MakeSequence) -> None:
    env = make_sequence({"a": {}, "b": {}}, steps_per_task=30)
    env.reset()
    infos = play_episode(env)
    assert all("is_success" not in info for info in infos)
    assert [boundary for _, _, boundary in play(env, 14)] == [False] * 13 + [True]


def test_info_of_steps_and_resets(make_sequence: MakeSequence, hard: Options) -> None:
    env = make_sequence({"a": hard, "b": hard}, tasks=["b", "a", "b"], cycles=1, steps_per_task=2)
    assert env.task_names == ["b", "a"]
    keys = ("task", "task_index", "phase", "n_phases", "boundary", "sequence_over", "marker")
    expected_resets = [
        ("b", 0, 0, 3, False, False, 2.0),
        ("a", 1, 1, 3, False, False, 1.0),
        ("b", 0, 2, 3, False, False, 2.0),
        ("b", 0, 2, 3, False, True, 2.0),
    ]
    for reset in expected_resets:
        observation, info = env.reset()
        assert tuple(info[key] for key in keys) == reset
        assert observation[0] == info["marker"]
        first, last = play_episode(env)
        assert tuple(first[key] for key in keys) == reset
        is_last_phase = reset[2] == 2
        was_over = reset[5]
        assert tuple(last[key] for key in keys) == (*reset[:4], not was_over, is_last_phase, reset[6])


def test_stays_on_the_last_task_and_says_so_once(make_sequence: MakeSequence, easy: Options, hard: Options) -> None:
    env = make_sequence({"a": easy, "b": hard}, cycles=1, steps_per_task=20)
    said = play(env, 40)
    assert [i for i, (_, _, boundary) in enumerate(said) if boundary] == [9, 19]
    assert {(task, phase) for task, phase, _ in said[10:]} == {("b", 1)}
    assert env.reset()[1]["sequence_over"]


def test_rotate_plays_the_next_task_at_every_episode(make_sequence: MakeSequence, easy: Options) -> None:
    env = make_sequence({"a": easy, "b": easy, "c": easy}, cycles=1, rotate=True, mastery_window=1, steps_per_task=1)
    assert play(env, 7) == [(task, 0, False) for task in "abcabca"]
    assert not env.sequence_over


def rollout(env: TaskSequence, seed: int, n_episodes: int = 6) -> np.ndarray:
    observations = [env.reset(seed=seed)[0]]
    for episode in range(n_episodes):
        if episode > 0:
            observations.append(env.reset()[0])
        over = False
        while not over:
            observation, _, terminated, truncated, _ = env.step(ACTION)
            observations.append(observation)
            over = terminated or truncated
    return np.array(observations)


@pytest.mark.parametrize("check_spaces", [True, False])  # all tasks are made at once, or each when it is played
def test_seeds(make_sequence: MakeSequence, hard: Options, check_spaces: bool) -> None:
    def new() -> TaskSequence:
        return make_sequence({"a": hard, "b": hard}, steps_per_task=4, check_spaces=check_spaces)

    first, again, other = rollout(new(), 5), rollout(new(), 5), rollout(new(), 6)
    assert set(first[:, 0]) == {1, 2}  # both tasks were played
    np.testing.assert_array_equal(first, again)
    for marker in (1, 2):
        assert not (first[first[:, 0] == marker, 2] == other[other[:, 0] == marker, 2]).any()
    # The tasks of one sequence do not share their random numbers
    assert not set(first[first[:, 0] == 1, 2]) & set(first[first[:, 0] == 2, 2])
    # Nor does an episode repeat the one before
    assert len(set(first[:, 2])) == len(first)


def test_boundary_through_auto_reset(make_sequence: MakeSequence, hard: Options) -> None:
    """The infos are still the old task's, the observation and the reset's infos already the new one's."""
    env = DummyVecEnv([lambda: make_sequence({"a": hard, "b": hard}, steps_per_task=4)])
    env.seed(0)
    assert env.reset()[0, 0] == 1
    for step in range(1, 5):
        observations, _, dones, infos = env.step(np.zeros((1, 1)))
        assert (infos[0]["task"], infos[0]["phase"]) == ("a", 0)
        assert infos[0]["boundary"] == (step == 4)
        assert dones[0] == (step in (2, 4))
        assert observations[0, 0] == (2 if step == 4 else 1)
    assert infos[0]["terminal_observation"][:2].tolist() == [1, 2]
    reset_info = env.reset_infos[0]
    assert (reset_info["task"], reset_info["phase"], reset_info["boundary"]) == ("b", 1, False)
    assert env.env_method("get_progress")[0]["phase"] == 1
    *_, infos = env.step(np.zeros((1, 1)))
    assert (infos[0]["task"], infos[0]["phase"]) == ("b", 1)


def test_render_and_close_reach_the_tasks(make_sequence: MakeSequence, hard: Options) -> None:
    env = make_sequence({"a": hard, "b": hard}, steps_per_task=2, render_mode="rgb_array")
    assert env.render() == "picture of 1.0"
    play(env, 2)
    assert env.render() == "picture of 2.0"
    made = list(env._envs.values())
    assert [task.render_mode for task in made] == ["rgb_array"] * 2
    env.close()
    assert [task.closed for task in made] == [True, True]


def test_videos_have_the_speed_of_the_current_task(make_sequence: MakeSequence, hard: Options) -> None:
    env = make_sequence({"a": hard, "b": hard, "c": hard}, steps_per_task=2)
    seen = env.metadata
    assert "render_fps" not in seen
    for name, fps in (("a", 20), ("b", 80)):
        env._envs[name].metadata = {"render_fps": fps}
    assert [(play(env, 1)[0][0], seen.get("render_fps")) for _ in range(4)] == [("a", 20), ("b", 80), ("c", None), ("a", 20)]
    assert gymnasium_cycle(["Pendulum-v1"]).metadata["render_fps"] == 30
    assert gymnasium_cycle(["CartPole-v1"]).metadata["render_fps"] == 50
