"""What agents that have learned nothing achieve on the tasks of a sequence: lines that every table and figure needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.env_util import make_vec_env

from sb3_nbsp.batches import ArrayObs, n_rows
from sb3_nbsp.benchmark.comparison import Comparison, Run
from sb3_nbsp.files import read_json_object, write_json
from sb3_nbsp.tasks.policy_evaluation import SEED, comparable_values, evaluate_task, evaluation_seed
from sb3_nbsp.tasks.task_envs import task_makers

FILE = "baselines.json"
RANDOM, UNTRAINED = "random agent", "untrained agent"
MOST_NETWORKS = 3


class RandomAgent:
    """Draws uniform actions from a space, with a random stream of its own."""

    def __init__(self, action_space: gym.Space[Any]) -> None:
        self._space = action_space
        self._space.seed(SEED)

    def predict(self, observations: ArrayObs, *_: Any, **__: Any) -> tuple[np.ndarray, None]:
        """An action for each observation, as SB3's agents do it."""
        return np.stack([self._space.sample() for _ in range(n_rows(observations))]), None

    def get_vec_normalize_env(self) -> None:
        """Nothing is normalized."""


def measure_baselines(comparison: Comparison, folder: Path, done: Sequence[Run]) -> None:
    """
    Evaluate an agent of random actions and the untrained agents of the first runs (their mean) on every task of each sequence,
    as after each phase: once, as the result is kept in the folder of the comparison.
    """
    known = _read(folder)
    for env_id in dict.fromkeys(run.env_id for run in done):
        settings: dict[str, Any] = {"env_id": env_id, "env_kwargs": comparison.env_kwargs}
        settings |= {"n_eval_episodes": comparison.n_eval_episodes, "evaluation_seed": evaluation_seed(SEED, 0)}
        if (comparison.n_eval_steps, comparison.eval_policy) != (None, "deterministic"):
            settings |= {"n_eval_steps": comparison.n_eval_steps, "eval_policy": comparison.eval_policy}
        if known.get(env_id, {}).get("settings") != settings:
            runs = {run.seed: run for run in reversed(done) if run.env_id == env_id}
            success = _measure(comparison, env_id, list(runs.values())[:MOST_NETWORKS])
            known[env_id] = {"settings": settings, "success": success}
            write_json(folder / FILE, known)


def _measure(comparison: Comparison, env_id: str, runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    env = make_vec_env(env_id, env_kwargs=comparison.env_kwargs)
    untrained = [comparison.settings(run).make_agent(env, buffer_size=1) for run in runs]
    how: Any = {"n_steps": comparison.n_eval_steps, "deterministic": comparison.eval_policy == "deterministic"}
    success: dict[str, dict[str, float]] = {RANDOM: {}, UNTRAINED: {}}
    for index, (task, make_env) in enumerate(task_makers(env).items()):
        task_env = make_vec_env(make_env)
        seed = evaluation_seed(SEED, index)  # the episodes of SequenceEvaluation
        agents: list[Any] = [RandomAgent(env.action_space), *untrained]
        found = [evaluate_task(each, task_env, comparison.n_eval_episodes, seed, task=task, **how) for each in agents]
        success[RANDOM][task], *rates = comparable_values(found)
        success[UNTRAINED][task] = float(np.mean(rates))
        task_env.close()
    env.close()
    return success


def read_baselines(folder: Path) -> list[tuple[str, str, str, float]]:
    """Environment, agent, task and success of each; empty if nothing has been measured there, ValueError if it is damaged."""
    try:
        return [
            (env_id, agent, task, float(rate))
            for env_id, content in _read(folder).items()
            for agent, rates in content["success"].items()
            for task, rate in rates.items()
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / FILE} is damaged: delete it, and run the comparison again to measure it anew") from error


def _read(folder: Path) -> dict[str, Any]:
    content = read_json_object(folder / FILE) if (folder / FILE).exists() else {}
    return {content["settings"]["env_id"]: content} if "settings" in content else content  # of version 0.1
