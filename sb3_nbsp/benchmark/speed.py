"""
Time of a SAC gradient step: stock SB3, ContinualSAC, and NBSPSAC with its masks in place. Time of an iteration of PPO: stock
SB3 and P3O between two resets; and of an epoch of P3O's distillation.

The variants take turns in one run; what is printed are ratios of their times, and the machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import stable_baselines3
import torch as th
from gymnasium import spaces
from rich.console import Console
from rich.progress import track
from rich.table import Table
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.logger import Logger

from sb3_nbsp import NBSPSAC, P3O, ContinualSAC
from sb3_nbsp.interventions import CycleReset, Interventions, Phase

DISTILLATION_EPOCHS = 10


class MetaWorldSizedEnv(gym.Env):
    """Spaces of the size of Meta-World's; it is never stepped."""

    observation_space = spaces.Box(-np.inf, np.inf, (39,), np.float32)
    action_space = spaces.Box(-1, 1, (4,), np.float32)


def make(cls: type[SAC], net_arch: Sequence[int], masked: bool = False) -> SAC:
    """
    An agent whose replay buffer holds random transitions.

    :param cls: its class
    :param net_arch: sizes of the hidden layers
    :param masked: let a phase end, so that masks and memory are in place
    :return: the agent
    """
    model = cls("MlpPolicy", MetaWorldSizedEnv(), buffer_size=10_000, policy_kwargs={"net_arch": list(net_arch)}, device="cpu")
    model.set_logger(Logger(None, []))
    buffer = model.replay_buffer
    assert buffer is not None
    rng = np.random.default_rng(0)
    for name in ("observations", "next_observations", "actions", "rewards"):
        array = getattr(buffer, name)
        array[:] = rng.standard_normal(array.shape)
    buffer.full = True
    if masked:
        model.phase_steps = buffer.size()  # type: ignore[attr-defined]
        hooks: Interventions = model.hooks  # type: ignore[attr-defined]
        for _ in range(10_000):
            hooks.on_transition(np.zeros(1), np.zeros(1, dtype=bool), [{"success": float(rng.random() < 0.5)}])
        hooks.on_phase_end(Phase(0, "task"))
    return model


