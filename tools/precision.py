"""
Is learning harmed by ``matmul_precision="medium"``? The same agents with the same seeds in both precisions; a line of a CSV
file for each run, and runs that are there already are skipped. ``--gradients`` writes the relative error of the gradients
along one run instead.
"""

from __future__ import annotations

import argparse
import copy
import csv
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from sb3_nbsp import P3O, ContinualSAC
from sb3_nbsp.fast.matmul_precision import PRECISIONS, bfloat16_layers_of
from sb3_nbsp.fast.perceptron import layers_of
from sb3_nbsp.fast.sac_gradients import MlpGradients
from sb3_nbsp.tasks.metaworld import make_metaworld_task

# Laptop size: short episodes, one of 50 goals in each
HORIZON = 200
EPISODES = 20
COLUMNS = ["task", "precision", "seed", "steps", "return", "success", "seconds"]


def sac(env: gym.Env, **options: Any) -> BaseAlgorithm:
    """SB3's defaults."""
    return ContinualSAC("MlpPolicy", env, device="cpu", **options)


def p3o(env: gym.Env, **options: Any) -> BaseAlgorithm:
    """The settings of the P3O paper, with resets often enough for a short run."""
    options = {"n_steps": 8192, "batch_size": 256, "reset_frequency": 20_000, "reset_rate": 0.05, **options}
    return P3O("MlpPolicy", env, policy_kwargs={"net_arch": [256, 256, 256]}, device="cpu", **options)


# For each task: the environment, the agent and its steps
TASKS: dict[str, tuple[Callable[[], gym.Env], Callable[..., BaseAlgorithm], int]] = {
    "Pendulum-v1": (lambda: gym.make("Pendulum-v1"), sac, 8000),
    "drawer-close": (lambda: make_metaworld_task("drawer-close", horizon=HORIZON), sac, 20_000),
    "HalfCheetah-v5": (lambda: gym.make("HalfCheetah-v5"), sac, 60_000),
    "Hopper-v5": (lambda: gym.make("Hopper-v5"), p3o, 300_000),
}


def evaluate(model: BaseAlgorithm, env: gym.Env, seed: int) -> tuple[float, float]:
    """
    :param model: acts without noise
    :param env: the task
    :param seed: of the first episode
    :return: mean return and share of successful episodes of :data:`EPISODES` episodes
    """
    returns, successes = np.zeros(EPISODES), np.zeros(EPISODES)
    for episode in range(EPISODES):
        observation, done = env.reset(seed=seed if episode == 0 else None)[0], False
        while not done:
            action = model.predict(observation, deterministic=True)[0]
            observation, reward, terminated, truncated, info = env.step(action)
            returns[episode] += float(reward)
            successes[episode] = max(successes[episode], info.get("success", 0.0))
            done = terminated or truncated
    return float(returns.mean()), float(successes.mean())


def run(task: str, precision: str, seed: int) -> dict[str, Any]:
    """One run: a line of the file."""
    make_env, make_agent, steps = TASKS[task]
    start = time.perf_counter()
    model = make_agent(make_env(), seed=seed, matmul_precision=precision).learn(steps)
    seconds = time.perf_counter() - start
    # Seeds of the evaluation are none of the training's
    mean_return, success = evaluate(model, make_env(), 10_000 + seed)
    return dict(zip(COLUMNS, [task, precision, seed, steps, mean_return, success, round(seconds, 1)], strict=True))


def compare(out: Path, tasks: list[str], seeds: list[int]) -> None:
    """
    All runs that the file lacks, both precisions of a seed before the next seed.

    :param out: the file
    :param tasks: which
    :param seeds: which
    """
    there = set()
    if out.exists():
        with out.open(encoding="utf-8") as file:
            there = {(row["task"], row["precision"], int(row["seed"])) for row in csv.DictReader(file)}
    for task in tasks:
        for seed in seeds:
            for precision in PRECISIONS:
                if (task, precision, seed) in there:
                    continue
                row = run(task, precision, seed)
                print(row, flush=True)
                is_new = not out.exists()
                with out.open("a", encoding="utf-8", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS)
                    if is_new:
                        writer.writeheader()
                    writer.writerow(row)


