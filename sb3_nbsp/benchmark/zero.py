"""Zero the skill neurons of a model that a comparison has trained, or of any other (NBSP, table 8)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
from rich.console import Console
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_nbsp.algorithms import NBSPSAC
from sb3_nbsp.benchmark.folder import RunFolder
from sb3_nbsp.benchmark.rendering import Table
from sb3_nbsp.diagnostics.zeroed_skills import zero_neurons
from sb3_nbsp.files import atomic_write
from sb3_nbsp.messages import did_you_mean
from sb3_nbsp.zoo.options import check_env_kwargs

FILE = "zero_neurons.csv"
WIDTH = 3  # columns beside each other on a terminal


def load_model(path: str | os.PathLike[str]) -> tuple[NBSPSAC, RunFolder, dict[str, Any]]:
    """The model of a zip or of a run's folder, that folder, and what its ``config.json`` says, nothing of a zip."""
    path = Path(path)
    folder = RunFolder(path if path.is_dir() else path.parent)
    model = folder.model if path.is_dir() else path
    if not model.is_file():
        why = ": it was deleted, or the run has not finished" if path.is_dir() else ""
        raise ValueError(f"There is no model {model}{why}")
    return NBSPSAC.load(model, device="cpu"), folder, folder.config() if path.is_dir() else {}


def make_sequence(env_id: str, env_kwargs: Mapping[str, Any]) -> gym.Env:
    """Make a task sequence; ValueError if there is no such environment, or it does not take the arguments."""
    try:
        check_env_kwargs(env_id, env_kwargs)
        return gym.make(env_id, **env_kwargs)
    except gym.error.UnregisteredEnv as error:
        raise ValueError(f"There is no environment {env_id!r}{did_you_mean(env_id, gym.registry, n=3)}") from error
    except (gym.error.Error, TypeError) as error:
        raise ValueError(f"{env_id} cannot be made with {dict(env_kwargs)}: {error}") from error


def zero(
    path: str | os.PathLike[str], env_id: str | None = None, env_kwargs: dict[str, Any] | None = None, **options: Any
) -> Path:
    """
    Print the table of :func:`~sb3_nbsp.diagnostics.zeroed_skills.zero_neurons` with its options, and write it as
    ``zero_neurons.csv`` beside the model.

    :param path: a model's zip, or the folder of a run
    :param env_id: id of a task sequence; None for that of the run
    :param env_kwargs: its arguments; None for those of the run, if the environment is the run's, too
    :return: the file
    """
    model, folder, config = load_model(path)
    own_id = config.get("env_id")
    if not (env_id or own_id):
        raise ValueError(f"{path} does not say which environment the model is of: give --env")
    own_kwargs = (config.get("env_kwargs") or {}) if env_id in (None, own_id) else {}
    with closing(make_sequence(str(env_id or own_id), own_kwargs if env_kwargs is None else env_kwargs)) as env:
        if folder.statistics.exists():  # the model has learned on normalized observations
            model.set_env(VecNormalize.load(str(folder.statistics), DummyVecEnv([lambda: env])))
        frame = pd.DataFrame(zero_neurons(model, env, **options))
    cells = frame.map(lambda value: f"{value:.2f}" if isinstance(value, float) else str(value))
    columns = [list(cells)[i : i + WIDTH] for i in range(1, cells.shape[1], WIDTH)]
    caption = f"Success with neurons zeroed, {options.get('n_eval_episodes', 20)} episodes"
    Table(caption, cells, columns, np.zeros(cells.shape, dtype=bool), frame, [], folder.path / FILE).print(Console())
    atomic_write(folder.path / FILE, frame.to_csv(index=False))
    return folder.path / FILE
