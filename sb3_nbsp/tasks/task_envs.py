"""Environments of single tasks, as an agent sees them that learns on the whole sequence."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import gymnasium as gym
from gymnasium.wrappers import (
    HumanRendering,
    OrderEnforcing,
    PassiveEnvChecker,
    RecordEpisodeStatistics,
    RecordVideo,
    RenderCollection,
)
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
    VecVideoRecorder,
)

from sb3_nbsp.tasks.makers import for_evaluation
from sb3_nbsp.tasks.sequence import TaskSequence

MakeTask = Callable[[], gym.Env]
# They change nothing that the agent sees or does
_PASSIVE = (Monitor, OrderEnforcing, PassiveEnvChecker, RecordEpisodeStatistics, RecordVideo, RenderCollection, HumanRendering)
# Likewise; or an agent's own environments get it, too (the normalization is applied from the agent's, images are transposed)
_PASSIVE_VEC = (VecMonitor, VecCheckNan, VecVideoRecorder, VecNormalize, VecTransposeImage)
ADVICE = (
    "Wrappers belong around the tasks, not around the sequence: "
    'TaskSequence({"a": lambda render_mode=None: Wrapper(make_a(render_mode))})'
)


def task_makers(env: VecEnv) -> dict[str, MakeTask]:
    """
    What makes an environment of each distinct task of a sequence, for use outside of training. What the agent learns through
    is there, too: wrappers around the sequence are copied, with what they have learned so far, each time one is made.

    :param env: the environment of training, whose environments are task sequences
    :return: by the task's name, a function without arguments
    :raises ValueError: if there are wrappers around the sequence that cannot be rebuilt, or the tasks' makers cannot leave
        their process
    """
    _check_vec_wrappers(env)
    base = env.unwrapped
    if isinstance(base, DummyVecEnv):
        return _makers_here(base.envs[0])
    _check_remote_wrappers(str(base.env_method("__str__", indices=0)[0]))
    pickled, problem = base.env_method("pickled_task_makers", indices=0)[0]
    if problem:
        raise ValueError(
            f"task_makers: what makes the tasks cannot leave the process of its environment ({problem}). "
            "Use functions or classes that can be pickled, or DummyVecEnv"
        )
    return _without_wrappers(cloudpickle.loads(pickled))


def single_task_makers(env: gym.Env) -> dict[str, MakeTask]:
    """
    See :func:`task_makers`.

    :param env: a task sequence, perhaps with wrappers around it
    :return: by the task's name, a function without arguments
    """
    return _makers_here(env)


def has_active_wrappers(env: VecEnv) -> bool:
    """
    :param env: the environment of training, whose environments are task sequences
    :return: whether there are wrappers around the sequences that change what the agent sees or does
    """
    base = env.unwrapped
    return isinstance(base, DummyVecEnv) and bool(_active_wrappers(base.envs[0]))


def _makers_here(env: gym.Env) -> dict[str, MakeTask]:
    sequence = env.unwrapped
    assert isinstance(sequence, TaskSequence)
    if not _active_wrappers(env):
        return _without_wrappers(sequence.task_makers)
    return {name: partial(_make_wrapped, env, sequence, name) for name in sequence.task_names}


def _without_wrappers(makers: Mapping[str, Callable[..., gym.Env]]) -> dict[str, MakeTask]:
    return {name: partial(for_evaluation(make_env), render_mode=None) for name, make_env in makers.items()}


def _make_wrapped(env: gym.Env, sequence: TaskSequence, task: str) -> gym.Env:
    """The task in copies of the wrappers around the sequence."""
    single: gym.Env = single_task(sequence, task)
    copies: dict[int, Any] = {id(sequence): single}
    for wrapper in reversed(_wrappers(env)):
        if isinstance(wrapper, Monitor):
            single = Monitor(single)  # returns and lengths are measured at the same place
        elif not isinstance(wrapper, _PASSIVE):
            single = _copy(wrapper, copies)
        copies[id(wrapper)] = single
    return single


def _copy(wrapper: gym.Wrapper, copies: dict[int, Any]) -> gym.Env:
    """
    :param wrapper: to copy
    :param copies: what takes the place of the environments inside it, by their ids
    """
    try:
        copied: gym.Env = copy.deepcopy(wrapper, dict(copies))
    except Exception as error:
        raise ValueError(
            f"{type(wrapper).__name__} around the whole sequence cannot be copied for its single tasks "
            f"({type(error).__name__}: {error}). {ADVICE}"
        ) from error
    if hasattr(copied, "update_running_mean"):  # Gymnasium's normalization learns in training only
        copied.update_running_mean = False
    return copied


def single_task(sequence: TaskSequence, task: str) -> TaskSequence:
    """
    A sequence that plays one task only, without phases. What it says of the task is what the whole sequence says.

    :param sequence: the whole sequence
    :param task: name of the task
    :return: the sequence
    """
    single = TaskSequence(sequence.task_makers, [task], cycles=1, rotate=True, check_spaces=False)
    single.task_names, single.n_phases = list(sequence.task_names), sequence.n_phases
    return single


def _wrappers(env: gym.Env) -> list[gym.Wrapper]:
    """From the outermost to the innermost."""
    found = []
    while isinstance(env, gym.Wrapper):
        found.append(env)
        env = env.env
    return found


def _active_wrappers(env: gym.Env) -> list[gym.Wrapper]:
    return [wrapper for wrapper in _wrappers(env) if not isinstance(wrapper, _PASSIVE)]


def _check_vec_wrappers(env: VecEnv) -> None:
    n_normalizers = 0
    while isinstance(env, VecEnvWrapper):
        n_normalizers += isinstance(env, VecNormalize)
        if not isinstance(env, _PASSIVE_VEC) or n_normalizers > 1:
            raise ValueError(
                f"{type(env).__name__} around the whole sequence cannot be rebuilt for its single tasks. {ADVICE}"
            )
        env = env.venv


def _check_remote_wrappers(description: str) -> None:
    """
    :param description: description of an environment in another process: "<Monitor<OrderEnforcing<TaskSequence instance>>>"
    """
    passive = {each.__name__ for each in _PASSIVE}
    # The sequence itself comes last, or is followed by its id
    found = re.fullmatch(r"((?:<\w+)*)<\w+(?: instance|<[^<>]+>)>+", description)
    active = [name for name in found[1].split("<")[1:] if name not in passive] if found else [description]
    if active:
        raise ValueError(
            f"{', '.join(active)} around the whole sequence cannot be rebuilt for its single tasks, as it is in another "
            f"process. {ADVICE}, or use DummyVecEnv"
        )