class GradientErrors(BaseCallback):
    """
    Every so often, the relative error of the gradients of actor and critics in both precisions, against double precision with
    the same batch and noise.

    :param every: steps
    """

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every
        self.rows: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        if self.num_timesteps % self.every == 0 and self.num_timesteps > self.model.learning_starts:
            self._measure()
        return True

    def _measure(self) -> None:
        data = self.model.replay_buffer.sample(256)
        state, exact = th.get_rng_state(), self._gradients(data, "double")
        for precision in PRECISIONS:
            th.set_rng_state(state)
            for name, gradient in self._gradients(data, precision).items():
                error = (gradient.double() - exact[name]).norm() / exact[name].norm()
                row = [self.num_timesteps, precision, name, error.item()]
                self.rows.append(dict(zip(["step", "precision", "parameter", "relative_error"], row, strict=True)))

    def _gradients(self, data: ReplayBufferSamples, precision: str) -> dict[str, th.Tensor]:
        networks = [copy.deepcopy(getattr(self.model, name)) for name in ("actor", "critic", "critic_target")]
        if precision == "double":
            networks = [net.double() for net in networks]
        gradients = MlpGradients(*networks, bfloat16_layers_of if precision == "medium" else layers_of)
        dtype = next(networks[0].parameters()).dtype
        with same_noise():
            log_prob = gradients.sample_actions(data)
            ent_coef = self.model.log_ent_coef.detach().exp().to(dtype)
            values = gradients.next_values(data, ent_coef)
            gradients.critic_loss(data, data.rewards.to(dtype) + (1 - data.dones.to(dtype)) * self.model.gamma * values)
            gradients.actor_loss(data, ent_coef)
        assert log_prob.dtype == dtype
        named = {"actor": networks[0], "critic": networks[1]}
        return {f"{net}.{name}": p.grad for net, module in named.items() for name, p in module.named_parameters()}


class same_noise:
    """Normal noise is drawn in double precision and rounded: PyTorch's stream depends on the precision."""

    def __enter__(self) -> None:
        self._normal = th.Tensor.normal_
        th.Tensor.normal_ = lambda tensor: tensor.copy_(th.randn(tensor.shape, dtype=th.float64))  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        th.Tensor.normal_ = self._normal  # type: ignore[method-assign]


def draw(path: Path) -> None:
    """
    A panel for each layer: the error in both precisions along the run.

    :param path: the CSV file of :class:`GradientErrors`; the figure is written beside it
    """
    import matplotlib.pyplot as plt
    import pandas as pd
    import seaborn as sns

    rows = pd.read_csv(path)
    rows = rows[rows.parameter.str.endswith("weight")]
    names = {"actor.latent_pi.0": "actor, layer 1", "actor.latent_pi.2": "actor, layer 2", "actor.mu": "actor, mean"}
    names |= {f"critic.qf0.{2 * i}": f"critic 1, {layer}" for i, layer in enumerate(("layer 1", "layer 2", "output"))}
    rows["layer"] = rows.parameter.str.removesuffix(".weight").map(names)
    rows["precision"] = rows.precision.map({"highest": "single precision", "medium": "medium (bfloat16)"})
    grid = sns.relplot(
        rows.dropna(), x="step", y="relative_error", hue="precision", col="layer", col_wrap=3, col_order=[*names.values()],
        kind="line", height=2, aspect=1.3,
    )  # fmt: skip
    grid.set(yscale="log", xlabel="environment steps", ylabel="relative error").set_titles("{col_name}")
    sns.move_legend(grid, "lower center", bbox_to_anchor=(0.45, 1), ncol=2, title=None, frameon=False)
    grid.savefig(path.with_suffix(".png"), dpi=120)
    plt.close("all")


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="which tasks")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="seeds of every task and precision")
    parser.add_argument("--out", type=Path, required=True, help="the CSV file")
    parser.add_argument("--gradients", action="store_true", help="errors of the gradients along a run of the first task")
    args = parser.parse_args()
    th.set_num_threads(1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if not args.gradients:
        compare(args.out, args.tasks, args.seeds)
        return
    make_env, make_agent, steps = TASKS[args.tasks[0]]
    errors = GradientErrors(steps // 40)
    make_agent(make_env(), seed=args.seeds[0]).learn(steps, errors)
    with args.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(errors.rows[0]))
        writer.writeheader()
        writer.writerows(errors.rows)
    draw(args.out)


if __name__ == "__main__":
    main()
