"""When a sequence moves on, and what it says."""

import json
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_nbsp.tasks import TaskSequence, gymnasium_cycle

MakeSequence = Callable[..., TaskSequence]
Options = dict[str, Any]
ACTION = np.zeros(1, np.float32)


def play_episode(env: TaskSequence, action: np.ndarray = ACTION) -> list[dict]:
    """One episode, without the reset: the infos of its steps."""
    infos = []
    over = False
    while not over:
        _, _, terminated, truncated, info = env.step(action)
        infos.append(info)
        over = terminated or truncated
    return infos


def play(env: TaskSequence, n_episodes: int) -> list[tuple[str, int, bool]]:
    """Whole episodes: (task, phase, boundary) of the last step of each."""
    said = []
    for _ in range(n_episodes):
        env.reset()
        *before, last = play_episode(env)
        assert not any(info["boundary"] for info in before)
        said.append((last["task"], last["phase"], last["boundary"]))
    return said


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


def test_next_phase_cuts_the_episode_at_the_next_step(make_sequence: MakeSequence, easy: Options) -> None:
    env = make_sequence({"a": {**easy, "horizon": 100}, "b": easy}, cycles=1, mastery_window=1)
    env.reset()
    env.step(ACTION)
    env.next_phase()
    _, _, terminated, truncated, info = env.step(ACTION)
    assert (terminated, truncated) == (False, True)
    assert (info["task"], info["phase"], info["boundary"], info["sequence_over"]) == ("a", 0, True, False)
    assert env.reset()[1]["phase"] == 1
    _, _, _, truncated, info = env.step(ACTION)  # the next episode is whole again
    assert (truncated, info["boundary"]) == (False, False)


def test_next_phase_in_the_last_phase(make_sequence: MakeSequence, hard: Options) -> None:
    env = make_sequence({"a": {**hard, "horizon": 5}}, cycles=1)
    env.reset()
    env.next_phase()
    _, _, _, truncated, info = env.step(ACTION)
    assert (truncated, info["boundary"], info["sequence_over"]) == (True, True, True)
    env.reset()
    infos = play_episode(env)  # from now on episodes are whole
    assert len(infos) == 5
    assert not any(info["boundary"] for info in infos)


@pytest.mark.parametrize("finished", [0, 3, 6, 7, 16, 20])
def test_progress_continues_in_another_sequence(make_sequence: MakeSequence, finished: int) -> None:
    """Also through JSON, in the middle of a phase, at its boundary, and after the sequence's end."""
    # a is mastered after 4 episodes (12 steps); b never is, and has had its 13 steps after 7 episodes of 2
    tasks = {
        "a": {"success": lambda episode, step: True, "horizon": 3},
        "b": {"success": lambda *_: False},
    }
    options = {"mastery_window": 4, "steps_per_task": 13, "cycles": 2}
    whole, first, second = (make_sequence(tasks, **options) for _ in range(3))
    uncut = play(whole, 30)
    assert [i for i, (_, _, boundary) in enumerate(uncut) if boundary] == [3, 10, 14, 21]
    said = play(first, finished)
    second.set_progress(json.loads(json.dumps(first.get_progress())))
    assert said + play(second, 30 - finished) == uncut
    assert second.get_progress() == whole.get_progress()


def test_progress_at_a_boundary_is_the_next_phase(make_sequence: MakeSequence, easy: Options) -> None:
    env = make_sequence({"a": easy, "b": easy}, mastery_window=2)
    play(env, 1)
    env.reset()
    assert env.get_progress() == {
        "tasks": ["a", "b"],
        "cycles": 2,
        "phase": 0,
        "phase_steps": 2,
        "successes": [True],
        "sequence_over": False,
        "report_success": ["a"],
    }
    play_episode(env)
    at_boundary = env.get_progress()
    assert (at_boundary["phase"], at_boundary["phase_steps"], at_boundary["successes"]) == (1, 0, [])
    env.reset()
    assert env.get_progress() == at_boundary


def test_restart(make_sequence: MakeSequence, easy: Options, hard: Options) -> None:
    options = {"cycles": 1, "mastery_window": 2, "steps_per_task": 6}
    env, new = (make_sequence({"a": easy, "b": hard}, **options) for _ in range(2))
    for finished in (1, 2, 3, 5, 7):  # in a phase, at a boundary, at the end, behind it
        play(env, finished)
        env.restart()
        # What is known of a task stays
        assert env.get_progress() == {**new.get_progress(), "report_success": env.report_success}
    assert play(env, 7) == play(new, 7)


def test_progress_of_other_tasks_is_ignored(make_sequence: MakeSequence, easy: Options) -> None:
    other = make_sequence({"a": easy, "c": easy}, mastery_window=1)
    play(other, 2)
    env = make_sequence({"a": easy, "b": easy})
    env.set_progress(other.get_progress())
    assert env.reset()[1]["phase"] == 0


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


