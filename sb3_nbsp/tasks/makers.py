"""What makes the environments of a sequence's tasks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym

MakeEnv = Callable[..., gym.Env]


def check_makers(task_makers: Any) -> None:
    """
    :param task_makers: what a user gave as ``task_makers``
    :raises TypeError: if it is no dictionary of functions that can be called with ``render_mode`` alone
    """
    if not isinstance(task_makers, Mapping):
        raise TypeError(f"task_makers must be a dictionary, by the tasks' names, not {task_makers!r}")
    for task, make_env in task_makers.items():
        what = f"task_makers: what makes {str(task)!r} must be a function or a class that is called with render_mode"
        if not callable(make_env):
            raise TypeError(f"{what}, not {make_env!r}")
        problem = _problem(make_env)
        if problem:
            raise TypeError(f"{what}, and with nothing else: {problem}")


def _problem(make_env: MakeEnv) -> str:
    """Why it cannot be called so, as far as that can be known."""
    try:
        signature = inspect.signature(make_env)
    except ValueError:  # not written in Python
        return ""
    try:
        signature.bind(render_mode=None)
    except TypeError as error:
        return str(error)
    return ""


def make_registered(env_id: str, arguments: Mapping[str, Any], render_mode: str | None = None) -> gym.Env:
    """
    :param env_id: id of a registered environment
    :param arguments: of the environment
    :param render_mode: as in Gymnasium; with None the environment need not have such an argument
    :return: the environment
    """
    return gym.make(env_id, **{**arguments, **({} if render_mode is None else {"render_mode": render_mode})})


def make_task(task_makers: Mapping[str, MakeEnv], task: str, render_mode: str | None) -> gym.Env:
    """
    :param task_makers: of the sequence
    :param task: name of a task
    :param render_mode: as in Gymnasium
    :return: its environment
    :raises TypeError: if that is none
    """
    env = task_makers[task](render_mode=render_mode)
    if not isinstance(env, gym.Env):
        raise TypeError(f"task_makers: what makes {task!r} must return a gymnasium.Env, not {env!r}")
    return env


def for_evaluation(make_env: MakeEnv) -> MakeEnv:
    """
    :param make_env: what makes a task
    :return: what makes it as it is evaluated: the result of its method ``for_evaluation()``, if it has one
    """
    found: MakeEnv = make_env.for_evaluation() if hasattr(make_env, "for_evaluation") else make_env
    return found
