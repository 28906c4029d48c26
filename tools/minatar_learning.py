"""
Compare how agents for discrete actions learn a MinAtar game alone: this package's SAC, SB3's DQN, and SDSAC, of sb3-soft
(pip install sb3-soft). They have the same network, replay buffer, batches and learning rate and as many gradient steps, and
the temperature of both SACs begins at 0.1; the rest is each one's own.

    python -m tools.minatar_learning runs/minatar --games Breakout Freeway --seeds 1 2 3

writes runs/minatar/curves.csv (columns game, agent, seed, step and return: the mean over the episodes of an evaluation, with
deterministic actions) and curves.png, a line for each seed. A run that is complete is not repeated; one that was interrupted
begins anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from sb3_nbsp import ContinualDiscreteSAC
from sb3_nbsp.figure_style import COLORS, STYLE, panels, save
from sb3_nbsp.files import atomic_path
from sb3_nbsp.tasks.minatar import ACTIONS, GAMES, make_minatar_task

TARGET_INTERVAL, ENTROPY_SCALE, INITIAL_TEMPERATURE = 1_000, 0.5, "auto_0.1"
ALIKE: dict[str, Any] = {
    "policy": "MlpPolicy",
    "learning_rate": 3e-4,
    "buffer_size": 100_000,
    "learning_starts": 5_000,
    "batch_size": 64,
    "train_freq": 4,
    "gradient_steps": 1,
    "policy_kwargs": {"net_arch": [256, 256]},
}


def discrete_sac(env: VecEnv, seed: int, steps: int) -> BaseAlgorithm:
    """This package's."""
    own = {
        "tau": 1.0,
        "target_update_interval": TARGET_INTERVAL,
        "target_entropy_scale": ENTROPY_SCALE,
        "ent_coef": INITIAL_TEMPERATURE,
    }
    return ContinualDiscreteSAC(env=env, seed=seed, **own, **ALIKE)


def dqn(env: VecEnv, seed: int, steps: int) -> DQN:
    """SB3's, whose share of random actions falls to 0.1 within 100 000 steps, as in the MinAtar paper."""
    own = {"tau": 1.0, "target_update_interval": TARGET_INTERVAL, "exploration_final_eps": 0.1}
    return DQN(env=env, seed=seed, exploration_fraction=min(1.0, 100_000 / steps), **own, **ALIKE)


def sdsac(env: VecEnv, seed: int, steps: int) -> BaseAlgorithm:
    """
    That of sb3-soft, with its own soft target updates: it counts the interval of hard ones within one call of train(), so with
    one gradient step a call they would follow every step.
    """
    from sb3_soft import SDSAC

    own = {
        "tau": 0.005,
        "target_entropy": ENTROPY_SCALE * np.log(len(ACTIONS)),
        "ent_coef": INITIAL_TEMPERATURE,
    }
    return SDSAC(env=env, seed=seed, **own, **ALIKE)


AGENTS: dict[str, Callable[[VecEnv, int, int], BaseAlgorithm]] = {"discrete_sac": discrete_sac, "dqn": dqn, "sdsac": sdsac}


def run(folder: Path, game: str, agent: str, seed: int, args: argparse.Namespace) -> pd.DataFrame:
    """The curve of a run, which is trained if its file is not there."""
    path = folder / "runs" / f"{game}_{agent}_{seed}_{args.steps}_{args.eval_freq}_{args.eval_episodes}.csv"
    if not path.exists():
        model = AGENTS[agent](make_vec_env(lambda: make_minatar_task(game), seed=seed), seed, args.steps)
        evaluation = EvalCallback(
            make_vec_env(lambda: make_minatar_task(game), seed=seed + 1_000),
            n_eval_episodes=args.eval_episodes,
            eval_freq=args.eval_freq,
            log_path=str(path.with_suffix("")),
            deterministic=True,
            verbose=0,
        )
        model.learn(args.steps, callback=evaluation)
        with np.load(path.with_suffix("") / "evaluations.npz") as found:
            curve = pd.DataFrame({"step": found["timesteps"], "return": found["results"].mean(axis=1)})
        with atomic_path(path) as temporary:
            curve.to_csv(temporary, index=False)
    curve = pd.read_csv(path)
    print(
        f"{game}, {agent}, seed {seed}: mean return of the last five evaluations {curve['return'].tail(5).mean():.2f}",
        flush=True,
    )
    return curve.assign(game=game, agent=agent, seed=seed)


def draw(curves: pd.DataFrame, path: Path) -> Path:
    """A panel for each game, a colour for each agent and a line for each seed."""
    agents = [agent for agent in AGENTS if agent in set(curves["agent"])]
    games = sorted(set(curves["game"]))
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(len(games), 2, (4.0, 2.6))
        for ax, game in zip(axes, games, strict=True):
            sns.lineplot(
                curves[curves["game"] == game],
                x="step",
                y="return",
                hue="agent",
                hue_order=agents,
                palette=COLORS[: len(agents)],
                units="seed",
                estimator=None,
                linewidth=1,
                legend=ax is axes[0],
                ax=ax,
            )
            ax.set(title=game, xlabel="environment steps", ylabel="return of an evaluation")
            ax.grid(True)
        return save(figure, path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where runs, curves and figure go")
    parser.add_argument("--games", nargs="+", choices=list(GAMES), default=["Breakout", "Freeway"])
    parser.add_argument("--agents", nargs="+", choices=list(AGENTS), default=list(AGENTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=500_000, help="of each run (default: %(default)s)")
    parser.add_argument("--eval-freq", type=int, default=25_000, help="steps between evaluations (default: %(default)s)")
    parser.add_argument("--eval-episodes", type=int, default=20, help="games of an evaluation (default: %(default)s)")
    args = parser.parse_args(arguments)
    if "sdsac" in args.agents and find_spec("sb3_soft") is None:
        parser.error("sdsac needs sb3-soft (pip install sb3-soft); --agents discrete_sac dqn does without")
    th.set_num_threads(1)
    (args.folder / "runs").mkdir(parents=True, exist_ok=True)
    frames = [run(args.folder, game, agent, seed, args) for seed in args.seeds for game in args.games for agent in args.agents]
    curves = pd.concat(frames, ignore_index=True)[["game", "agent", "seed", "step", "return"]]
    curves.to_csv(args.folder / "curves.csv", index=False)
    print(draw(curves, args.folder / "curves.png"))


if __name__ == "__main__":
    main()
