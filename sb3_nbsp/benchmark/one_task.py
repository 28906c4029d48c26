"""One training run on an environment that is no task sequence, with the plasticity of its policy."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_nbsp.benchmark.progress_file import StepProgress
from sb3_nbsp.benchmark.resume import StartAfresh
from sb3_nbsp.benchmark.run_settings import RunSettings
from sb3_nbsp.files import atomic_write
from sb3_nbsp.plasticity import PlasticityCallback
from sb3_nbsp.tasks import latest_checkpoint
from sb3_nbsp.zoo.algos import algorithm

N_RECORDS = 30  # of the plasticity, in a run


def run_on_one_task(settings: RunSettings, folder: Path) -> dict[str, float]:
    """
    Train for the ``n_timesteps`` of the hyper-parameters, from the last checkpoint if there is one.

    :param settings: of the run
    :param folder: the run's own folder
    :return: the mean return of ``n_eval_episodes`` episodes of the deterministic policy ("return"), that of the last 100
        training episodes ("training_return"), the number of steps and the minutes of the last start
    """
    start = time.monotonic()
    options = settings.arguments()
    n_timesteps, normalize = int(options.pop("n_timesteps")), options.pop("normalize", False)
    env = make_vec_env(settings.env_id, int(options.pop("n_envs", 1)), settings.seed, env_kwargs=settings.env_kwargs)
    model = _continue_or_start(settings, options, env, bool(normalize), folder)
    callbacks = [
        PlasticityCallback(max(1, n_timesteps // N_RECORDS), folder, plot=False),
        StepProgress(folder / "progress.json", n_timesteps),
        StartAfresh(settings.seed, settings.save_freq, folder, waits=False),
    ]
    if model.num_timesteps < n_timesteps:
        model.learn(n_timesteps - model.num_timesteps, callback=callbacks, reset_num_timesteps=False)
    model.save(folder / "model.zip")
    minutes = (time.monotonic() - start) / 60
    result = {
        "return": _evaluate(model, settings),
        "training_return": float(np.mean([episode["r"] for episode in model.ep_info_buffer or []])),
        "steps": model.num_timesteps,
        "minutes_since_last_start": minutes,
    }
    atomic_write(folder / "result.json", json.dumps(result, indent=2) + "\n")
    return result


def _continue_or_start(
    settings: RunSettings, options: dict[str, Any], env: VecEnv, normalize: bool, folder: Path
) -> BaseAlgorithm:
    checkpoint = latest_checkpoint(folder)
    cls = algorithm(settings.algo)
    if checkpoint is None:
        return cls(env=VecNormalize(env) if normalize else env, seed=settings.seed, **options)
    if normalize:
        env = VecNormalize.load(str(checkpoint / "vecnormalize.pkl"), env)
    model = cls.load(checkpoint / "model.zip", env=env)
    if isinstance(model, OffPolicyAlgorithm):
        model.load_replay_buffer(checkpoint / "replay_buffer.pkl")
    return model


def _evaluate(model: BaseAlgorithm, settings: RunSettings) -> float:
    env = make_vec_env(settings.env_id, seed=settings.seed + 1_000_000, env_kwargs=settings.env_kwargs)
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        env = VecNormalize(env, training=False, norm_reward=False)
        env.obs_rms = normalizer.obs_rms
    mean, _ = evaluate_policy(model, env, settings.n_eval_episodes)
    assert isinstance(mean, float)
    return mean
