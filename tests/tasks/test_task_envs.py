"""What is wrapped around a whole sequence, and the environments of its single tasks."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import (
    FrameStackObservation,
    NormalizeObservation,
    RecordEpisodeStatistics,
    RescaleAction,
    TimeLimit,
    TransformObservation,
    TransformReward,
)
from scripted_tasks import ScriptedTask
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecCheckNan, VecFrameStack, VecMonitor, VecNormalize

from sb3_nbsp import NBSPSAC
from sb3_nbsp.interventions import GradientMasking
from sb3_nbsp.tasks import SequenceEvaluation, TaskSequence
from sb3_nbsp.tasks.task_envs import task_makers

MakeSequence = Callable[..., TaskSequence]
Options = dict[str, Any]


class TaskNumber(gym.ObservationWrapper):
    """Appends the number of the task, which only the sequence knows."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.observation_space = gym.spaces.Box(-1000, 1000, (4,))

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        observation, info = self.env.reset(**kwargs)
        self.number = info["task_index"]
        return self.observation(observation), info

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return np.append(observation, np.float32(self.number))


class Uncopied(gym.Wrapper):
    def __deepcopy__(self, memo: dict) -> None:
        raise TypeError("it holds a socket")


def single_task_episode(env: gym.Env, task: str) -> tuple[list[np.ndarray], list[dict]]:
    made = task_makers(DummyVecEnv([lambda: env]))[task]()
    observations, infos = [made.reset(seed=0)[0]], []
    over = False
    while not over:
        observation, reward, terminated, truncated, info = made.step(np.full(1, 0.5, np.float32))
        observations.append(observation)
        infos.append({**info, "reward": reward})
        over = terminated or truncated
    return observations, infos


def test_content_wrappers_are_around_the_single_tasks_too(make_sequence: MakeSequence, easy: Options) -> None:
    env: gym.Env = make_sequence({"a": easy, "b": {**easy, "horizon": 9}})
    env = TransformObservation(env, lambda seen: seen * 10, env.observation_space)
    env = TransformReward(RescaleAction(env, np.float32(-2), np.float32(2)), lambda reward: reward + 3)
    observations, infos = single_task_episode(Monitor(TimeLimit(env, 4)), "b")
    assert [seen[0] for seen in observations] == [20] * 5  # the marker 2, and episodes of 4 steps
    assert [info["reward"] for info in infos] == [3.25] * 4  # half of the action, and 3
    assert {info["task"] for info in infos} == {"b"}
    assert infos[-1]["episode"]["l"] == 4


def test_a_time_limit_outside_of_the_monitor_ends_episodes_of_the_evaluation(make_sequence: MakeSequence) -> None:
    # Without success, the matrix holds returns: 0.5 for each of four steps
    env = TransformReward(make_sequence({"a": {"horizon": 9}}, cycles=1, steps_per_task=8), lambda reward: 0.5)
    with pytest.warns(UserWarning, match="do not report success"):
        evaluation = learn(TimeLimit(Monitor(env), 4))
    assert evaluation.matrix is not None
    assert evaluation.matrix.rows == [[2.0]]


def test_wrappers_of_another_shape_are_around_the_single_tasks_too(make_sequence: MakeSequence, easy: Options) -> None:
    env = TaskNumber(make_sequence({"a": easy, "b": easy}))
    for number, task in enumerate("ab"):
        observations, _ = single_task_episode(FrameStackObservation(env, 2), task)
        assert {seen.shape for seen in observations} == {(2, 4)}
        assert observations[-1][-1, 3] == number


def test_what_a_wrapper_has_learned_so_far_is_used_and_left_alone(make_sequence: MakeSequence, easy: Options) -> None:
    env = NormalizeObservation(make_sequence({"a": easy}))
    env.obs_rms.mean, env.obs_rms.var, env.obs_rms.count = np.array([1.0, 0, 0]), np.array([1.0, 4, 1]), 1000
    make = task_makers(DummyVecEnv([lambda: env]))["a"]
    made = make()
    assert made is not make()
    np.testing.assert_allclose(made.reset()[0][:2], [0, 0], atol=1e-3)
    np.testing.assert_allclose(made.step(np.zeros(1))[0][:2], [0, 0.5], atol=1e-3)
    assert made.obs_rms.count == env.obs_rms.count == 1000


def learn(env: gym.Env | DummyVecEnv, n_steps: int = 60, **kwargs: Any) -> SequenceEvaluation:
    model = PPO("MlpPolicy", env, n_steps=4, batch_size=4, n_epochs=1, policy_kwargs={"net_arch": [4]}, device="cpu")
    evaluation = SequenceEvaluation(n_eval_episodes=2, progress_bar=False)
    try:
        model.learn(n_steps, evaluation)
    except ValueError:
        assert model.num_timesteps == 0, "it should complain before anything is lost"
        raise
    return evaluation


