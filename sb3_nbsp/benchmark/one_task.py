"""One training run on an environment that is no task sequence, with the plasticity of its policy."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from sb3_nbsp.benchmark.agents import make_agent, make_env, save_agent
from sb3_nbsp.benchmark.progress_file import StepProgress
from sb3_nbsp.benchmark.resume import StartAfresh
from sb3_nbsp.benchmark.run_settings import RunSettings
from sb3_nbsp.files import atomic_write
from sb3_nbsp.plasticity import PlasticityCallback
from sb3_nbsp.tasks import latest_checkpoint, load_checkpoint
from sb3_nbsp.zoo.algos import algorithm

N_RECORDS = 30  # of the plasticity, in a run


def run_on_one_task(settings: RunSettings, folder: Path) -> dict[str, float]:
    """
    Train for the ``n_timesteps`` of the hyper-parameters, from the last checkpoint if there is one.

    :param settings: the run's settings
    :param folder: the run's own folder
    :return: the mean return of ``n_eval_episodes`` episodes of the deterministic policy ("return"), that of the last 100
        training episodes ("training_return"), the number of steps and the minutes of the last start
    """
    start = time.monotonic()
    n_timesteps = int(settings.hyperparams["n_timesteps"])
    checkpoint = latest_checkpoint(folder)
    env = make_env(settings)
    model = make_agent(settings, env) if checkpoint is None else load_checkpoint(algorithm(settings.algo), checkpoint, env)
    callbacks = [
        PlasticityCallback(max(1, n_timesteps // N_RECORDS), folder, plot=False),
        StepProgress(folder / "progress.json", n_timesteps),
        StartAfresh(settings.seed, settings.save_freq, folder, waits=False),
    ]
    if model.num_timesteps < n_timesteps:
        model.learn(n_timesteps - model.num_timesteps, callback=callbacks, reset_num_timesteps=False)
    save_agent(model, folder)
    minutes = (time.monotonic() - start) / 60
    result = {
        "return": _evaluate(model, settings),
        "training_return": float(np.mean([episode["r"] for episode in model.ep_info_buffer or []])),
        "steps": model.num_timesteps,
        "minutes_since_last_start": minutes,
    }
    atomic_write(folder / "result.json", json.dumps(result, indent=2) + "\n")
    return result


def _evaluate(model: BaseAlgorithm, settings: RunSettings) -> float:
    env = make_vec_env(settings.env_id, seed=settings.seed + 1_000_000, env_kwargs=settings.env_kwargs)
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        env = VecNormalize(env, training=False, norm_reward=False)
        env.obs_rms = normalizer.obs_rms
    mean, _ = evaluate_policy(model, env, settings.n_eval_episodes)
    assert isinstance(mean, float)
    return mean
