"""Which environments are task sequences of this package, or change with their steps, and which only use the same words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecMonitor, VecNormalize

from sb3_nbsp import NBSPSAC, P3O, ContinualSAC
from sb3_nbsp.tasks import SequenceEvaluation, TaskSequence
from sb3_nbsp.tasks.recognize import ages, has_phases


class Plain(gym.Env):
    """An environment with words of its own in its infos."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, words: dict[str, Any] | None = None, render_mode: str | None = None) -> None:
        self.words, self.render_mode = words or {}, render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(3, np.float32), dict(self.words)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return np.zeros(3, np.float32), 0.0, False, self.t == 10, dict(self.words)


class SameWords(Plain):
    """Every public name of a sequence and of Cycle Friction, for other things."""

    phase, task, tasks, cycles, task_names, n_phases = 0.3, {"a": 1}, 7, "x", None, []
    sequence_over, steps_per_task, task_makers, elapsed_steps = True, 10, None, "a week"

    def get_progress(self, car: int) -> float:
        return 0.5

    set_progress = next_phase = restart = set_elapsed_steps = get_progress


class Simulator(VecEnv):
    """Steps two environments at once; what it answers to an unknown word, and what ``unwrapped`` is, is its own affair."""

    def __init__(self, answer: Callable[[str], Any]) -> None:
        self.answer = answer
        super().__init__(2, Plain.observation_space, Plain.action_space)

    @property
    def unwrapped(self) -> Any:
        return object()

    def reset(self) -> np.ndarray:
        self.t = 0
        return np.zeros((2, 3), np.float32)

    def step_async(self, actions: np.ndarray) -> None:
        self.t += 1

    def step_wait(self) -> Any:
        done = self.t % 10 == 0
        infos = [{"terminal_observation": np.zeros(3, np.float32)} if done else {} for _ in range(2)]
        return np.zeros((2, 3), np.float32), np.zeros(2, np.float32), np.full(2, done), infos

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None, None] if attr_name == "render_mode" else self.answer(attr_name)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False, False]

    def close(self) -> None: ...

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, **kwargs: Any) -> list[Any]:
        raise NotImplementedError


def refuse(error: type[Exception]) -> Callable[[str], Any]:
    def answer(word: str) -> Any:
        raise error(word)

    return answer


SIMULATORS: dict[str, Callable[[str], Any]] = {
    "None": lambda _word: [None, None],
    "nothing": lambda _word: None,
    "1": lambda _word: [1, 1],
    "AttributeError": refuse(AttributeError),
    "NotImplementedError": refuse(NotImplementedError),
    "KeyError": refuse(KeyError),
}


@pytest.mark.parametrize(
    "words",
    [
        {"phase": 0.3},
        {"boundary": True},
        {"phase": 1, "boundary": False, "task": "x"},
        {"success": np.zeros(2)},
        {"success": {"left arm": True}},
        {"success": "yes"},
        {"success": None, "is_success": None},
    ],
)
@pytest.mark.parametrize("cls", [NBSPSAC, P3O])
def test_words_in_infos_make_no_sequence(cls: Any, words: dict[str, Any]) -> None:
    options = {"n_steps": 16, "batch_size": 16} if cls is P3O else {"learning_starts": 10, "batch_size": 8}
    agent = cls("MlpPolicy", Plain(words), policy_kwargs={"net_arch": [8]}, device="cpu", **options)
    agent.learn(32)
    assert agent.num_timesteps == 32 and agent.phase.index == 0 and agent._n_updates > 0


@pytest.mark.parametrize("cls", [NBSPSAC, P3O])
def test_names_of_attributes_make_no_sequence(tmp_path: Path, cls: Any) -> None:
    options = {"n_steps": 16, "batch_size": 16} if cls is P3O else {"learning_starts": 10, "batch_size": 8}
    agent = cls("MlpPolicy", SameWords(), policy_kwargs={"net_arch": [8]}, device="cpu", **options)
    agent.learn(32)
    agent.save(tmp_path / "model")
    loaded = cls.load(tmp_path / "model", env=SameWords())
    loaded.learn(16, reset_num_timesteps=False)
    assert loaded.num_timesteps == 48
    with pytest.raises(ValueError, match="needs a task sequence"):
        PPO("MlpPolicy", SameWords(), n_steps=16, device="cpu").learn(16, callback=SequenceEvaluation())


@pytest.mark.parametrize("answer", SIMULATORS)
@pytest.mark.parametrize("cls", [ContinualSAC, P3O])
def test_agents_learn_on_simulators(cls: Any, answer: str) -> None:
    options = {"n_steps": 16, "batch_size": 16} if cls is P3O else {"learning_starts": 10, "batch_size": 8}
    agent = cls("MlpPolicy", Simulator(SIMULATORS[answer]), policy_kwargs={"net_arch": [8]}, device="cpu", **options)
    agent.learn(64)
    agent.learn(32, reset_num_timesteps=False)
    assert agent.num_timesteps == 96 and agent._n_updates > 0


def sequence(**options: Any) -> TaskSequence:
    return TaskSequence({"a": Plain, "b": SameWords}, **options)


def test_sequences_are_known_through_every_wrapper() -> None:
    env = DummyVecEnv([sequence, lambda: gym.wrappers.RecordEpisodeStatistics(gym.wrappers.TimeLimit(sequence(), 5))])
    for wrapped in (env, VecNormalize(VecMonitor(env)), VecFrameStack(env, 2)):
        assert has_phases(wrapped) and not ages(wrapped)
    assert not has_phases(DummyVecEnv([lambda: sequence(rotate=True)]))  # without phases
    assert not has_phases(DummyVecEnv([sequence, Plain]))
    assert not has_phases(None)


def test_environments_that_age_are_known() -> None:
    env = DummyVecEnv([lambda: gym.make("CycleFriction-Hopper-v5")])
    assert ages(env) and ages(VecNormalize(env)) and not has_phases(env)
    assert not ages(DummyVecEnv([SameWords]))