def test_the_success_matrix_is_of_what_the_agent_learns_in(make_sequence: MakeSequence) -> None:
    # A success needs an action above 1, which only the wrapper gives; the policy is replaced by its bias
    class Lifts(gym.ActionWrapper):
        def action(self, action: np.ndarray) -> np.ndarray:
            return action * 0 + 2

    class NeedsLift(ScriptedTask):
        def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
            self.success = lambda episode, step: bool(action[0] > 1)
            return super().step(action)

    makers = {name: lambda render_mode: NeedsLift() for name in "ab"}
    options = {"cycles": 1, "mastery_threshold": None, "steps_per_task": 8}
    evaluation = learn(Lifts(TaskSequence(makers, **options)))
    assert evaluation.matrix is not None
    assert evaluation.matrix.rows == [[1, 1], [1, 1]]


def test_wrappers_of_another_shape_reach_evaluation_and_identification(make_sequence: MakeSequence) -> None:
    env = TaskNumber(make_sequence({"a": {"success": "sign"}, "b": {"success": "sign"}}, cycles=1, steps_per_task=20))
    options = {"learning_starts": 4, "batch_size": 4, "policy_kwargs": {"net_arch": [8]}, "device": "cpu", "seed": 0}
    model = NBSPSAC("MlpPolicy", env, identification_steps=20, identification_data="fresh", **options)
    evaluation = SequenceEvaluation(n_eval_episodes=1, progress_bar=False)
    model.learn(60, evaluation)
    assert evaluation.matrix is not None
    assert len(evaluation.matrix.rows) == 2
    assert set(model.all_interventions.find(GradientMasking).skill_neurons) == {"a", "b"}


@pytest.mark.parametrize("wrap", [partial(VecFrameStack, n_stack=2), lambda env: VecNormalize(VecNormalize(env))])
def test_vectorized_wrappers_that_cannot_be_rebuilt_are_refused_at_the_start(
    make_sequence: MakeSequence, easy: Options, wrap: Callable[[DummyVecEnv], DummyVecEnv]
) -> None:
    with pytest.raises(ValueError, match=r"cannot be rebuilt for its single tasks\. Wrappers belong around the tasks"):
        learn(wrap(DummyVecEnv([lambda: make_sequence({"a": easy})])))


def test_wrappers_that_cannot_be_copied_are_refused_at_the_start(make_sequence: MakeSequence, easy: Options) -> None:
    with pytest.raises(ValueError, match=r"Uncopied around the whole sequence cannot be copied .*holds a socket"):
        learn(Uncopied(make_sequence({"a": easy})))


def test_wrappers_that_the_agent_does_not_notice_are_left_out(make_sequence: MakeSequence, easy: Options) -> None:
    env = DummyVecEnv([lambda: RecordEpisodeStatistics(make_sequence({"a": easy, "b": easy}, mastery_window=2))])
    evaluation = learn(VecNormalize(VecMonitor(VecCheckNan(env))))
    assert evaluation.matrix is not None
    assert len(evaluation.matrix.rows) == 4
    assert type(task_makers(env)["a"]()) is ScriptedTask


def closures(wrap: Callable[[gym.Env], gym.Env] = lambda env: env, extra: Any = None) -> Callable[[], gym.Env]:
    def make() -> gym.Env:
        def task(render_mode: str | None) -> gym.Env:
            return ScriptedTask(success=lambda episode, step: extra is None)

        return wrap(TaskSequence({"a": task, "b": task}, cycles=1, mastery_window=2))

    return make


def test_tasks_made_by_closures_are_evaluated_outside_of_their_processes() -> None:
    env = SubprocVecEnv([closures()], start_method="fork")
    try:
        evaluation = learn(env)
    finally:
        env.close()
    assert evaluation.matrix is not None
    assert evaluation.matrix.rows == [[1, 1], [1, 1]]


class Unpickled:
    def __reduce__(self) -> str:
        raise TypeError("it holds a window")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"extra": Unpickled()}, r"cannot leave the process .*TypeError: it holds a window"),
        ({"wrap": TaskNumber}, r"TaskNumber around the whole sequence cannot be rebuilt .* in another process"),
    ],
)
def test_what_cannot_leave_its_process_is_refused_at_the_start(options: Options, message: str) -> None:
    # By fork, a process has what cannot be sent to it
    made = closures(**options)() if "extra" in options else None
    env = SubprocVecEnv([(lambda: made) if made is not None else closures(**options)], start_method="fork")
    try:
        with pytest.raises(ValueError, match=message):
            learn(env)
        assert env.get_attr("phase") == [0]  # its process is alive
    finally:
        env.close()
