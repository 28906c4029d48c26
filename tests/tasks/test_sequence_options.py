"""What makes a sequence, and what makes none."""

from typing import Any

import gymnasium as gym
import pytest
from playing import MakeSequence, Options, play

from sb3_nbsp.tasks import TaskSequence


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


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("MW-CW10-v0", {"horizons": 5}, "no option 'horizons'; did you mean horizon"),
        ("HalfCheetah-Directions-v0", {"step_per_task": 5}, "no option 'step_per_task'; did you mean steps_per_task"),
        ("GymCycle-v0", {"env_ids": ["Pendulum-v1"], "cycle": 1}, "no option 'cycle'; did you mean cycles"),
        ("GymCycle-v0", {"env_ids": ["Pendulum-v1"], "tasks": ["a"]}, "no option 'tasks'"),
        ("AtariCycle-v0", {"steps_per_tasks": 5}, "no option 'steps_per_tasks'; did you mean steps_per_task"),
        ("MinAtarCycle-v0", {"frame_skip": 4}, r"no option 'frame_skip' \(options: tasks, sticky_actions, "),
    ],
)
def test_unknown_options(env_id: str, options: Options, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        gym.make(env_id, **options)


@pytest.mark.parametrize("env_id", ["MW-Cycle-v0", "AtariCycle-v0", "MinAtarCycle-v0", "HalfCheetah-Directions-v0"])
@pytest.mark.parametrize("tasks", [5, "push", (name for name in ["push"])])
def test_tasks_that_are_no_list(env_id: str, tasks: Any) -> None:
    with pytest.raises(ValueError, match=f"tasks must be a list of task names, not {tasks!r}"):
        gym.make(env_id, tasks=tasks)


def test_a_task_of_metaworld_that_is_no_text() -> None:
    with pytest.raises(ValueError, match="Meta-World has no task 'None'"):
        gym.make("MW-Cycle-v0", tasks=[None])


def test_an_option_that_metaworld_sets_can_be_given() -> None:
    env = gym.make("MW-Cycle-v0", tasks=["push"], check_spaces=True)
    assert isinstance(env.unwrapped, TaskSequence)


def test_env_ids_that_are_no_list() -> None:
    with pytest.raises(ValueError, match="env_ids must be a list of at least one environment id, not 5"):
        gym.make("GymCycle-v0", env_ids=5)
    with pytest.raises(ValueError, match=r"env_ids must be a list of at least one environment id, not \[\]"):
        gym.make("GymCycle-v0", env_ids=[])
