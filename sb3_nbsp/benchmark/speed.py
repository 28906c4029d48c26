"""
Time of a SAC gradient step: stock SB3, ContinualSAC, and NBSPSAC with its masks in place.

The variants take turns in one run; what is printed are ratios of their times, and the machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Sequence

import gymnasium as gym
import numpy as np
import stable_baselines3
import torch as th
from gymnasium import spaces
from rich.console import Console
from rich.progress import track
from rich.table import Table
from stable_baselines3 import SAC
from stable_baselines3.common.logger import Logger

from sb3_nbsp import NBSPSAC, ContinualSAC
from sb3_nbsp.interventions import Interventions, Phase


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


def measure(models: dict[str, SAC], rounds: int, steps: int) -> dict[str, np.ndarray]:
    """
    Seconds per gradient step, the models taking turns.

    :param models: by name
    :param rounds: number of turns
    :param steps: gradient steps per turn
    :return: by name, shape (rounds,)
    """
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in track(range(rounds + 1), description="measuring", transient=True):
        for name, model in models.items():
            start = time.perf_counter()
            model.train(gradient_steps=steps, batch_size=256)
            if turn > 0:  # the first turn warms up
                times[name].append((time.perf_counter() - start) / steps)
    return {name: np.array(values) for name, values in times.items()}


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    :param parser: gets the options of the command
    """
    parser.add_argument("--net-arch", type=int, nargs="+", default=[256, 256], help="sizes of the hidden layers")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each variant")
    parser.add_argument("--steps", type=int, default=20, help="gradient steps per turn")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")


def main(args: argparse.Namespace) -> None:
    """
    Measure and print.

    :param args: the options
    """
    th.set_num_threads(args.threads)
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
    console = Console()
    console.print(table)
    console.print(f"NBSP's masks take {share[1]:.2%} of its gradient step ({share[0]:.2%} to {share[2]:.2%}).")
    console.print(
        f"Median and quartiles of {args.rounds} rounds. {platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{args.threads} threads, torch {th.__version__}, stable_baselines3 {stable_baselines3.__version__}"
    )
