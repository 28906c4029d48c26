"""
P3O against PPO on HalfCheetah-v5, with the P3O paper's settings (table 3), scaled down: the paper trains for 12.5 million
steps, with rollouts of 8192, and renews 1 % of each layer 250 times. Here rollouts are shorter, and 5 % are renewed 50 times,
so that every neuron is renewed 2.5 times, as in the paper, if training is long enough.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch as th
from rich.console import Console
from rich.table import Table
from stable_baselines3 import PPO
from torch import nn

from sb3_nbsp import P3O, PlasticityCallback
from sb3_nbsp.diagnostics.figure import plot_plasticity
from sb3_nbsp.diagnostics.history import read_history

MEASURES = {"ep_rew_mean": "return", "weight_norm": "weight norm", "dormant_ratio": "dormant ratio"}


def settings(n_steps: int, seed: int) -> dict[str, Any]:
    """What both have in common: table 3, but for the length of a rollout."""
    return {
        "n_steps": n_steps,
        "batch_size": 256,
        "n_epochs": 10,
        "learning_rate": 3e-4,
        "gamma": 0.99,
        "clip_range": 0.2,
        "policy_kwargs": {"net_arch": [256, 256, 256], "activation_fn": nn.Tanh},
        "seed": seed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps of each run")
    parser.add_argument("--env", default="HalfCheetah-v5", help="id of the environment")
    parser.add_argument("--seed", type=int, default=1, help="seed of both runs")
    parser.add_argument("--out", type=Path, default=Path("results/p3o_halfcheetah"), help="folder of the results")
    args = parser.parse_args()
    th.set_num_threads(1)  # fastest for networks of this size

    n_steps = max(1, min(32, args.steps // 50 // 256)) * 256
    agents: dict[str, Callable[..., PPO]] = {
        "PPO": PPO,
        "P3O": partial(P3O, reset_frequency=max(n_steps, args.steps // 50), reset_rate=0.05),
    }
    folders = {name: args.out / name for name in agents}
    for name, make in agents.items():
        print(f"{name}, {args.steps:,} steps:")
        agent = make("MlpPolicy", args.env, **settings(n_steps, args.seed))
        agent.learn(args.steps, PlasticityCallback(n_steps, folders[name]), progress_bar=True)
        agent.save(folders[name] / "model")

    table = Table("", *MEASURES.values(), "resets per neuron", title=f"{args.env} after {args.steps:,} steps, one seed")
    for name, folder in folders.items():
        last = {measure: values[-1] for measure, values in read_history(folder).items()}
        resets = 0.0 if name == "PPO" else last["resets_per_neuron"]
        table.add_row(name, *(f"{last[measure]:.4g}" for measure in MEASURES), f"{resets:.2f}")
    Console().print(table)
    picture = args.out / "p3o_halfcheetah.png"
    plot_plasticity(folders, picture, measures=list(MEASURES), title=args.env)
    print(f"Picture: {picture}")


if __name__ == "__main__":
    main()
