"""Evaluate an agent on all tasks of a sequence at the end of each phase."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from tqdm.auto import tqdm

from sb3_nbsp.files import atomic_write
from sb3_nbsp.tasks.metrics import SuccessMatrix
from sb3_nbsp.tasks.recognize import has_phases


def evaluate_task(
    model: BaseAlgorithm, env: VecEnv, n_episodes: int, seed: int, on_episode: Callable[[], Any] = lambda: None
) -> tuple[float, bool]:
    """
    Play episodes with the deterministic policy. An episode succeeds if any of its steps does.

    :param model: the agent
    :param env: one environment of the task, without normalization (the agent's is applied)
    :param n_episodes: episodes to play
    :param seed: seed of the environment
    :param on_episode: called after every episode
    :return: the success rate, or the mean return if the task does not report success; and whether it is the success rate
    """
    normalizer = model.get_vec_normalize_env()
    env.seed(seed)
    observations: Any = env.reset()
    returns: list[float] = []
    successes: list[bool] = []
    succeeded: bool | None = None
    while len(returns) < n_episodes:
        seen = normalizer.normalize_obs(observations) if normalizer is not None else observations
        actions, _ = model.predict(seen, deterministic=True)
        observations, _, dones, infos = env.step(actions)
        success = infos[0].get("success", infos[0].get("is_success"))
        if success is not None:
            succeeded = bool(succeeded) or bool(success)
        if dones[0]:
            returns.append(infos[0]["episode"]["r"])
            successes += [] if succeeded is None else [succeeded]
            succeeded = None
            on_episode()
    return (float(np.mean(successes)), True) if successes else (float(np.mean(returns)), False)


class SequenceEvaluation(BaseCallback):
    """
    At the end of each phase, evaluate the agent on every distinct task, in environments of its own, and write
    the success matrix. Also writes the training success of every episode, and stops the
    training of any SB3 agent when the sequence is over.

    Where tasks do not report success, the mean return of an episode takes its place, with a warning.

    TensorBoard: ``eval/<task>`` (success rate), ``eval/ASR``, ``eval/FM``, ``eval/FWT``.

    :param folder: for ``success_matrix.csv`` and ``training.csv``; files there are continued, which is
        how a resumed run keeps its history. None writes nothing
    :param n_eval_episodes: episodes per task
    :param deterministic_seed: seed of the evaluation's environments
    :param progress_bar: show a bar while evaluating
    :param verbose: 1 prints the success rates
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        n_eval_episodes: int = 20,
        deterministic_seed: int = 1_000,
        progress_bar: bool = True,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        if n_eval_episodes < 1:
            raise ValueError(f"n_eval_episodes must be at least 1, not {n_eval_episodes!r}")
        self.folder = None if folder is None else Path(folder)
        self.n_eval_episodes = n_eval_episodes
        self.deterministic_seed = deterministic_seed
        self.progress_bar = progress_bar
        self.matrix: SuccessMatrix | None = None
        self._envs: dict[str, VecEnv] = {}
        self._sequence_over = False
        self._evaluated = -1
        self._warned = False

    def _on_training_start(self) -> None:
        if not has_phases(self.training_env):
            raise ValueError("SequenceEvaluation needs a task sequence as the training environment")
        self._sequence_over = False
        self._makers: dict[str, Callable[..., gym.Env]] = self.training_env.get_attr("task_makers", indices=0)[0]
        tasks = self.training_env.get_attr("task_names", indices=0)[0]
        progress = self.training_env.env_method("get_progress", indices=0)[0]
        n_finished = progress["phase"] + int(progress["sequence_over"])
        self._evaluated = n_finished - 1
        if self.matrix is None:
            self.matrix = self._load_matrix(tasks, n_finished)
        self._open_training_log()

    def _load_matrix(self, tasks: list[str], phase: int) -> SuccessMatrix:
        """The matrix of an earlier run, without the phases that are still to come."""
        matrix = SuccessMatrix(tasks)
        path = None if self.folder is None else self.folder / "success_matrix.csv"
        if path is not None and path.exists():
            matrix = SuccessMatrix.load(path)
            if matrix.tasks != tasks:
                raise ValueError(f"{path} is of the tasks {matrix.tasks}, but the environment's are {tasks}")
        del matrix.rows[phase:], matrix.phase_tasks[phase:]
        missing = range(len(matrix.rows), phase)
        if missing:
            warnings.warn(
                f"Training continues in phase {phase + 1}, but how earlier phases ended is not known: they become nan",
                stacklevel=2,
            )
        for earlier in missing:
            names = self.training_env.get_attr("tasks", indices=0)[0]
            matrix.set_row(earlier, names[earlier % len(names)], [float("nan")] * len(tasks))
        return matrix

    def _open_training_log(self) -> None:
        """Continue the log of training episodes, without those that come after the checkpoint."""
        if self.folder is None:
            return
        self._log = self.folder / "training.csv"
        lines = ["step,phase,task,success,return,length"]
        if self._log.exists() and self.num_timesteps > 0:
            # A killed run can leave half a line
            old = [line for line in self._log.read_text().splitlines()[1:] if line.count(",") == 5]
            lines += [line for line in old if int(line.split(",", 1)[0]) <= self.num_timesteps]
        atomic_write(self._log, "\n".join(lines) + "\n")

    def _on_step(self) -> bool:
        if self._sequence_over:
            return False  # one step late: an agent acts on the boundary after its callbacks
        infos = self.locals["infos"]
        for done, info in zip(self.locals["dones"], infos, strict=True):
            if done and self.folder is not None:
                self._log_episode(info)
        if infos[0]["boundary"] and infos[0]["phase"] > self._evaluated:
            self._evaluated = infos[0]["phase"]
            self._evaluate(infos[0])
        self._sequence_over = all(info["sequence_over"] for info in infos)
        return True

    def _log_episode(self, info: dict[str, Any]) -> None:
        episode = info.get("episode", {"r": float("nan"), "l": -1})
        row = [self.num_timesteps, info["phase"], info["task"], info.get("is_success", ""), episode["r"], episode["l"]]
        with self._log.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row)

    def _evaluate(self, info: dict[str, Any]) -> None:
        assert self.matrix is not None
        total = len(self.matrix.tasks) * self.n_eval_episodes
        rates = []
        with tqdm(
            total=total,
            desc=f"evaluation after phase {info['phase'] + 1}",
            unit="episode",
            leave=False,
            disable=not self.progress_bar,
        ) as bar:
            for task in self.matrix.tasks:
                rate, is_success = evaluate_task(
                    self.model, self._env(task), self.n_eval_episodes, self.deterministic_seed, bar.update
                )
                rates.append(rate)
                if not is_success and not self._warned:
                    self._warned = True
                    warnings.warn(
                        "The tasks do not report success: the mean return of an episode takes its place", stacklevel=2
                    )
        self.matrix.set_row(info["phase"], info["task"], rates)
        if self.folder is not None:
            self.matrix.save(self.folder / "success_matrix.csv")
        for task, rate in zip(self.matrix.tasks, rates, strict=True):
            self.logger.record(f"eval/{task}", rate)
        for name, value in self.matrix.metrics().items():
            self.logger.record(f"eval/{name}", value)
        self.logger.record("eval/phase", info["phase"] + 1)
        self.logger.dump(self.num_timesteps)
        if self.verbose:
            text = ", ".join(f"{task} {rate:.2f}" for task, rate in zip(self.matrix.tasks, rates, strict=True))
            print(
                f"Step {self.num_timesteps}: phase {info['phase'] + 1} of {info['n_phases']} ({info['task']}) is over: {text}"
            )

    def _env(self, task: str) -> VecEnv:
        if task not in self._envs:
            env = self.model._wrap_env(self._makers[task](), monitor_wrapper=True)
            if env.observation_space.shape != self.model.observation_space.shape:
                raise ValueError(
                    f"The task {task!r} has observations of shape {env.observation_space.shape}, but the agent's are of shape "
                    f"{self.model.observation_space.shape}: wrappers around the whole sequence are not part of its tasks"
                )
            self._envs[task] = env
        return self._envs[task]

    def _on_training_end(self) -> None:
        for env in self._envs.values():
            env.close()
        self._envs.clear()
