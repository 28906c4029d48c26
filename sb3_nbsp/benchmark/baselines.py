"""What agents that have learned nothing achieve on the tasks of a sequence: lines that every table and figure needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from sb3_nbsp.benchmark.plan import Cell, Plan
from sb3_nbsp.benchmark.run_settings import BESIDE_THE_AGENT
from sb3_nbsp.files import atomic_write, read_json_object
from sb3_nbsp.tasks import SuccessMatrix
from sb3_nbsp.tasks.policy_evaluation import SEED, evaluate_task, evaluation_seed
from sb3_nbsp.tasks.task_envs import task_makers
from sb3_nbsp.zoo.algos import algorithm

FILE = "baselines.json"
RANDOM, UNTRAINED = "random agent", "untrained agent"
MOST_NETWORKS = 3

# By agent and task: success
Baselines = dict[str, dict[str, float]]


class RandomAgent:
    """
    Draws uniform actions, with a random stream of its own.

    :param action_space: what to draw from
    """

    def __init__(self, action_space: gym.Space[Any]) -> None:
        self._space = action_space
        self._space.seed(SEED)

    def predict(self, observations: np.ndarray, *_: Any, **__: Any) -> tuple[np.ndarray, None]:
        """An action for each observation, see SB3."""
        return np.stack([self._space.sample() for _ in observations]), None

    def get_vec_normalize_env(self) -> None:
        """Nothing is normalized."""


def measure_baselines(plan: Plan, folder: Path, done: Sequence[Cell]) -> Baselines:
    """
    Evaluate an agent of random actions and untrained agents (deterministic, as after each phase; the mean over a few
    networks) on every task of a comparison's sequence. They are measured once, and kept in the comparison's folder.

    :param plan: the comparison
    :param folder: its folder
    :param done: runs of it; the untrained agents are the first ones' before their training
    :return: the success of both
    """
    settings = {"env_id": plan.env_id, "env_kwargs": plan.env_kwargs, "n_eval_episodes": plan.n_eval_episodes}
    if (folder / FILE).exists():
        known = read_json_object(folder / FILE)
        if known.get("settings") == settings:
            baselines: Baselines = known["success"]
            return baselines
    env = make_vec_env(plan.env_id, env_kwargs=plan.env_kwargs)
    first_of_seeds = {cell.seed: cell for cell in reversed(done)}
    untrained = [_untrained(plan, env, cell) for cell in list(first_of_seeds.values())[:MOST_NETWORKS]]
    random = RandomAgent(env.action_space)
    success: Baselines = {RANDOM: {}, UNTRAINED: {}}
    for index, (task, make_env) in enumerate(task_makers(env).items()):
        task_env = make_vec_env(make_env)
        seed = evaluation_seed(SEED, index)  # the episodes of SequenceEvaluation
        found = [evaluate_task(model, task_env, plan.n_eval_episodes, seed) for model in [random, *untrained]]
        # Where one has reported success, those that have not had none
        reported = any(is_success for _, is_success in found)
        rates = [0.0 if reported and not is_success else rate for rate, is_success in found]
        success[RANDOM][task], success[UNTRAINED][task] = rates[0], float(np.mean(rates[1:]))
        task_env.close()
    env.close()
    atomic_write(folder / FILE, json.dumps({"settings": settings, "success": success}, indent=2) + "\n")
    return success


def _untrained(plan: Plan, env: VecEnv, cell: Cell) -> Any:
    settings = plan.resolved(cell)
    options = {name: value for name, value in settings.arguments().items() if name not in BESIDE_THE_AGENT}
    return algorithm(settings.algo)(env=env, seed=cell.seed, **{**options, "buffer_size": 1})


def read_baselines(folder: Path) -> Baselines:
    """
    :param folder: folder of a comparison
    :return: what :func:`measure_baselines` has found there; empty if nothing
    :raises ValueError: if the file is damaged
    """
    if not (folder / FILE).exists():
        return {}
    try:
        content = read_json_object(folder / FILE)["success"]
        return {str(agent): {str(task): float(rate) for task, rate in rates.items()} for agent, rates in content.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / FILE} is damaged: delete it, and run the comparison again to measure it anew") from error


def as_matrix(success: dict[str, float], sequence: SuccessMatrix) -> SuccessMatrix:
    """
    The success matrix of an agent that never learns.

    :param success: its success, by task
    :param sequence: has the phases and tasks
    :return: the same row after every phase
    """
    row = [success.get(task, float("nan")) for task in sequence.tasks]
    return SuccessMatrix(sequence.tasks, sequence.phase_tasks, [row] * len(sequence.phase_tasks))