def take_turns(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """
    Time some tasks, which take turns so that a busy machine is the same for all of them.

    :param tasks: by name
    :param rounds: number of turns, apart from one to warm up
    :return: seconds, by name, shape (rounds,)
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in track(range(rounds + 1), description="measuring", transient=True):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if turn > 0:
                times[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in times.items()}


def measure(models: dict[str, SAC], rounds: int, steps: int) -> dict[str, np.ndarray]:
    """
    Seconds per gradient step, the models taking turns.

    :param models: by name
    :param rounds: number of turns
    :param steps: gradient steps per turn
    :return: by name, shape (rounds,)
    """
    tasks = {name: partial(model.train, gradient_steps=steps, batch_size=256) for name, model in models.items()}
    return {name: seconds / steps for name, seconds in take_turns(tasks, rounds).items()}


def measure_masks(model: SAC, rounds: int, steps: int) -> np.ndarray:
    """
    What masks and memory cost, without the noise of comparing two agents: time of the hooks over time of a gradient step.

    :param model: an agent with masks
    :param rounds: number of turns
    :param steps: gradient steps per turn
    :return: shape (rounds,)
    """
    hooks: Interventions = model.hooks  # type: ignore[attr-defined]
    shares = []
    for _ in range(rounds):
        start = time.perf_counter()
        model.train(gradient_steps=steps, batch_size=256)
        trained = time.perf_counter()
        for step in range(steps):
            hooks.replay_source(step)
            for network in ("critic", "actor"):
                hooks.before_step(network)
                hooks.after_step(network)
        shares.append((time.perf_counter() - trained) / (trained - start))
    return np.array(shares)


def make_ppo(cls: type[PPO], env_id: str, net_arch: Sequence[int], n_steps: int, **kwargs: Any) -> PPO:
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
    reset = model.hooks.find(CycleReset)
    reset.renew([th.arange(2) for _ in reset.network.layers])


def measure_ppo(env_id: str, net_arch: Sequence[int], n_steps: int, rounds: int) -> dict[str, np.ndarray]:
    """
    Seconds of the parts of an iteration, the agents taking turns.

    :param env_id: the environment
    :param net_arch: sizes of the hidden layers
    :param n_steps: steps of a rollout
    :param rounds: number of turns
    :return: by name of the part, shape (rounds,)
    """
    epochs = DISTILLATION_EPOCHS
    sb3 = make_ppo(PPO, env_id, net_arch, n_steps)
    p3o = make_ppo(
        P3O,
        env_id,
        net_arch,
        n_steps,
        reset_frequency=2**62,
        distill_threshold=0,
        min_distill_epochs=epochs,
        max_distill_epochs=epochs,
    )
    assert isinstance(p3o, P3O)
    tasks: dict[str, Callable[[], object]] = {}
    for name, model in (("SB3 PPO", sb3), ("P3O", p3o)):
        tasks |= {f"{name}, rollout": partial(collect, model), f"{name}, update": model.train}
    seconds = take_turns({**tasks, "distillation": partial(distil, p3o)}, rounds)
    for name in ("SB3 PPO", "P3O"):
        seconds[f"{name}, iteration"] = seconds[f"{name}, rollout"] + seconds[f"{name}, update"]
        seconds[f"{name}, epoch"] = seconds[f"{name}, update"] / sb3.n_epochs
    seconds["P3O, distillation epoch"] = seconds.pop("distillation") / epochs
    return seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    :param parser: gets the options of the command
    """
    parser.add_argument("--net-arch", type=int, nargs="+", default=[256, 256], help="sizes of the hidden layers")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each variant")
    parser.add_argument("--steps", type=int, default=20, help="gradient steps per turn")
    parser.add_argument("--ppo-env", default="HalfCheetah-v5", help="environment of PPO")
    parser.add_argument("--ppo-net-arch", type=int, nargs="+", default=[256, 256, 256], help="sizes of PPO's hidden layers")
    parser.add_argument("--ppo-steps", type=int, default=2048, help="steps of PPO's rollout (the P3O paper's: 8192)")
    parser.add_argument("--ppo-rounds", type=int, default=7, help="turns of PPO's parts")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")


def sac_table(args: argparse.Namespace) -> tuple[Table, str]:
    """
    Measure SAC.

    :param args: the options
    :return: the gradient steps, and a sentence about the masks
    """
    models = {
        "SB3 SAC": make(SAC, args.net_arch),
        "ContinualSAC": make(ContinualSAC, args.net_arch),
        "NBSPSAC with masks": make(NBSPSAC, args.net_arch, masked=True),
    }
    times = measure(models, args.rounds, args.steps)
    reference, continual = times["SB3 SAC"], times["ContinualSAC"]
    table = Table("", "ms per step", "speed, SB3 = 1", "time, ContinualSAC = 1", title=f"SAC gradient step, {args.net_arch}")
    for name, values in times.items():
        speed, cost = np.percentile(reference / values, [25, 50, 75]), np.percentile(values / continual, [25, 50, 75])
        table.add_row(
            name,
            f"{1000 * np.median(values):.2f}",
            f"{speed[1]:.2f} ({speed[0]:.2f} to {speed[2]:.2f})",
            f"{cost[1]:.3f} ({cost[0]:.3f} to {cost[2]:.3f})",
        )
    share = np.percentile(measure_masks(models["NBSPSAC with masks"], args.rounds, args.steps), [25, 50, 75])
    return table, f"NBSP's masks take {share[1]:.2%} of its gradient step ({share[0]:.2%} to {share[2]:.2%})."


def ppo_table(args: argparse.Namespace) -> Table:
    """
    Measure PPO.

    :param args: the options
    :return: the parts of an iteration
    """
    seconds = measure_ppo(args.ppo_env, args.ppo_net_arch, args.ppo_steps, args.ppo_rounds)
    title = f"PPO on {args.ppo_env}, rollouts of {args.ppo_steps} steps, {args.ppo_net_arch}"
    table = Table("", "ms", "speed, SB3 = 1", "time, SB3 = 1", title=title)
    for part in ("rollout", "update", "iteration", "epoch"):
        reference = seconds[f"SB3 PPO, {part}"]
        for name in (f"SB3 PPO, {part}", f"P3O, {part}", *(["P3O, distillation epoch"] if part == "epoch" else [])):
            ratios = [np.percentile(each, [25, 50, 75]) for each in (reference / seconds[name], seconds[name] / reference)]
            spreads = [f"{each[1]:.2f} ({each[0]:.2f} to {each[2]:.2f})" for each in ratios]
            table.add_row(name, f"{1000 * np.median(seconds[name]):.0f}", *spreads)
    return table


def main(args: argparse.Namespace) -> None:
    """
    Measure and print.

    :param args: the options
    """
    th.set_num_threads(args.threads)
    sac, masks = sac_table(args)
    ppo = ppo_table(args)
    console = Console()
    console.print(sac)
    console.print(masks)
    console.print(ppo)
    console.print(
        f"Medians and quartiles of {args.rounds} and {args.ppo_rounds} rounds. {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, {args.threads} threads, torch {th.__version__}, "
        f"stable_baselines3 {stable_baselines3.__version__}"
    )
