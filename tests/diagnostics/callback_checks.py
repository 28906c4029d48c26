"""Small agents, and what a PlasticityCallback has written about them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_nbsp import PlasticityCallback


def ppo(algo: type[PPO] = PPO, env: Any = "Pendulum-v1", **options: Any) -> PPO:
    kwargs = {"net_arch": [20, 10]}
    return algo(
        "MlpPolicy", env, n_steps=100, batch_size=50, n_epochs=2, policy_kwargs=kwargs, seed=1, device="cpu", **options
    )


def sac(algo: type[SAC] = SAC, env: Any = "Pendulum-v1", **options: Any) -> SAC:
    kwargs = {"net_arch": [20, 10]}
    small = {"learning_starts": 20, "batch_size": 16, "buffer_size": 1_000}
    return algo("MlpPolicy", env, policy_kwargs=kwargs, seed=1, device="cpu", **{**small, **options})


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "plasticity.csv").open() as file:
        return list(csv.DictReader(file))


def steps(folder: Path) -> list[int]:
    return [int(row["step"]) for row in rows(folder)]


def callback(folder: Path | None, record_freq: int = 200, **options: Any) -> PlasticityCallback:
    return PlasticityCallback(record_freq, folder, **{"n_states": 60, "n_gradient_states": 8, "plot": False, **options})


def normalized() -> VecNormalize:
    return VecNormalize(make_vec_env("Pendulum-v1", n_envs=2, seed=3))
