"""
Draw how agents learned that the zoo trained: returns of their evaluations and of the last 100 training episodes, entropy of
their policy and its coefficient.

    for seed in 1 2 3; do
        sb3-nbsp train --algo continual_discrete_sac --env CartPole-v1 --seed $seed --eval-freq 2000 --eval-episodes 20 \
            -f logs/$seed --tensorboard-log logs/$seed/tensorboard
    done
    python -m tools.learning_curves logs

writes logs/curves.csv (columns env, run, curve, step and value) and logs/curves.png. Prints, for each run, the step of the
evaluation from which on all reached the return with which Gymnasium calls the environment solved; the mean of the last five.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sb3_nbsp.figure_style import COLORS, STYLE, panels, save

RETURN = "return"
RECORDS = {
    "rollout/ep_rew_mean": "return in training",
    "train/entropy": "entropy of the policy",
    "train/ent_coef": "entropy coefficient",
}
LAST = 5


def evaluations(folder: Path) -> Iterator[pd.DataFrame]:
    """The zoo's evaluations, a frame for each run below a folder: mean return over the episodes of each evaluation."""
    for path in sorted(folder.rglob("evaluations.npz")):
        env_id, run = path.parent.name.rsplit("_", 1)[0], str(path.relative_to(folder).parts[0])
        with np.load(path) as found:
            values = {"step": found["timesteps"], "value": found["results"].mean(axis=1)}
        yield pd.DataFrame({"env": env_id, "run": run, "curve": RETURN, **values})


def records(folder: Path) -> Iterator[pd.DataFrame]:
    """TensorBoard's records of the same runs, a frame for each curve."""
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        env_id, run = path.parents[1].name, str(path.relative_to(folder).parts[0])
        events = EventAccumulator(str(path)).Reload()
        for tag in RECORDS.keys() & set(events.Tags()["scalars"]):
            scalars = events.Scalars(tag)
            values = {"step": [each.step for each in scalars], "value": [each.value for each in scalars]}
            yield pd.DataFrame({"env": env_id, "run": run, "curve": RECORDS[tag], **values})


def threshold(env_id: str) -> float | None:
    """The return with which Gymnasium calls an environment solved; None if it does not say, or its package is not imported."""
    spec = gym.registry.get(env_id)
    return None if spec is None else spec.reward_threshold


def solved(env_id: str, returns: pd.DataFrame) -> str:
    """When a run has solved an environment for good. A fresh policy can do so once, by accident."""
    goal = threshold(env_id)
    if goal is None:
        return "no threshold"
    failures = np.flatnonzero(returns["value"] < goal)
    first = 0 if len(failures) == 0 else failures[-1] + 1
    return "not solved" if first == len(returns) else f"{goal:g} reached from step {returns['step'].iloc[first]} on"


def draw(curves: pd.DataFrame, path: Path) -> Path:
    """A row of panels for each environment, a line for each run."""
    names = [name for name in (RETURN, *RECORDS.values()) if name in set(curves["curve"])]
    places = [(env_id, name) for env_id in sorted(set(curves["env"])) for name in names]
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(len(places), len(names), (3.2, 2.3))
        for ax, (env_id, name) in zip(axes, places, strict=True):
            shown = curves[(curves["env"] == env_id) & (curves["curve"] == name)]
            colors = COLORS[: shown["run"].nunique()]
            marker = "o" if shown["step"].nunique() == 1 else None  # a line of one point is not seen
            sns.lineplot(
                shown, x="step", y="value", hue="run", palette=colors, legend=False, linewidth=1, marker=marker, ax=ax
            )
            ax.set(title=env_id, xlabel="environment steps", ylabel=name)
            ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
            ax.grid(True)
            goal = threshold(env_id) if name == RETURN else None
            if goal is not None:
                ax.axhline(goal, color="0.4", linestyle="--", linewidth=1)
        return save(figure, path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the runs, each in a folder of its own")
    folder: Path = parser.parse_args(arguments).folder
    frames = [*evaluations(folder), *records(folder)]
    if not frames:
        parser.error(f"{folder}: no evaluations.npz and no TensorBoard records below this folder")
    curves = pd.concat(frames, ignore_index=True)
    curves.to_csv(folder / "curves.csv", index=False)
    for (env_id, run), returns in curves[curves["curve"] == RETURN].groupby(["env", "run"]):
        last = returns["value"].tail(LAST).mean()
        print(f"{env_id}, {run}: {solved(str(env_id), returns)}; mean of the last {LAST} {last:.1f}")
    print(draw(curves, folder / "curves.png"))


if __name__ == "__main__":
    main()
