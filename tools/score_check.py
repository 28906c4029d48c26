"""
What the scores of skill neurons depend on: for saved SAC agents, which neurons the printed score and the one corrected for
chance choose on two windows of fresh steps, and on the same steps with the goal metric shuffled. A line of a CSV file for each
agent, network and score.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

from sb3_nbsp import ContinualSAC
from sb3_nbsp.interventions.goal_window import GoalWindow
from sb3_nbsp.interventions.networks import networks_of
from sb3_nbsp.interventions.rollout import fresh_steps
from sb3_nbsp.neurons.activations import record_activations
from sb3_nbsp.neurons.scores import active_share, balanced_score, goal_oriented_score, select_top
from sb3_nbsp.tasks.metaworld import make_metaworld_task

PROPORTION, FLOOR, HORIZON = 0.2, 0.01, 200
# "literal" is the printed score without a floor for neurons that hardly ever change
SCORES = ("literal", "goal", "balanced")
COLUMNS = ["agent", "network", "score", "success", "chosen", "not_eligible", "windows_overlap", "shuffled_overlap"]


def overlap(one: th.Tensor, other: th.Tensor) -> float:
    """Share that is in both of those in either."""
    return float((one & other).sum() / (one | other).sum())


def window_of(agent: ContinualSAC, task: str, n_steps: int, seed: int) -> tuple[Any, np.ndarray]:
    """Fresh steps, and whether each succeeded."""
    window = GoalWindow(n_steps, 1, None)
    buffer = fresh_steps(agent, lambda: make_metaworld_task(task, horizon=HORIZON), n_steps, seed, window)
    rows, envs, goal = window.select("step_success", buffer)
    observations, actions = buffer.observations[rows, envs], buffer.actions[rows, envs]
    return (th.as_tensor(observations), th.as_tensor(actions)), goal


def choose(name: str, activations: th.Tensor, goal: np.ndarray) -> tuple[th.Tensor, th.Tensor]:
    """The neurons that a score chooses, and which of all are eligible."""
    eligible = active_share(activations) >= FLOOR
    may = th.ones_like(eligible) if name == "literal" else eligible
    score = balanced_score if name == "balanced" else goal_oriented_score
    return select_top(score(activations, th.as_tensor(goal)).masked_fill(~may, 0.5), PROPORTION, may), eligible


def check(path: Path, task: str, n_steps: int) -> list[dict[str, Any]]:
    """The lines of one agent."""
    agent = ContinualSAC.load(path, device="cpu")
    windows = [window_of(agent, task, n_steps, seed) for seed in (1, 2)]
    if any(goal.min() == goal.max() for _, goal in windows):
        raise ValueError(f"{path}: all steps of a window succeeded, or none")
    lines = []
    for network in networks_of(agent):
        seen = [record_activations(network.forward, inputs, network.layers) for inputs, _ in windows]
        for name in SCORES:
            found = [choose(name, each, goal) for each, (_, goal) in zip(seen, windows, strict=True)]
            shuffled = [
                choose(name, each, np.random.default_rng(seed).permutation(goal))[0]
                for seed, (each, (_, goal)) in enumerate(zip(seen, windows, strict=True))
            ]
            chosen = [each for each, _ in found]
            lines.append(
                {
                    "agent": f"{path.parent.name}/{path.stem}",
                    "network": network.name,
                    "score": name,
                    "success": round(float(np.mean([goal.mean() for _, goal in windows])), 3),
                    "chosen": int(np.mean([int(each.sum()) for each in chosen])),
                    "not_eligible": round(float(np.mean([float((c & ~may).sum() / c.sum()) for c, may in found])), 3),
                    "windows_overlap": round(overlap(*chosen), 3),
                    "shuffled_overlap": round(float(np.mean([*map(overlap, chosen, shuffled)])), 3),
                }
            )
    return lines


def main() -> None:
    """Check all agents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("agents", type=Path, nargs="+", help="zip files of SAC agents, such as those of tools/task_matrix.py")
    parser.add_argument("--task", default="coffee-button", help="the task that they play")
    parser.add_argument("--steps", type=int, default=10_000, help="steps of a window")
    parser.add_argument("--out", type=Path, required=True, help="the CSV file")
    args = parser.parse_args()
    th.set_num_threads(1)
    lines = [line for path in args.agents for line in check(path, args.task, args.steps)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main()
