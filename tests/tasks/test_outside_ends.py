"""Episodes that end by something around the sequence: a reset that the sequence did not ask for."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_nbsp.tasks import SequenceEvaluation, TaskSequence

MakeSequence = Callable[..., TaskSequence]
Options = dict[str, Any]
ACTION = np.zeros(1, np.float32)


class DoneOnSuccess(gym.Wrapper):
    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or bool(info["success"]), truncated, info


def play(env: gym.Env, n_episodes: int) -> list[tuple[str, int, int]]:
    """(task, phase, steps) of every episode."""
    said = []
    for _ in range(n_episodes):
        _, info = env.reset()
        over, steps = False, 0
        while not over:
            _, _, terminated, truncated, _ = env.step(ACTION)
            over, steps = terminated or truncated, steps + 1
        said.append((info["task"], info["phase"], steps))
    return said


def test_a_time_limit_around_the_sequence_ends_episodes_and_phases(make_sequence: MakeSequence, hard: Options) -> None:
    env = TimeLimit(make_sequence({"a": {**hard, "horizon": 9}, "b": {**hard, "horizon": 9}}, steps_per_task=7), 4)
    said = play(env, 9)
    assert [phase for _, phase, _ in said] == [0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert {steps for _, _, steps in said} == {4}
    assert env.reset()[1]["sequence_over"]


def test_done_on_success_around_the_sequence_masters_tasks(make_sequence: MakeSequence) -> None:
    task = {"success": lambda episode, step: step == 3, "horizon": 9}
    env = DoneOnSuccess(make_sequence({"a": task, "b": task}, mastery_window=2))
    assert play(env, 5) == [("a", 0, 3), ("a", 0, 3), ("b", 1, 3), ("b", 1, 3), ("a", 2, 3)]


def test_a_failure_that_is_cut_off_counts_too(make_sequence: MakeSequence) -> None:
    # Successes come at the third step, which every other episode does not reach
    task = {"success": lambda episode, step: step == 3, "horizon": 3}
    env = make_sequence({"a": task}, mastery_window=2, mastery_threshold=1.0)
    for _ in range(4):
        for steps in (3, 2):
            env.reset()
            for _ in range(steps):
                _, _, _, _, info = env.step(ACTION)
            assert not info["boundary"]
    env.reset()
    assert env.get_progress()["successes"] == [True, False]


def test_rotation_goes_on_when_episodes_are_cut_off(make_sequence: MakeSequence, hard: Options) -> None:
    env = TimeLimit(make_sequence({"a": {**hard, "horizon": 9}, "b": {**hard, "horizon": 9}}, rotate=True), 4)
    assert [task for task, _, _ in play(env, 5)] == ["a", "b", "a", "b", "a"]


def test_a_reset_without_a_step_ends_no_episode(make_sequence: MakeSequence, easy: Options) -> None:
    env = make_sequence({"a": easy}, mastery_window=1)
    for _ in range(3):
        env.reset()
    assert env.get_progress()["successes"] == []
    assert env.phase == 0


def agent(env: gym.Env | DummyVecEnv) -> PPO:
    return PPO("MlpPolicy", env, n_steps=4, batch_size=4, n_epochs=1, policy_kwargs={"net_arch": [4]}, device="cpu")


@pytest.mark.filterwarnings("error:.*nan")
def test_every_phase_is_evaluated_under_a_time_limit(make_sequence: MakeSequence, easy: Options, hard: Options) -> None:
    env = make_sequence({"a": {**easy, "horizon": 9}, "b": {**hard, "horizon": 9}}, mastery_window=2, steps_per_task=8)
    evaluation = SequenceEvaluation(n_eval_episodes=1, progress_bar=False)
    model = agent(TimeLimit(env, 4)).learn(200, evaluation)
    assert evaluation.matrix is not None
    assert evaluation.matrix.phase_tasks == ["a", "b", "a", "b"]
    assert evaluation.matrix.rows == [[1, 0]] * 4
    assert model.num_timesteps == 33  # it is over after 32


@pytest.mark.filterwarnings("error:.*nan")
def test_phases_end_in_calls_of_learn_shorter_than_an_episode(
    make_sequence: MakeSequence, easy: Options, hard: Options
) -> None:
    env = make_sequence({"a": {**easy, "horizon": 9}, "b": {**hard, "horizon": 9}}, mastery_window=2, steps_per_task=8)
    evaluation = SequenceEvaluation(n_eval_episodes=1, progress_bar=False)
    model = agent(env)
    for _ in range(10):
        model.learn(4, evaluation)  # each resets the environment
    assert evaluation.matrix is not None
    assert evaluation.matrix.phase_tasks == ["a", "b", "a", "b"]
    assert evaluation.matrix.rows == [[1, 0]] * 4