def test_unequal_spaces(make_sequence: MakeSequence) -> None:
    unequal = {"a": {}, "b": {"size": 4}}
    message = r"equal spaces: the observation space of 'b' is .*\(4,\).*, that of 'a' is .*\(3,\)"
    with pytest.raises(ValueError, match=message):
        make_sequence(unequal)
    # At the latest when the task is played
    env = make_sequence(unequal, steps_per_task=2, check_spaces=False)
    assert play(env, 1) == [("a", 0, True)]
    with pytest.raises(ValueError, match=message):
        env.reset()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": []}, "tasks must name at least one task"),
        ({"tasks": ["a", "z"]}, r"\['z'\] are not among \['a', 'b'\]"),
        ({"cycles": 0}, "cycles must be a whole number of at least 1, not 0"),
        ({"cycles": 1.5}, "cycles must be a whole number"),
        ({"steps_per_task": 0}, "steps_per_task must be"),
        ({"steps_per_task": 1.5}, "steps_per_task must be a whole number"),
        ({"mastery_window": 0}, "mastery_window must be"),
        ({"mastery_threshold": 0}, r"mastery_threshold must be a number in \(0, 1\], not 0"),
        ({"mastery_threshold": 1.5}, "mastery_threshold must be .* not 1.5"),
        ({"mastery_threshold": -0.1}, "mastery_threshold"),
    ],
)
def test_options_out_of_range(make_sequence: MakeSequence, options: Options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_sequence({"a": {}, "b": {}}, **options)


def test_no_tasks() -> None:
    with pytest.raises(ValueError, match="at least one task"):
        TaskSequence({})


class Sized(gym.Env):
    def __init__(self, size: int, render_mode: str | None = None) -> None: ...


@pytest.mark.parametrize(
    ("makers", "message"),
    [
        ({"a": lambda: gym.make("Pendulum-v1")}, "what makes 'a' must be .* called with render_mode, and with nothing else: "),
        ({"a": Sized}, "what makes 'a' must be .* and with nothing else: missing a required argument: 'size'"),
        (
            {7: "Pendulum-v1"},
            "what makes '7' must be a function or a class that is called with render_mode, not 'Pendulum-v1'",
        ),
        ({"a": gym.make("Pendulum-v1")}, "what makes 'a' must be a function or a class .*, not <"),
        ({"a": lambda render_mode: None}, "what makes 'a' must return a gymnasium.Env, not None"),
        ([Sized], "task_makers must be a dictionary, by the tasks' names, not "),
    ],
)
def test_what_makes_no_environment(makers: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        TaskSequence(makers)


@pytest.mark.parametrize("make", [lambda **kwargs: gym.make("Pendulum-v1", **kwargs), gym.spec("Pendulum-v1").make])
def test_what_makes_one(make: Any) -> None:
    assert TaskSequence({"a": make}, render_mode="rgb_array")._env().render_mode == "rgb_array"


@pytest.mark.filterwarnings("ignore:.*out of date")
def test_gymnasium_cycle() -> None:
    env = gymnasium_cycle(["CartPole-v1", "CartPole-v0"], cycles=1, steps_per_task=1)
    _, info = env.reset(seed=0)
    assert (info["task"], info["n_phases"]) == ("CartPole-v1", 2)
    over = False
    while not over:
        _, _, terminated, truncated, info = env.step(0)
        over = terminated or truncated
    assert info["boundary"]
    assert "is_success" not in info
    observation, info = env.reset()
    assert (info["task"], info["phase"]) == ("CartPole-v0", 1)
    assert observation in env.observation_space
    assert [task.spec.id for task in env._envs.values()] == ["CartPole-v1", "CartPole-v0"]


def test_gymnasium_cycle_env_kwargs() -> None:
    env = gymnasium_cycle(["Pendulum-v1"], env_kwargs={"g": 2.5})
    assert env._env().unwrapped.g == 2.5


def test_gymnasium_cycle_with_arguments_of_each_task() -> None:
    earth, moon = ("Pendulum-v1", {"g": 9.8}), ("Pendulum-v1", {"g": 1.6})
    env = gymnasium_cycle([earth, moon, earth, "Pendulum-v1"], env_kwargs={"g": 2.5, "max_episode_steps": 7}, cycles=1)
    names = ["Pendulum-v1 (g=9.8)", "Pendulum-v1 (g=1.6)", "Pendulum-v1"]
    assert env.tasks == [names[0], names[1], names[0], names[2]] and env.task_names == names
    assert [env._env(name).unwrapped.g for name in names] == [9.8, 1.6, 2.5]
    assert all(env._env(name).spec.max_episode_steps == 7 for name in names)


@pytest.mark.filterwarnings("ignore:.*out of date")
def test_gymnasium_cycle_of_mujoco() -> None:
    pytest.importorskip("mujoco")
    env = gymnasium_cycle(["InvertedPendulum-v5", "InvertedPendulum-v4"], cycles=1, steps_per_task=1)
    env.reset(seed=0)
    for _ in range(300):
        observation, _, terminated, truncated, info = env.step(np.ones(1, np.float32))
        assert observation in env.observation_space
        if terminated or truncated:
            break
    assert info["boundary"]
    assert env.reset()[1]["task"] == "InvertedPendulum-v4"


@pytest.mark.parametrize(
    ("env_ids", "message"),
    [
        (["Pendulum-v1", "MountainCarContinuous-v0"], "observation space of 'MountainCarContinuous-v0'"),
        (["Pendulum-v1", "Acrobot-v1"], "'Acrobot-v1'"),
        ([], "env_ids must be a list"),
        ("Pendulum-v1", "env_ids must be a list"),
        ([("Pendulum-v1", 3)], r"env_ids: an entry must be .* not \('Pendulum-v1', 3\)"),
        ([("Pendulum-v1", {3: 1})], "env_ids: an entry must be"),
        ([3], "env_ids: an entry must be"),
    ],
)
def test_gymnasium_cycle_of_what_does_not_fit(env_ids: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gymnasium_cycle(env_ids)
