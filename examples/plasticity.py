"""
How plastic is the network of a PPO or P3O agent? Trains a small one on MuJoCo, or loads one, then prints a table of the
diagnostics, and plots how they changed during training.
"""

import argparse
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from rich.console import Console
from rich.table import Table
from stable_baselines3 import PPO

from sb3_nbsp import P3O, Diagnostics, PlasticityCallback, diagnostics
from sb3_nbsp.diagnostics.figure import plot_plasticity
from sb3_nbsp.diagnostics.history import add_record, open_history

# The paper resets 1 % every 50 000 steps of millions
ALGOS: dict[str, tuple[type[PPO], dict[str, Any]]] = {
    "ppo": (PPO, {}),
    "p3o": (P3O, {"reset_frequency": 1024, "reset_rate": 0.05}),
}
MEANING = {
    "dormant_ratio": "share of neurons that do next to nothing",
    "weight_norm": "L1 norm of a neuron's incoming weights",
    "activation_norm": "mean |activation|",
    "effective_rank": "of the last hidden layer's activations",
    "stable_rank": "likewise, large directions counted more",
    "gradient_norm": "of log π(a|s) for single states",
    "gradient_correlation": "mean |cosine| of the gradients of two states",
}


def play(model: PPO, n_states: int) -> np.ndarray:
    """The observations that an agent meets, shape (states, ...)."""
    env = model.get_env()
    assert env is not None
    observations: Any = env.reset()
    met = []
    for _ in range(n_states):
        met.append(observations[0])
        actions, _states = model.predict(observations)
        observations, *_ = env.step(actions)
    return np.stack(met)


def report(found: Diagnostics, title: str) -> None:
    """Print the diagnostics."""
    table = Table("measure", "value", "meaning", title=title)
    for name, value in found.scalars().items():
        table.add_row(name, f"{value:.4g}", MEANING[name])
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--env", default="HalfCheetah-v5", help="id of the environment")
    parser.add_argument("--algo", choices=ALGOS, default="ppo", help="the algorithm")
    parser.add_argument("--steps", type=int, default=20_000, help="environment steps to train")
    parser.add_argument("--model", type=Path, help="zip of a trained PPO or P3O to measure instead of training")
    parser.add_argument("--seed", type=int, default=1, help="seed of the run")
    parser.add_argument("--out", type=Path, default=Path("results/plasticity"), help="folder of the results")
    args = parser.parse_args()
    th.set_num_threads(1)  # fastest for networks of this size

    if args.model is not None and not args.model.is_file():
        parser.error(f"there is no file {args.model}")
    name = args.algo.upper() if args.model is None else args.model.stem
    if args.model is None:
        algo, resets = ALGOS[args.algo]
        common = {"n_steps": 1024, "policy_kwargs": {"net_arch": [256, 256]}, "seed": args.seed}
        model = algo("MlpPolicy", args.env, **common, **resets)
        model.learn(args.steps, PlasticityCallback(record_freq=1024, folder=args.out), progress_bar=True)
    else:
        model = P3O.load(args.model, gym.make(args.env))  # it takes files of PPO, too

    found = diagnostics(model, play(model, n_states=2048))
    report(found, f"{name} on {args.env}: {found.n_neurons} hidden neurons, {found.n_states} states")
    if args.model is not None:
        open_history(args.out)
        add_record(args.out, model.num_timesteps, found.scalars(), found.gradient_covariance.numpy())
        plot_plasticity({name: args.out}, args.out / "plasticity.png")
    print(f"Picture: {args.out / 'plasticity.png'}")


if __name__ == "__main__":
    main()
