"""Evaluate an agent on all tasks of a sequence at the end of each phase."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from tqdm.auto import tqdm

from sb3_nbsp.checks import check_option, whole
from sb3_nbsp.messages import warn
from sb3_nbsp.tasks.agent_history import AgentHistory, keep_aside
from sb3_nbsp.tasks.boundaries import CUT_OFF, ended_phases, is_over, steps_left
from sb3_nbsp.tasks.callback_tree import announce_end, check_sees_every_step
from sb3_nbsp.tasks.episode_log import EpisodeLog, read_rows
from sb3_nbsp.tasks.evaluation_files import add_evaluation, enter_failures, save_if_best
from sb3_nbsp.tasks.games import GAME
from sb3_nbsp.tasks.lives import ends_game
from sb3_nbsp.tasks.metrics import SuccessMatrix
from sb3_nbsp.tasks.policy_evaluation import SEED, TaskResult, evaluate_task, evaluation_seed
from sb3_nbsp.tasks.recognize import has_phases
from sb3_nbsp.tasks.task_envs import ADVICE, has_active_wrappers, task_makers

__all__ = ["SequenceEvaluation", "evaluate_task"]

MATRIX, LOG = "success_matrix.csv", "training.csv"
# Records beside those of the tasks
_RECORDS = ("ASR", "FM", "FWT", "phase")
# SB3 prints so many characters of a record's name after the tag
_PRINTED = 33


class SequenceEvaluation(BaseCallback):
    """
    At the end of each phase, evaluate the agent on every distinct task, in environments of the evaluation's own, and write
    the success matrix. Also write the training success of every episode, and stop the training of any SB3 agent when the
    sequence is over.

    Once a task has reported success, an episode without a report is a failure. If a task never does, the mean normalized
    score of its games is used instead (ASR is then AR; NBSP, equations 12 and 13), or, without such a score, the mean
    return of an episode, with a warning.

    Policies with memory get their state, and policies with action masks get the masks of the task. Wrappers around the whole
    sequence are copied around the single tasks; if this is impossible, training does not start.

    Phases are counted over the agent's life: when it plays the sequence again, rows are added to the matrix. Files of another
    run in the folder are kept under another name.

    Games are evaluated as a whole, with raw rewards. The log of episodes has a line for each whole game.

    TensorBoard: ``eval/<task>`` (success rate or score), ``eval/returns/<task>`` (mean return), ``eval/ASR``,
    ``eval/FM``, ``eval/FWT``.

    :param folder: folder for ``success_matrix.csv`` and ``training.csv``. Files there are continued, so that a resumed run
        keeps its history. None writes nothing
    :param n_eval_episodes: number of episodes per task
    :param seed: the seeds of the evaluation's environments follow from it, one for each task; they differ from those of
        training. The same seed means the same episodes after every phase
    :param progress_bar: show a bar while evaluating
    :param verbose: 1 prints the success rates
    :param n_eval_steps: instead of a number of episodes: for each task, play whole episodes until this many steps are reached
        (100 000 in the paper, on Atari); None for ``n_eval_episodes``
    :param deterministic: use the policy's most likely actions; False samples them, with random numbers of the evaluation's
        own
    :param best_model_save_path: folder for ``best_model.zip``, the agent after the phase with the best mean over the tasks met
        so far; None saves none
    :param log_path: folder for ``evaluations.npz``, see :func:`~sb3_nbsp.tasks.evaluation_files.add_evaluation`
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        n_eval_episodes: int = 20,
        seed: int = SEED,
        progress_bar: bool = True,
        verbose: int = 0,
        n_eval_steps: int | None = None,
        deterministic: bool = True,
        best_model_save_path: str | os.PathLike[str] | None = None,
        log_path: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(verbose)
        check_option("deterministic", deterministic, (True, False))
        self.folder = None if folder is None else Path(folder)
        self.n_eval_episodes = whole("n_eval_episodes", n_eval_episodes, 1)
        self.n_eval_steps = None if n_eval_steps is None else whole("n_eval_steps", n_eval_steps, 1)
        self.deterministic = deterministic
        self.best_model_save_path = None if best_model_save_path is None else Path(best_model_save_path)
        self.log_path = None if log_path is None else Path(log_path)
        self.seed = whole("seed", seed, 0)
        self.progress_bar = progress_bar
        self.matrix: SuccessMatrix | None = None
        self._log: EpisodeLog | None = None
        self._envs: dict[str, VecEnv] = {}
        self._sequence_over = False
        self._returns: set[tuple[int, str]] = set()  # entries of the matrix that are no success rates
        self._kinds: set[str] = set()  # of results so far
        self._left_at: tuple[int, int] | None = None  # the agent and its updates when learn() last returned

    def _init_callback(self) -> None:
        check_sees_every_step(self)

    def _on_training_start(self) -> None:
        env = self.training_env
        if not has_phases(env):
            raise ValueError("SequenceEvaluation needs a task sequence as the training environment")
        check_sees_every_step(self, self.locals.get("callback"))
        tasks = env.get_attr("task_names", indices=0)[0]
        taken = [task for task in tasks if task in _RECORDS]
        if taken:
            raise ValueError(f"No task can have the name {taken[0]!r}: SequenceEvaluation records eval/{taken[0]} itself")
        self._makers = task_makers(env)
        self._is_wrapped = has_active_wrappers(env)
        if self._is_wrapped:
            self._check_envs(tasks)
        self._open_history(tasks, env.env_method("get_progress"))
        self._steps_up_at = self.num_timesteps + steps_left(env)
        for task in self._history.report_success.union(*env.get_attr("report_success")):
            self._expect_success(task)

    def _check_envs(self, tasks: list[str]) -> None:
        """Complain now, not at the end of a phase, of wrappers that do not fit the single tasks."""
        for task in tasks:
            env = self._env(task)
            for kind in ("observation_space", "action_space"):
                own, agents = getattr(env, kind), getattr(self.model, kind)
                if own != agents:
                    raise ValueError(f"The task {task!r} alone has the {kind} {own}, but the agent's is {agents}. {ADVICE}")
            env.reset()
            env.step(np.array([env.action_space.sample()]))

    def _open_history(self, tasks: list[str], progress: list[dict[str, Any]]) -> None:
        """Align the matrix and the log of episodes with the phases that the agent has played."""
        here = progress[0]
        finished_here = here["phase"] + int(here["sequence_over"])
        self._history = history = AgentHistory(self.model, tasks, finished_here)
        earlier = self._earlier_matrix(tasks)
        if history.is_new:
            earlier = self._keep_aside(earlier)
        self.matrix = SuccessMatrix(tasks, earlier.phase_tasks[: history.n_rows], earlier.rows[: history.n_rows])
        self._first_row = history.n_rows - finished_here  # of the first phase of the sequence as it is played now
        self._sequence_over = all(each["sequence_over"] for each in progress)
        if self.folder is not None:
            last_phase = -1 if history.is_new else history.n_rows
            self._log = EpisodeLog(self.folder / LOG, last_phase, self.num_timesteps or math.inf)
        # What an unknown agent has in its matrix may be anything
        kept = self.matrix.rows if history.is_known else []
        self._returns = {(row, task) for row in range(len(kept)) for task in tasks if task not in history.report_success}
        if len(self.matrix.rows) < history.n_rows:
            self._add_missing_rows(here, history.n_rows)

    def _earlier_matrix(self, tasks: list[str]) -> SuccessMatrix:
        """The matrix in the folder; without a folder, that of the last call of ``learn()``."""
        path = None if self.folder is None else self.folder / MATRIX
        if path is None or not path.exists():
            return self.matrix if path is None and self.matrix is not None else SuccessMatrix(tasks)
        matrix = SuccessMatrix.load(path)
        if matrix.tasks != tasks:
            raise ValueError(
                f"{path} is of the tasks {matrix.tasks}, but the environment's are {tasks}. Give every run a folder of its own"
            )
        return matrix

    def _keep_aside(self, earlier: SuccessMatrix) -> SuccessMatrix:
        """Another run has used the folder."""
        has_log = self.folder is not None and (self.folder / LOG).exists() and bool(read_rows(self.folder / LOG))
        if self.folder is not None and (earlier.rows or has_log):
            names = keep_aside(self.folder, [MATRIX, LOG])
            warn(
                f"{self.folder} has the results of another run; they are kept there as {' and '.join(names)}. "
                "Give every run a folder of its own"
            )
        return SuccessMatrix(earlier.tasks)

    def _add_missing_rows(self, progress: dict[str, Any], n_rows: int) -> None:
        """Phases have ended of which this callback has seen nothing."""
        assert self.matrix is not None
        names = progress["tasks"]
        missing = range(len(self.matrix.rows), n_rows)
        if len(missing) == 1 and self._left_at == (id(self.model), self.model._n_updates):
            # The reset at the beginning of learn() has ended it, and the agent has learned nothing since
            row = missing[0]
            phase = row - self._first_row
            self._evaluate({"phase": phase, "task": names[phase % len(names)], "n_phases": len(names) * progress["cycles"]})
            return
        warn(
            f"Training continues in phase {n_rows + 1}, but how earlier phases ended is not known: they become nan. "
            "Give SequenceEvaluation to every call of learn(), with the folder of the earlier ones"
        )
        for row in missing:
            self.matrix.set_row(row, names[(row - self._first_row) % len(names)], [math.nan] * len(self.matrix.tasks))

    def _expect_success(self, task: str) -> None:
        """The task reports success: where it has not, it was no success."""
        assert self.matrix is not None
        self._history.add_reporting([task])
        self.training_env.env_method("expect_success", task)
        if self._log is not None:
            self._log.fill_success(task)
        column = self.matrix.tasks.index(task)
        wrong = {entry for entry in self._returns if entry[1] == task}
        for row, _ in wrong:
            if not math.isnan(self.matrix.rows[row][column]):
                self.matrix.rows[row][column] = 0.0
        self._returns -= wrong
        if wrong:
            self._save_matrix()
        if wrong and self.log_path is not None:
            enter_failures(self.log_path, wrong)

    def _on_step(self) -> bool:
        if self._sequence_over and hasattr(self.model, "n_finished_phases"):
            return True  # agents of this package end by themselves, when they have learned from the rollout
        if self._sequence_over:
            return False  # one step late: an agent acts on the boundary after its callbacks
        if "infos" not in self.locals:
            raise ValueError(
                f"SequenceEvaluation cannot follow {type(self.model).__name__}, which does not tell callbacks what its steps "
                "return. Evaluate it after training (stable_baselines3.common.evaluation.evaluate_policy)"
            )
        dones, infos = self.locals["dones"], self.locals["infos"]
        for task in {info["task"] for info in infos if "is_success" in info} - self._history.report_success:
            self._expect_success(task)
        for done, info in zip(dones, infos, strict=True):
            if done and ends_game(info):
                self._log_episode(info)
        if ended_phases(self.training_env, dones, infos)[0]:
            self._history.add_row()
            self._evaluate(infos[0])
        self._sequence_over = is_over(self.training_env, dones, infos)
        return True

    def _log_episode(self, info: dict[str, Any]) -> None:
        if self._log is None or CUT_OFF in info:
            return
        episode = info.get(GAME, info.get("episode", {"r": math.nan, "l": -1}))
        success = info.get("is_success", False if info["task"] in self._history.report_success else "")
        phase = self._first_row + info["phase"]
        self._log.add([self.num_timesteps, phase, info["task"], success, episode["r"], episode["l"]])

    def _evaluate(self, info: dict[str, Any]) -> None:
        assert self.matrix is not None
        tasks, phase = self.matrix.tasks, self._first_row + info["phase"]
        results = {}
        with tqdm(
            total=len(tasks) * self.n_eval_episodes if self.n_eval_steps is None else None,
            desc=f"evaluation after phase {phase + 1}",
            unit="episode",
            leave=False,
            disable=not self.progress_bar,
        ) as bar:
            for task in tasks:
                results[task] = self._evaluate_task(task, phase, bar.update)
        rates = {task: result.value for task, result in results.items()}
        self.matrix.set_row(phase, info["task"], list(rates.values()))
        self._save_matrix()
        if self.log_path is not None:
            add_evaluation(self.log_path, self.num_timesteps, phase, rates)
        if self.best_model_save_path is not None:
            save_if_best(self.best_model_save_path, self.model, self.matrix)
        for task, result in results.items():
            self.logger.record(f"eval/returns/{task}", result.mean_return, exclude=("stdout", "log"))
        self._record(rates, phase)
        if self.verbose:
            text = ", ".join(f"{task} {rate:.2f}" for task, rate in rates.items())
            print(
                f"Step {self.num_timesteps}: phase {info['phase'] + 1} of {info['n_phases']} ({info['task']}) is over: {text}"
            )

    def success_now(self) -> dict[str, float]:
        """
        Evaluate the agent as it is, in the episodes that are played after every phase.

        :return: its success on each distinct task; not entered into the matrix
        """
        assert self.matrix is not None, "training has not started"
        return {task: self._evaluate_task(task).value for task in self.matrix.tasks}

    @property
    def reporting(self) -> set[str]:
        """Tasks that have reported success so far: where they had not, it was no success."""
        return set(self._history.report_success)

    def _evaluate_task(self, task: str, phase: int | None = None, on_episode: Callable[[], Any] = lambda: None) -> TaskResult:
        """For the row of a phase in the matrix, or None for none."""
        env, reports = self._env(task), task in self._history.report_success
        assert self.matrix is not None
        seed = evaluation_seed(self.seed, self.matrix.tasks.index(task), self.model.seed)
        result = evaluate_task(
            self.model, env, self.n_eval_episodes, seed, on_episode, reports, task, self.n_eval_steps, self.deterministic
        )
        if result.kind == "success" and not reports:
            self._expect_success(task)
        if result.kind != "success" and phase is not None:
            self._returns.add((phase, task))
        self._note_kind(result.kind)
        return result

    def _note_kind(self, kind: str) -> None:
        """Warn when tasks turn out not to report success, and when their means add different units."""
        is_new = kind not in self._kinds
        self._kinds.add(kind)
        if is_new and kind == "return":
            warn(
                "The tasks do not report success: the mean return of an episode takes its place. Should one report success "
                "later, earlier returns in the matrix become 0"
            )
        if is_new and {"return", "score"} <= self._kinds:
            warn(
                "Only some of the games have a normalized score; the mean return takes its place for the others. ASR, FM and "
                "FWT are means over both: compare the columns of the matrix instead"
            )

    def _save_matrix(self) -> None:
        if self.folder is not None and self.matrix is not None:
            self.matrix.save(self.folder / MATRIX)

    def _record(self, rates: dict[str, float], phase: int) -> None:
        assert self.matrix is not None
        for index, (task, rate) in enumerate(rates.items()):
            if len(task) <= _PRINTED:
                self.logger.record(f"eval/{task}", rate)
            else:  # SB3 would cut it off, and fail if two have the same beginning
                self.logger.record(f"eval/{task}", rate, exclude=("stdout", "log"))
                self.logger.record(
                    f"eval/{task[: _PRINTED - 10]}... ({index + 1})", rate, exclude=("csv", "json", "tensorboard")
                )
        for name, value in self.matrix.metrics().items():
            self.logger.record(f"eval/{name}", value)
        self.logger.record("eval/phase", phase + 1)
        self.logger.dump(self.num_timesteps)

    def _env(self, task: str) -> VecEnv:
        if self._is_wrapped and task in self._envs:
            self._envs.pop(task).close()  # the wrappers have learned since
        if task not in self._envs:
            self._envs[task] = self.model._wrap_env(self._makers[task](), monitor_wrapper=True)
        return self._envs[task]

    def _on_training_end(self) -> None:
        self._left_at = (id(self.model), self.model._n_updates)
        self._warn_of_open_phases()
        if self._sequence_over and not hasattr(self.model, "n_finished_phases"):
            announce_end(self.locals.get("callback"), self.num_timesteps)
        for env in self._envs.values():
            env.close()
        self._envs.clear()

    def _warn_of_open_phases(self) -> None:
        """Where training has had the steps of all phases, but not those of the episodes with which they end."""
        env = self.training_env
        here = env.env_method("get_progress", indices=0)[0]
        has_run_out = self.num_timesteps >= self.model._total_timesteps  # and was not stopped by a callback
        had_enough = self.num_timesteps >= self._steps_up_at or steps_left(env) == 0
        if has_run_out and had_enough and not here["sequence_over"]:
            n_phases = env.get_attr("n_phases", indices=0)[0]
            warn(
                f"Training ended in phase {here['phase'] + 1} of {n_phases}, although it had the steps of all of them: phases "
                "end with an episode. The success matrix is not complete. Give learn() more steps (training ends with the "
                "sequence), or continue"
            )
