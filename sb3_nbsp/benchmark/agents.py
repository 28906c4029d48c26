"""Make the environment and the agent of a run, normalized where the run asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_nbsp.benchmark.run_settings import RunSettings
from sb3_nbsp.zoo.algos import algorithm
from sb3_nbsp.zoo.options import check_env_kwargs

STATISTICS = "vecnormalize.pkl"


def make_env(settings: RunSettings) -> VecEnv:
    """
    :param settings: the run's settings
    :return: its environment
    """
    n_envs = int(settings.hyperparams.get("n_envs", 1))
    env = make_vec_env(settings.env_id, n_envs, settings.seed, env_kwargs=settings.env_kwargs)
    normalization = settings.normalization()
    return env if normalization is None else VecNormalize(env, **normalization)


def make_agent(settings: RunSettings, env: VecEnv, **options: Any) -> BaseAlgorithm:
    """
    :param settings: the run's settings
    :param env: what :func:`make_env` returns
    :param options: options of the agent that take the place of those of the settings
    :return: a new agent
    """
    arguments = {**settings.arguments(), "seed": settings.seed, **options}
    return algorithm(settings.algo)(env=env, **arguments)


def save_agent(model: BaseAlgorithm, folder: Path) -> None:
    """
    Save an agent at the end of its run, with what it takes to act.

    :param model: the agent
    :param folder: the run's own folder
    """
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        normalizer.save(str(folder / STATISTICS))
    model.save(folder / "model.zip")


def check_settings(settings: RunSettings) -> None:
    """
    Make the environment and the agent of a run, and drop them.

    :param settings: the run's settings
    :raises ValueError: if one of the options does not exist or its value is out of its range
    """
    check_env_kwargs(settings.env_id, settings.env_kwargs)
    try:
        env = make_env(settings)
    except gym.error.Error as error:
        raise ValueError(f"{settings.env_id} cannot be made with {settings.env_kwargs}: {error}") from error
    try:
        make_agent(settings, env, device="cpu")
    except (TypeError, AssertionError) as error:
        raise ValueError(f"{settings.algo} cannot be made with {settings.hyperparams}: {error}") from error
    finally:
        env.close()
