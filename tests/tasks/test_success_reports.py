"""Tasks that report success only where it happens, and tasks that own the dictionary that they report it in."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_nbsp import ContinualPPO
from sb3_nbsp.tasks import SequenceEvaluation, SuccessMatrix, TaskSequence
from sb3_nbsp.tasks.episode_log import read_rows
from sb3_nbsp.tasks.policy_evaluation import evaluate_task
from sb3_nbsp.tasks.reports import step_success


class Rare(gym.Env):
    """
    Every tenth episode of two steps is a success, at its first step.

    :param first: number of the first success, from 0
    :param reports: "always", at the "last" step, or only "successes"
    :param own: hand out one dictionary again and again
    """

    observation_space, action_space = gym.spaces.Box(-1, 1, (1,), np.float32), gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, reports: str, first: int = 9, own: bool = False, key: str = "success", render_mode: Any = None) -> None:
        self.reports, self.own, self.key, self.info = reports, own, key, {}
        self.episode, self.t = -1 - first, 2

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.episode += self.t > 0
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        lucky = self.episode >= 0 and self.episode % 10 == 0
        success = lucky and self.t == 1
        self.info = self.info if self.own else {}
        self.info.pop(self.key, None)
        if self.reports == "always" or (self.t == 2 if self.reports == "last" else success):
            self.info[self.key] = lucky if self.reports == "last" else success
        return np.zeros(1, np.float32), 5.0, self.t == 2, False, self.info


def make(**options: Any) -> Callable[..., Rare]:
    return lambda render_mode: Rare(**options)


def play(env: gym.Env, n_episodes: int) -> list[dict]:
    """The last info of every episode."""
    infos = []
    for _ in range(n_episodes):
        env.reset()
        env.step(np.zeros(1))
        infos.append(env.step(np.zeros(1))[4])
    return infos


@pytest.mark.parametrize("key", ["success", "is_success"])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("reports", ["always", "last", "successes"])
def test_a_task_of_ten_percent_is_not_mastered_however_it_reports(reports: str, own: bool, key: str) -> None:
    env = TaskSequence({"a": make(reports=reports, own=own, key=key)}, mastery_threshold=0.3, mastery_window=5)
    infos = play(env, 40)
    assert env.phase == 0
    assert [info["is_success"] for info in infos[9:39]] == ([True] + [False] * 9) * 3
    # Before its first report, nothing is known of a task that reports successes only
    assert [info.get("is_success") for info in infos[:9]] == [None if reports == "successes" else False] * 9


def test_a_continued_sequence_knows_which_tasks_report_success() -> None:
    env, continued = (TaskSequence({"a": make(reports="successes", own=True, key="success")}) for _ in range(2))
    assert play(env, 15)[-1]["is_success"] is False
    continued.set_progress(json.loads(json.dumps(env.get_progress())))
    assert play(continued, 1)[0]["is_success"] is False


@pytest.mark.parametrize("report", [math.nan, np.float32("nan"), None])
def test_what_is_no_number_is_no_report(report: Any) -> None:
    assert step_success({"success": report}) is None
    assert step_success({"success": report, "is_success": True}) is True


@pytest.mark.parametrize("report", [1, 1.0, True, np.bool_(True), np.ones(1)])
def test_numbers_and_arrays_of_one_are_reports(report: Any) -> None:
    assert step_success({"success": report}) is True and step_success({"success": report * 0}) is False


@pytest.mark.parametrize("report", ["False", "0", {"arm": False}, [True, False], np.zeros(2), th.zeros(2), object()])
def test_what_is_not_one_number_is_no_report_of_success(report: Any) -> None:
    with pytest.raises(ValueError, match=r"info\['is_success'\] must be true or false, not "):
        step_success({"is_success": report})


def test_a_sequence_says_what_its_task_says_of_a_step() -> None:
    own = Rare("always", own=True, key="is_success")
    env = TaskSequence({"a": lambda render_mode: own})
    env.reset()
    own.info["success"] = math.nan
    _, _, _, _, info = env.step(np.zeros(1))
    assert info["success"] is False and info["is_success"] is False


def test_the_dictionary_of_a_task_is_left_alone() -> None:
    own = Rare("always", own=True, key="is_success")
    env = TaskSequence({"a": lambda render_mode: own})
    env.reset()
    _, _, _, _, info = env.step(np.zeros(1))
    assert own.info == {"is_success": False}
    own.info["is_success"] = True
    assert not info["is_success"]
    assert info["success"] is False


def test_an_evaluation_counts_episodes_without_a_report_as_failures() -> None:
    class Still:
        def predict(
            self, observation: np.ndarray, state: Any, episode_start: Any, deterministic: bool
        ) -> tuple[np.ndarray, None]:
            return np.zeros((1, 1)), None

        def get_vec_normalize_env(self) -> None:
            return None

    def evaluate(n_episodes: int, **known: bool) -> tuple[float, str]:
        env = DummyVecEnv([lambda: Monitor(Rare("successes", first=8))])
        return evaluate_task(Still(), env, n_episodes, seed=0, **known)[:2]

    assert evaluate(20) == (0.1, "success")
    assert evaluate(5) == (10.0, "return")
    assert evaluate(5, reports_success=True) == (0.0, "success")


def learn(folder: Path | None, n_steps: int, callback: BaseCallback | None = None, n_envs: int = 1) -> SequenceEvaluation:
    # b succeeds in its 16th, 26th, ... episode; an evaluation of four episodes does not get there
    makers = {"a": make(reports="successes", first=0), "b": make(reports="successes", first=15)}
    env = DummyVecEnv([lambda: TaskSequence(makers, cycles=1, steps_per_task=40)] * n_envs)
    evaluation = SequenceEvaluation(folder, n_eval_episodes=4, progress_bar=False, log_path=folder)
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=8, n_epochs=1, policy_kwargs={"net_arch": [4]}, device="cpu")
    model.learn(n_steps, [evaluation] if callback is None else [evaluation, callback])
    return evaluation


def test_what_had_no_report_was_no_success(tmp_path: Path) -> None:
    before = {}

    class LookBeforeTheFirstReport(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == 60:
                before["rows"] = SuccessMatrix.load(tmp_path / "success_matrix.csv").rows
                before["success"] = [row[3] for row in read_rows(tmp_path / "training.csv")]
            return True

    with pytest.warns(UserWarning, match="do not report success"):
        evaluation = learn(tmp_path, 100, LookBeforeTheFirstReport())
    assert before["rows"] == [[0.25, 10.0]]
    assert before["success"] == (["True"] + ["False"] * 9) * 2 + [""] * 10
    assert evaluation.matrix is not None
    assert evaluation.matrix == SuccessMatrix.load(tmp_path / "success_matrix.csv")
    assert evaluation.matrix.rows == [[0.25, 0.0], [0.0, 0.0]]
    assert np.load(tmp_path / "evaluations.npz")["results"].tolist() == evaluation.matrix.rows
    assert [row[3] for row in read_rows(tmp_path / "training.csv")][20:] == ["False"] * 15 + ["True"] + ["False"] * 4


@pytest.mark.filterwarnings("ignore:.*do not report success")
def test_parallel_environments_share_what_is_known_of_a_task() -> None:
    class Successes(BaseCallback):
        def _on_step(self) -> bool:
            said.append([info.get("is_success") for info in self.locals["infos"]])
            return True

    said: list[list[bool | None]] = []
    learn(None, 20, Successes(), n_envs=2)
    assert all(None not in each for each in said)


class Game(Rare):
    """A game of some steps, whose lives are episodes of three steps."""

    def __init__(self, n_steps: int, render_mode: Any = None) -> None:
        super().__init__("successes")
        self.n_steps, self.played = n_steps, 0

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.played = self.played % self.n_steps + 1
        is_over = self.played == self.n_steps
        game = {"game": {"r": 7.0, "l": 4 * self.n_steps}} if is_over else {}
        lost = self.played % 3 == 0 and not is_over
        return np.zeros(1, np.float32), 1.0, lost or is_over, False, {"life_lost": lost, **game}


@pytest.mark.filterwarnings("ignore:.*do not report success")
def test_a_game_that_is_cut_off_is_no_line_in_the_log(tmp_path: Path) -> None:
    """Of two environments, the one with the longer games has to leave the phase in the midst of a game."""

    def sequence(n_steps: int) -> TaskSequence:
        return TaskSequence(
            {"a": lambda render_mode: Game(n_steps), "b": lambda render_mode: Game(n_steps)}, cycles=1, steps_per_task=6
        )

    env = DummyVecEnv([lambda: Monitor(sequence(6)), lambda: Monitor(sequence(9))])
    model = ContinualPPO("MlpPolicy", env, n_steps=8, batch_size=8, n_epochs=1, policy_kwargs={"net_arch": [4]}, device="cpu")
    model.learn(200, SequenceEvaluation(tmp_path, n_eval_episodes=1, progress_bar=False))
    assert [row[2:] for row in read_rows(tmp_path / "training.csv")] == [["a", "", "7.0", "24"], ["b", "", "7.0", "24"]]
