"""Play episodes of one task with an agent."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, Literal, NamedTuple

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv

from sb3_nbsp.random_states import random_states, restore_random_states
from sb3_nbsp.tasks.games import GAME, SCORE
from sb3_nbsp.tasks.reports import step_success

SEED = 1_000  # of evaluations, unless another is given
# Training gives its seed to its first environment, and those that follow it to parallel environments and further tasks
_OF_TRAINING = 10_000


def evaluation_seed(seed: int, task_index: int, training_seed: int | None = None) -> int:
    """
    Seed of the environment in which a task is evaluated. It is never one of training's, so that no episode of the
    evaluation starts as one of training did; and no two tasks share one, which would have the same positions of their goals.

    :param seed: seed of the evaluation
    :param task_index: position of the task among the distinct tasks
    :param training_seed: the agent's; None if it has none
    :return: a seed below 2³¹, the same for the same arguments
    """
    for attempt in count():
        found = int(np.random.SeedSequence([seed, task_index, attempt]).generate_state(1)[0]) // 2
        if training_seed is None or not 0 <= found - training_seed < _OF_TRAINING:
            break
    return found


class TaskResult(NamedTuple):
    """
    What an agent has achieved on a task.

    :param value: the success rate; where the task reports none, the mean normalized score of its games
        (:func:`~sb3_nbsp.tasks.games.normalized_score`); where there is none either, the mean return
    :param kind: which of the three it is
    :param mean_return: mean return of an episode; of a whole game, in raw rewards
    """

    value: float
    kind: Literal["success", "score", "return"]
    mean_return: float


def comparable_values(results: Sequence[TaskResult]) -> list[float]:
    """
    :param results: of several agents on one task
    :return: the value of each; where one has reported success, those that have not had none
    """
    reported = any(result.kind == "success" for result in results)
    return [0.0 if reported and result.kind != "success" else result.value for result in results]


def evaluate_task(
    model: BaseAlgorithm,
    env: VecEnv,
    n_episodes: int,
    seed: int,
    on_episode: Callable[[], Any] = lambda: None,
    reports_success: bool = False,
    task: str | None = None,
    n_steps: int | None = None,
    deterministic: bool = True,
) -> TaskResult:
    """
    Play whole episodes. An episode succeeds if any of its steps does. As soon as one episode
    reports success, those that do not are failures. A policy with memory keeps its state within an episode, and
    one with action masks gets those of the environment. The global random streams stay as they are.

    :param model: the agent
    :param env: one environment of the task, without normalization (the agent's is applied)
    :param n_episodes: episodes to play
    :param seed: seed of the environment, and of the actions if they are drawn
    :param on_episode: called after every episode
    :param reports_success: whether the task is known to report success
    :param task: its name, which methods are told that have to know it (``set_task()``)
    :param n_steps: play until the episode is over in which this many steps are reached, however many episodes that takes
    :param deterministic: with the policy's most likely actions, not drawn ones
    :return: what the agent has achieved
    """
    normalizer = model.get_vec_normalize_env()
    env.seed(seed)
    observations: Any = env.reset()
    has_masks = "action_masks" in inspect.signature(model.predict).parameters and env.has_attr("action_masks")
    state, starts = None, np.ones(1, dtype=bool)
    returns: list[float] = []
    scores: list[float] = []
    successes: list[bool] = []
    succeeded, total, steps = False, 0.0, 0
    with _told(model, task), _drawn_aside(model, None if deterministic else seed):
        while not starts[0] or (len(returns) < n_episodes if n_steps is None else steps < n_steps):
            seen = normalizer.normalize_obs(observations) if normalizer is not None else observations
            masks = {"action_masks": np.stack(env.env_method("action_masks"))} if has_masks else {}
            actions, state = model.predict(seen, state=state, episode_start=starts, deterministic=deterministic, **masks)
            observations, rewards, starts, infos = env.step(actions)
            total, steps = total + float(rewards[0]), steps + 1
            success = step_success(infos[0])
            reports_success |= success is not None
            succeeded |= bool(success)
            if starts[0]:
                # A Monitor inside of what ends the episode has not seen it end
                returns.append(float(infos[0].get(GAME, infos[0].get("episode", {"r": total}))["r"]))
                scores += [infos[0][SCORE]] if SCORE in infos[0] else []
                successes.append(succeeded)
                succeeded, total = False, 0.0
                on_episode()
    mean_return = float(np.mean(returns))
    if reports_success:
        return TaskResult(float(np.mean(successes)), "success", mean_return)
    return (
        TaskResult(float(np.mean(scores)), "score", mean_return) if scores else TaskResult(mean_return, "return", mean_return)
    )


@contextmanager
def _drawn_aside(model: BaseAlgorithm, seed: int | None) -> Iterator[None]:
    """Random numbers within the block follow from a seed, those after it from what was before; None: nothing is drawn."""
    if seed is None or not isinstance(model, BaseAlgorithm):
        yield
        return
    states = random_states(model)
    set_random_seed(seed)
    model.action_space.seed(seed)
    try:
        yield
    finally:
        restore_random_states(model, states)


@contextmanager
def _told(model: BaseAlgorithm, task: str | None) -> Iterator[None]:
    """Methods that have to know their task know this one within the block, and the current phase's after it."""
    is_told = task is not None and hasattr(model, "set_task")
    if is_told:
        model.set_task(task)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if is_told:
            model.set_task(model.phase.task)  # type: ignore[attr-defined]
