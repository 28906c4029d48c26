"""
Measure the constants of MinAtar's normalized scores (sb3_nbsp/tasks/minatar.py), with their standard errors.

``python -m tools.minatar_scores random`` plays 1000 games of random actions of each game. ``python -m tools.minatar_scores
trained`` trains SB3's DQN alone on each game, for as many steps as a phase has, and plays 100 games with it; ``--games
Breakout`` chooses games, ``--steps 5000000 --seeds 1 2 3`` trains longer, and several times. With ``--folder
runs/minatar``, training continues from its last checkpoint when the command is run again.
The last line of each is the dictionary to write into that file.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env

from sb3_nbsp.benchmark.baselines import RandomAgent
from sb3_nbsp.tasks import SequenceCheckpoint, latest_checkpoint, load_checkpoint
from sb3_nbsp.tasks.checkpoint import save_checkpoint
from sb3_nbsp.tasks.minatar import GAMES, make_minatar_task
from sb3_nbsp.tasks.policy_evaluation import SEED, evaluate_task
from tools.minatar_learning import dqn

SAVE_FREQ = 250_000


def play(agent, game: str, n_games: int, seed: int) -> list[float]:
    """Returns of whole games, with drawn actions."""
    env = make_vec_env(lambda: make_minatar_task(game))
    returns: list[float] = []

    def keep(_: object = None) -> None:
        returns.append(env.envs[0].get_episode_rewards()[-1])

    evaluate_task(agent, env, n_games, seed, keep, deterministic=False)
    return returns


def random_play(game: str, n_games: int) -> list[float]:
    env = make_vec_env(lambda: make_minatar_task(game))
    return play(RandomAgent(env.action_space), game, n_games, SEED)


def train(game: str, steps: int, seed: int, folder: Path | None) -> DQN:
    """The DQN of tools/minatar_learning.py, on a game alone."""
    env = make_vec_env(lambda: make_minatar_task(game), seed=seed)
    place = None if folder is None else folder / f"{game}_{seed}_{steps}"
    checkpoint = None if place is None else latest_checkpoint(place)
    if checkpoint is not None:
        model = load_checkpoint(DQN, checkpoint, env)
    else:
        model = dqn(env, seed, steps)
    if model.num_timesteps < steps:
        callback = None if place is None else SequenceCheckpoint(SAVE_FREQ, place)
        model.learn(steps - model.num_timesteps, callback=callback, reset_num_timesteps=False)
        if place is not None:
            save_checkpoint(model, place)
    return model


def trained_play(game: str, n_games: int, steps: int, seeds: list[int], folder: Path | None) -> list[float]:
    """Of one DQN for each seed."""
    returns = []
    for seed in seeds:
        model = train(game, steps, seed, folder)
        model.exploration_rate = 0.0
        returns += play(model, game, n_games, SEED)
        print(f"{game}, seed {seed}: {np.mean(returns[-n_games:]):.2f} over {n_games} games after {steps} steps", flush=True)
    return returns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent", choices=["random", "trained"])
    parser.add_argument("--games", nargs="+", choices=list(GAMES), default=list(GAMES))
    parser.add_argument("--n-games", type=int, help="games to play (default: 1000 with random actions, 100 for each seed)")
    parser.add_argument("--steps", type=int, default=300_000, help="of training; a phase has as many by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of training")
    parser.add_argument("--folder", type=Path, help="where training keeps its checkpoints (default: none are kept)")
    args = parser.parse_args()
    measure: Callable[[str], list[float]]
    if args.agent == "random":
        measure = lambda game: random_play(game, args.n_games or 1_000)  # noqa: E731
    else:
        measure = lambda game: trained_play(game, args.n_games or 100, args.steps, args.seeds, args.folder)  # noqa: E731
    means = {}
    for game in args.games:
        returns = measure(game)
        means[game] = round(float(np.mean(returns)), 3)
        error = np.std(returns, ddof=1) / np.sqrt(len(returns)) if len(returns) > 1 else np.nan
        print(f"{game}: {means[game]} ± {error:.3f} over {len(returns)} games", flush=True)
    print(f"{args.agent.upper()} = {means}")


if __name__ == "__main__":
    main()
