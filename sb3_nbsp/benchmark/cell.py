"""One training run of one method on one task sequence, which continues where it was when it is started again."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_nbsp.algorithms import ContinualSAC
from sb3_nbsp.files import atomic_write
from sb3_nbsp.tasks import SequenceCheckpoint, SequenceEvaluation, SuccessMatrix, latest_checkpoint
from sb3_nbsp.zoo.algos import algorithm, read_hyperparams


class ProgressFile(BaseCallback):
    """
    Writes how far a run is into a small file, for whoever watches it from outside.

    :param path: the file
    :param every: seconds between two writes
    """

    def __init__(self, path: Path, every: float = 1.0) -> None:
        super().__init__()
        self.path = path
        self.every = every
        self._written = 0.0

    def _on_step(self) -> bool:
        if time.monotonic() - self._written > self.every:
            self._write()
        return True

    def _on_training_end(self) -> None:
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        progress = self.training_env.env_method("get_progress", indices=0)[0]
        atomic_write(self.path, json.dumps({**progress, "step": self.num_timesteps}))


class SequencePosition(BaseCallback):
    """How far the sequence is, as an attribute of an agent that does not know of sequences, so that its zip holds it."""

    def _on_rollout_start(self) -> None:
        vars(self.model)["sequence_position"] = self.training_env.env_method("get_progress", indices=0)[0]

    def _on_step(self) -> bool:
        return True


def run_cell(
    algo: str,
    env_id: str,
    seed: int,
    folder: str | os.PathLike[str],
    env_kwargs: dict[str, Any] | None = None,
    hyperparams: dict[str, Any] | None = None,
    n_eval_episodes: int = 20,
    save_freq: int = 5_000,
) -> dict[str, float]:
    """
    Train a method on a task sequence. A run that was cut off continues from its last checkpoint; one that is done
    is not run again. The folder holds the success matrix after every phase, the training success of every
    episode, the last checkpoint and, at the end, ``result.json``.

    :param algo: "nbsp_sac", "continual_sac" or "sac"
    :param env_id: id of a task sequence
    :param seed: seed of the agent and its environment
    :param folder: the run's own folder
    :param env_kwargs: arguments of the environment
    :param hyperparams: take the place of those of the YAML file
    :param n_eval_episodes: episodes per task after each phase
    :param save_freq: steps between two checkpoints
    :return: ASR, FM, FWT, the number of steps and the minutes of the last start
    :raises RuntimeError: if ``n_timesteps`` end before the sequence does
    """
    folder = Path(folder)
    if (folder / "result.json").exists():
        result: dict[str, float] = json.loads((folder / "result.json").read_text())
        return result
    start = time.monotonic()
    env = make_vec_env(env_id, seed=seed, env_kwargs=env_kwargs)
    options = {**read_hyperparams(algo, env_id), **(hyperparams or {})}
    n_timesteps = int(options.pop("n_timesteps"))
    model = _continue_or_start(algo, env, seed, folder, options)
    evaluation = SequenceEvaluation(folder, n_eval_episodes, progress_bar=False, verbose=1)
    checkpoints = SequenceCheckpoint(save_freq, folder)
    callbacks: list[BaseCallback] = [evaluation, checkpoints, ProgressFile(folder / "progress.json")]
    if not isinstance(model, ContinualSAC):
        callbacks.insert(0, SequencePosition())
    # A run can be killed after its last phase, before its result is written
    if not env.get_attr("sequence_over")[0]:
        model.learn(n_timesteps - model.num_timesteps, callback=callbacks, reset_num_timesteps=False)
    model.save(folder / "model.zip")
    matrix, n_phases = read_matrix(folder), env.get_attr("n_phases")[0]
    if len(matrix.rows) < n_phases:
        raise RuntimeError(f"n_timesteps={n_timesteps} ended the run in phase {len(matrix.rows) + 1} of {n_phases}: raise it")
    minutes = (time.monotonic() - start) / 60
    result = {**matrix.metrics(), "steps": model.num_timesteps, "minutes_since_last_start": minutes}
    atomic_write(folder / "result.json", json.dumps(result, indent=2) + "\n")
    return result


def _continue_or_start(algo: str, env: VecEnv, seed: int, folder: Path, options: dict[str, Any]) -> OffPolicyAlgorithm:
    checkpoint = latest_checkpoint(folder)
    cls = algorithm(algo)
    if checkpoint is None:
        return cls(env=env, seed=seed, **options)
    # Other random numbers than those of the first start, but the same for the same checkpoint
    steps = int(checkpoint.name.split("_")[1])
    model = cls.load(checkpoint / "model.zip", env=env, seed=seed + steps)
    model.load_replay_buffer(checkpoint / "replay_buffer.pkl")
    if not isinstance(model, ContinualSAC):
        env.env_method("set_progress", vars(model)["sequence_position"])
    return model


def read_matrix(folder: str | os.PathLike[str]) -> SuccessMatrix:
    """
    :param folder: a run's folder
    :return: its success matrix
    """
    return SuccessMatrix.load(Path(folder) / "success_matrix.csv")


def main() -> None:
    """Run one cell from the command line; what a parent process starts."""
    parser = argparse.ArgumentParser(description=run_cell.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algo", required=True)
    parser.add_argument("--env", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--env-kwargs", type=json.loads, default={}, help="JSON")
    parser.add_argument("--hyperparams", type=json.loads, default={}, help="JSON")
    parser.add_argument("--n-eval-episodes", type=int, default=20)
    parser.add_argument("--save-freq", type=int, default=5_000)
    args = parser.parse_args()
    th.set_num_threads(1)
    run_cell(
        args.algo,
        args.env,
        args.seed,
        args.folder,
        args.env_kwargs,
        args.hyperparams,
        args.n_eval_episodes,
        args.save_freq,
    )


if __name__ == "__main__":
    main()
