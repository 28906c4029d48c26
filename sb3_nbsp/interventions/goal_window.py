"""The last steps of training, with how well the agent did at each: the window that NBSP identifies skill neurons on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_nbsp.tasks.boundaries import CUT_OFF
from sb3_nbsp.tasks.reports import as_number

GoalMetric = (
    Literal["auto", "step_success", "episode_success", "episode_return"] | Callable[[float, bool, dict[str, Any]], float]
)
GOAL_METRICS = ("auto", "step_success", "episode_success", "episode_return")


# A success that fewer of the steps report is not that of the step
NEARLY_ALL = 0.9


def step_success(info: dict[str, Any], of_sequence: bool = False) -> float | None:
    """
    :param info: what the environment says of a step
    :param of_sequence: it is a task sequence, which repeats what its task says of the step as "success"; its own
        "is_success" is the episode's
    :return: 1 if the step is a success, 0 if it is not, None if the environment does not say, or uses the words for something
        else
    """
    numbers = (_number(info.get(name)) for name in (("success",) if of_sequence else ("success", "is_success")))
    return next((number for number in numbers if number is not None), None)


def _number(report: Any) -> float | None:
    try:
        return as_number(report)
    except TypeError:
        return None


class GoalWindow:
    """
    Goal metric of the last steps, per environment, aligned with the end of a replay buffer, which holds
    the observations and actions: a step costs a few numbers only.

    :param n_steps: T, steps to remember over all environments
    :param n_envs: number of parallel environments
    :param custom: the user's metric of a step from (reward, done, info)
    """

    def __init__(
        self, n_steps: int, n_envs: int, custom: Callable[[float, bool, dict[str, Any]], float] | None = None
    ) -> None:
        self.n_rows = -(-n_steps // n_envs)
        self.n_envs = n_envs
        self.custom = custom
        self.of_sequence = False  # whether the steps are those of a task sequence, see step_success
        self.clear()

    def clear(self) -> None:
        """Forget all steps, as at the start of a phase."""
        shape = (self.n_rows, self.n_envs)
        # nan: not known (yet); the episode's metrics are filled in when it ends, and never if another environment cuts it off
        self.metrics = {name: np.full(shape, np.nan, dtype=np.float32) for name in (*GOAL_METRICS[1:], "custom")}
        self.rows = 0
        self.reports_success = False
        # The episodes under way
        self._length = np.zeros(self.n_envs, dtype=np.int64)
        self._success = np.full(self.n_envs, np.nan)
        self._return = np.zeros(self.n_envs)

    def add(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """
        Add one step of every environment.

        :param rewards: shape (n_envs,)
        :param dones: shape (n_envs,)
        :param infos: one per environment
        """
        row = self.rows % self.n_rows
        self.rows += 1
        for metric in self.metrics.values():
            metric[row] = np.nan
        for env in range(self.n_envs):
            success = step_success(infos[env], self.of_sequence)
            if success is not None:
                self.reports_success = True
                self.metrics["step_success"][row, env] = success
                self._success[env] = np.fmax(self._success[env], success)
            if self.custom is not None:
                self.metrics["custom"][row, env] = self.custom(float(rewards[env]), bool(dones[env]), infos[env])
            self._return[env] += rewards[env]
            self._length[env] += 1
            if dones[env]:
                self._end_episode(env, is_known=CUT_OFF not in infos[env])

    def _end_episode(self, env: int, is_known: bool) -> None:
        """:param is_known: whether how it ended says how well the agent did"""
        if is_known:
            steps = min(self._length[env], self.n_rows)
            rows = (self.rows - 1 - np.arange(steps)) % self.n_rows
            self.metrics["episode_success"][rows, env] = self._success[env]
            self.metrics["episode_return"][rows, env] = self._return[env]
        self._length[env], self._success[env], self._return[env] = 0, np.nan, 0.0

    def best_known(self, buffer: ReplayBuffer) -> str:
        """
        The metric that says most of what the environment tells: the step's success where (nearly) all steps report it. SB3
        asks for a report at an episode's last step only, and some environments report where a success happens: then it is
        the episode's.

        :param buffer: the replay buffer to whose end the window is aligned
        :return: "step_success", "episode_success", or "episode_return" where no success is reported
        """
        n_reports, n_steps = (len(self.select(name, buffer)[0]) for name in ("step_success", "any"))
        if n_reports >= NEARLY_ALL * n_steps > 0:
            return "step_success"
        return "episode_success" if self.reports_success else "episode_return"

    def select(self, name: str, buffer: ReplayBuffer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Steps of the window for which a metric is known. Once an episode has reported success, one that ends without a
        report is a failure.

        :param name: "step_success", "episode_success", "episode_return", "custom", or "any": all steps, with 0
        :param buffer: the replay buffer to whose end the window is aligned
        :return: rows and columns into the buffer's arrays, and q(t), each of shape (steps,);
            oldest first
        """
        # A full buffer that stores every observation once has overwritten the oldest
        valid = buffer.size() - int(buffer.optimize_memory_usage and buffer.full)
        available = min(self.rows, self.n_rows, valid)
        back = np.arange(available, 0, -1)
        rows = (self.rows - back) % self.n_rows
        metric = np.zeros((available, self.n_envs), dtype=np.float32) if name == "any" else self.metrics[name][rows]
        if name == "episode_success" and self.reports_success:
            has_ended = ~np.isnan(self.metrics["episode_return"][rows])
            metric = np.where(np.isnan(metric) & has_ended, np.float32(0), metric)
        buffer_rows = (buffer.pos - back) % buffer.buffer_size
        known_rows, envs = np.nonzero(~np.isnan(metric))
        return buffer_rows[known_rows], envs, metric[known_rows, envs]

    def break_episodes(self) -> None:
        """The episodes under way will not be finished: their metrics stay unknown."""
        self._length[:], self._success[:], self._return[:] = 0, np.nan, 0.0

    def state_dict(self) -> dict[str, Any]:
        """The window as tensors and numbers, without the episodes under way."""
        metrics = {name: th.from_numpy(metric) for name, metric in self.metrics.items()}
        return {"rows": self.rows, "metrics": metrics, "reports_success": self.reports_success}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Restore :meth:`state_dict`. Of a window of another length, the last steps that both have room for are known.

        :param state: the saved window; ignored if it is of another number of environments
        """
        saved = {name: metric.cpu().numpy() for name, metric in state["metrics"].items()}
        if any(metric.shape[1] != self.n_envs for metric in saved.values()):
            return
        self.clear()
        n_saved = len(saved["step_success"])
        known = min(state["rows"], n_saved, self.n_rows)
        back = np.arange(known, 0, -1)
        self.rows = state["rows"] if n_saved == self.n_rows else known
        for name, metric in saved.items():
            self.metrics[name][(self.rows - back) % self.n_rows] = metric[(state["rows"] - back) % n_saved]
        reported = not np.isnan(self.metrics["step_success"]).all()
        self.reports_success = bool(state.get("reports_success", reported))
