"""What `-optimize` may try of the methods' own options."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

# Attribute of a trial: its environment steps
BUDGET = "n_timesteps"


def log_uniform(**ranges: tuple[float, float]) -> Callable[[optuna.Trial], dict[str, Any]]:
    """
    :param ranges: by name of an option, its lowest and its highest value
    :return: a sampler of these options, uniform in their logarithms
    """
    return lambda trial: {name: trial.suggest_float(name, low, high, log=True) for name, (low, high) in ranges.items()}


def sample_nbsp(trial: optuna.Trial) -> dict[str, Any]:
    """
    :param trial: the Optuna trial
    :return: keyword arguments of NBSPSAC
    """
    return {
        "skill_proportion": trial.suggest_float("skill_proportion", 0.05, 0.5),
        "mask_alpha": trial.suggest_float("mask_alpha", 0.0, 1.0),
        "mask_side": trial.suggest_categorical("mask_side", ["incoming", "outgoing", "both"]),
        "identification": trial.suggest_categorical("identification", ["goal", "balanced"]),
        "replay_interval": trial.suggest_int("replay_interval", 2, 20),
    }


def sample_discrete_sac(trial: optuna.Trial) -> dict[str, Any]:
    """
    :param trial: the Optuna trial
    :return: keyword arguments that all agents for discrete actions with a temperature have
    """
    return {"target_entropy_scale": trial.suggest_float("target_entropy_scale", 0.2, 0.98)}


def _within_budget(trial: optuna.Trial, name: str, low: int, high: int, share: float) -> int:
    """A whole number that is at most a share of the trial's steps, so that in every trial the method acts."""
    budget: float = trial.user_attrs.get(BUDGET, math.inf)
    high = max(1, int(min(high, share * budget)))
    return trial.suggest_int(name, min(low, max(1, high // 20)), high, log=True)


def sample_reset(trial: optuna.Trial) -> dict[str, Any]:
    """
    :param trial: the Optuna trial
    :return: keyword arguments of the agents that reset neurons every so many steps; the P3O paper tries 20 000 to 100 000
        (its figure 18) with PPO. There are at least five resets in a trial
    """
    return {
        "reset_frequency": _within_budget(trial, "reset_frequency", 5_000, 100_000, share=0.2),
        "reset_rate": trial.suggest_float("reset_rate", 0.005, 0.1, log=True),
    }


def sample_sbp(trial: optuna.Trial) -> dict[str, Any]:
    """
    :param trial: the Optuna trial
    :return: keyword arguments of P3O and SBPSAC
    """
    return {
        **sample_reset(trial),
        "distill_alpha": trial.suggest_float("distill_alpha", 0.0, 1.0),
        "distill_threshold": trial.suggest_float("distill_threshold", 0.001, 0.1, log=True),
    }


def sample_cbp(trial: optuna.Trial) -> dict[str, Any]:
    """
    :param trial: the Optuna trial
    :return: keyword arguments of CBPPPO and CBPSAC
    """
    return {
        "replacement_rate": trial.suggest_float("replacement_rate", 1e-6, 1e-2, log=True),
        # In gradient steps, of which PPO makes fewer than environment steps
        "maturity_threshold": _within_budget(trial, "maturity_threshold", 100, 20_000, share=0.02),
    }


def sample_cotasp(trial: optuna.Trial) -> dict[str, Any]:
    """
    :param trial: the Optuna trial
    :return: keyword arguments of CoTASPSAC
    """
    return {
        "lasso_weight": trial.suggest_float("lasso_weight", 1e-4, 5e-2, log=True),
        "code_steps": trial.suggest_int("code_steps", 0, 100),
        "distill_steps": _within_budget(trial, "distill_steps", 1_000, 50_000, share=0.02),
    }


def sample_packnet(trial: optuna.Trial) -> dict[str, Any]:
    """
    :param trial: the Optuna trial
    :return: keyword arguments of PackNetSAC
    """
    return {"retrain_steps": _within_budget(trial, "retrain_steps", 1_000, 200_000, share=0.1)}


def sample_pi(trial: optuna.Trial) -> dict[str, Any]:
    """
    :param trial: the Optuna trial
    :return: keyword arguments of PISAC
    """
    return {
        "injection_networks": trial.suggest_categorical("injection_networks", ["both", "critic", "actor"]),
        "head_layers": trial.suggest_int("head_layers", 1, 2),
    }
