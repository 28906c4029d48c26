"""Make rl-zoo3 know this package's algorithms: it has no plugin mechanism, but its tables can be added to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_nbsp.algorithms import ContinualDiscreteSAC
from sb3_nbsp.extras import needs
from sb3_nbsp.zoo.algos import ALGOS, TABLE
from sb3_nbsp.zoo.samplers import sample_discrete_sac

with needs("zoo", "sb3_nbsp.zoo"):
    import optuna
    import rl_zoo3
    from rl_zoo3.hyperparams_opt import (
        HYPERPARAMS_CONVERTER,
        HYPERPARAMS_SAMPLER,
        convert_offpolicy_params,
        convert_onpolicy_params,
        sample_ppo_params,
        sample_sac_params,
    )

Sampler = Callable[[optuna.Trial, int, int, dict[str, Any]], dict[str, Any]]


def sampler(algo: str) -> Sampler:
    """
    Sampler of an algorithm: PPO's or SAC's hyperparameters and the method's own.

    :param algo: one of ``ALGOS``
    :return: what rl-zoo3 calls to sample keyword arguments of the algorithm
    """
    base = sample_ppo_params if _is_on_policy(algo) else sample_sac_params
    owns = [TABLE[algo].sample, sample_discrete_sac if issubclass(ALGOS[algo], ContinualDiscreteSAC) else None]

    def sample(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
        sampled = base(trial, n_actions, n_envs, additional_args)
        for own in filter(None, owns):
            sampled |= own(trial)
        return _without_own(algo, sampled)

    return sample


def converter(algo: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """
    :param algo: one of ``ALGOS``
    :return: what rl-zoo3 calls to make keyword arguments of a trial's parameters
    """
    base = convert_onpolicy_params if _is_on_policy(algo) else convert_offpolicy_params
    return lambda parameters: _without_own(algo, base(parameters))


def _without_own(algo: str, hyperparams: dict[str, Any]) -> dict[str, Any]:
    """Leave out of ``policy_kwargs`` what makes up the method."""
    for name in getattr(ALGOS[algo], "own_policy_kwargs", ()):
        hyperparams.get("policy_kwargs", {}).pop(name, None)
    return hyperparams


def _is_on_policy(algo: str) -> bool:
    return issubclass(ALGOS[algo], OnPolicyAlgorithm)


def register() -> None:
    """Add the algorithms, and how to sample their hyperparameters, to rl-zoo3's tables."""
    rl_zoo3.ALGOS.update(ALGOS)
    samplers: dict[str, Any] = HYPERPARAMS_SAMPLER
    converters: dict[str, Any] = HYPERPARAMS_CONVERTER
    for algo in ALGOS:
        samplers[algo] = sampler(algo)
        converters[algo] = converter(algo)
