"""GymCycle-v0: a sequence of any environments."""

from typing import Any

import numpy as np
import pytest

from sb3_nbsp.tasks import gymnasium_cycle
from sb3_nbsp.tasks.sequence import _in_order


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


def test_a_task_has_the_same_name_in_whatever_order_its_arguments_are() -> None:
    """As they are after a round trip through the zoo's YAML file."""
    names = set()
    for own in ({"g": 2.0, "max_episode_steps": 7}, {"max_episode_steps": 7, "g": 2.0}):
        names |= set(gymnasium_cycle([("Pendulum-v1", own)], cycles=1).tasks)
    assert names == {"Pendulum-v1 (g=2.0, max_episode_steps=7)"}
    assert _in_order({"b": [{"d": 1, "c": (2,)}], "a": 3}) == {"a": 3, "b": [{"c": (2,), "d": 1}]}
    assert repr(_in_order({"b": [{"d": 1, "c": (2,)}], "a": 3})) == "{'a': 3, 'b': [{'c': (2,), 'd': 1}]}"


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
