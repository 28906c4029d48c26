"""An iteration of PPO: stock SB3, and P3O between two resets; and an epoch of P3O's distillation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger

from sb3_nbsp import P3O
from sb3_nbsp.interventions import CycleReset
from tools.speed.turns import Row, take_turns

DISTILLATION_EPOCHS = 10
GOALS = {"iteration": 1.35, "distillation": 0.5}
MEDIUM_GOALS = {"update": 1.6, "distillation": 0.4}


def make(cls: type[PPO], env_id: str, net_arch: Sequence[int], n_steps: int, **kwargs: Any) -> PPO:
    """
    An agent with the P3O paper's settings, apart from the length of its rollouts.

    :param cls: its class
    :param env_id: the environment
    :param net_arch: sizes of the hidden layers of actor and critic
    :param n_steps: steps of a rollout
    :param kwargs: options of the class
    :return: the agent, ready to collect
    """
    policy_kwargs = {"net_arch": list(net_arch)}
    model = cls(
        "MlpPolicy", env_id, n_steps=n_steps, batch_size=256, policy_kwargs=policy_kwargs, device="cpu", seed=0, **kwargs
    )
    model.set_logger(Logger(None, []))
    model._setup_learn(2**62)
    return model


def collect(model: PPO) -> None:
    """
    One rollout.

    :param model: the agent
    """
    assert model.env is not None
    model.collect_rollouts(model.env, model._init_callback(None), model.rollout_buffer, model.n_steps)


def distil(model: P3O) -> None:
    """
    A reset of two neurons of each layer, and :data:`DISTILLATION_EPOCHS` epochs of distillation.

    :param model: the agent, which has a rollout
    """
    reset = model.all_interventions.find(CycleReset)
    reset.renew([th.arange(2) for _ in reset.network.layers])


def measure_parts(env_id: str, net_arch: Sequence[int], n_steps: int, rounds: int) -> dict[str, np.ndarray]:
    """
    Seconds of the parts of an iteration, the agents taking turns.

    :param env_id: the environment
    :param net_arch: sizes of the hidden layers
    :param n_steps: steps of a rollout
    :param rounds: number of turns
    :return: by name of the part, shape (rounds,)
    """
    epochs = DISTILLATION_EPOCHS
    sb3 = make(PPO, env_id, net_arch, n_steps)
    options: dict[str, Any] = {"reset_frequency": 2**62, "distill_threshold": 0}
    options |= {"min_distill_epochs": epochs, "max_distill_epochs": epochs}
    agents = {
        "P3O": make(P3O, env_id, net_arch, n_steps, **options),
        "medium": make(P3O, env_id, net_arch, n_steps, **options, matmul_precision="medium"),
    }
    tasks: dict[str, Callable[[], object]] = {}
    for name, model in (("SB3", sb3), *agents.items()):
        tasks |= {f"{name}, rollout": partial(collect, model), f"{name}, update": model.train}
        if isinstance(model, P3O):
            tasks[f"{name}, distillation"] = partial(distil, model)
    seconds = take_turns(tasks, rounds, f"PPO, {env_id}")
    for name in ("SB3", *agents):
        seconds[f"{name}, iteration"] = seconds[f"{name}, rollout"] + seconds[f"{name}, update"]
        seconds[f"{name}, epoch"] = seconds[f"{name}, update"] / sb3.n_epochs
    for name in agents:
        seconds[f"{name}, distillation epoch"] = seconds.pop(f"{name}, distillation") / epochs
    return seconds


def measure(env_id: str, net_arch: Sequence[int], n_steps: int, rounds: int) -> list[Row]:
    """
    Measure on the CPU.

    :param env_id: the environment
    :param net_arch: sizes of the hidden layers
    :param n_steps: steps of a rollout
    :param rounds: number of turns
    :return: lines of the table
    """
    seconds = measure_parts(env_id, net_arch, n_steps, rounds)
    rows = [Row(f"PPO on {env_id}, {n_steps} steps: SB3's iteration", seconds["SB3, iteration"], "s")]
    for name, words, goals in (("P3O", "", GOALS), ("medium", ', "medium"', MEDIUM_GOALS)):
        for part in ("rollout", "update", "iteration"):
            ratio = seconds[f"SB3, {part}"] / seconds[f"{name}, {part}"]
            rows.append(Row(f"P3O without a reset{words}: {part}", ratio, "× SB3", goals.get(part)))
        ratio, goal = seconds[f"{name}, distillation epoch"] / seconds["SB3, epoch"], goals["distillation"]
        rows.append(Row(f"P3O{words}: time of a distillation epoch", ratio, "× SB3's epoch", goal, at_least=False))
    return rows
