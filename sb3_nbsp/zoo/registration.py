"""Make rl-zoo3 know this package's algorithms: it has no plugin mechanism, but its tables can be added to."""

from __future__ import annotations

from typing import Any

import optuna
import rl_zoo3
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER, convert_offpolicy_params, sample_sac_params

from sb3_nbsp.zoo.algos import ALGOS


def sample_nbsp_sac_params(
    trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """
    Sampler for NBSPSAC: SAC's hyperparameters and NBSP's own.

    :param trial: the Optuna trial
    :param n_actions: dimensions of the action space
    :param n_envs: number of parallel environments
    :param additional_args: see rl-zoo3
    :return: keyword arguments of NBSPSAC
    """
    return {
        **sample_sac_params(trial, n_actions, n_envs, additional_args),
        "skill_proportion": trial.suggest_float("skill_proportion", 0.05, 0.5),
        "mask_alpha": trial.suggest_float("mask_alpha", 0.0, 1.0),
        "replay_interval": trial.suggest_int("replay_interval", 2, 20),
    }


def register() -> None:
    """Add the algorithms, and how to sample their hyperparameters, to rl-zoo3's tables."""
    rl_zoo3.ALGOS.update(ALGOS)
    HYPERPARAMS_SAMPLER.update({"nbsp_sac": sample_nbsp_sac_params, "continual_sac": sample_sac_params})
    HYPERPARAMS_CONVERTER.update(dict.fromkeys(ALGOS, convert_offpolicy_params))
