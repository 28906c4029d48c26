"""One training run of one method on one task sequence, which continues where it was when it is started again."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import torch as th
from filelock import FileLock, Timeout
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_nbsp.benchmark.agents import make_agent, make_env, save_agent
from sb3_nbsp.benchmark.neuron_recorder import NeuronFile
from sb3_nbsp.benchmark.one_task import run_on_one_task
from sb3_nbsp.benchmark.progress_file import SequenceProgress
from sb3_nbsp.benchmark.resume import StartAfresh
from sb3_nbsp.benchmark.run_settings import RunSettings
from sb3_nbsp.files import atomic_write, read_json_object
from sb3_nbsp.tasks import SequenceEvaluation, SuccessMatrix, latest_checkpoint, load_checkpoint
from sb3_nbsp.tasks.episode_log import read_rows
from sb3_nbsp.tasks.registration import is_sequence
from sb3_nbsp.zoo.algos import algorithm

LOCK = ".lock"
BUSY = 75  # exit status: another process is at this run


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
    Train a method on a task sequence, or on any other environment. A run that was cut off continues from its last
    checkpoint, to the same end as if it had not been; one that is done is not run again. The folder holds the run's
    configuration, the success matrix after every phase, the training success of every episode, the skill neurons (on an
    environment that is no sequence: the plasticity of the policy instead), the last checkpoint and, at the end,
    ``result.json``. If the run fails, ``error.txt`` says why.

    :param algo: "nbsp_sac", "continual_sac" or "sac"
    :param env_id: id of a task sequence
    :param seed: seed of the agent and its environment
    :param folder: the run's own folder
    :param env_kwargs: arguments of the environment
    :param hyperparams: take the place of those of the YAML file
    :param n_eval_episodes: episodes per task after each phase
    :param save_freq: steps between two checkpoints
    :return: ASR, FM, FWT, the number of steps and the minutes of the last start
    :raises ValueError: if the folder holds a run with other settings, or parts of a run are missing
    :raises filelock.Timeout: if another process is at this run
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK, timeout=0):
        if (folder / "result.json").exists():
            return read_json_object(folder / "result.json")
        _remove_leftovers(folder)
        try:
            settings = RunSettings.resolve(algo, env_id, seed, env_kwargs, hyperparams, n_eval_episodes, save_freq)
            is_new = latest_checkpoint(folder) is None
            if is_new:
                _forget_history(folder)
            settings.write(folder, is_new=is_new)
            run = _run if is_sequence(settings.env_id) else run_on_one_task
            return run(settings, folder)
        except Exception:
            atomic_write(folder / "error.txt", traceback.format_exc())
            raise


def _remove_leftovers(folder: Path) -> None:
    """What an earlier start left behind: why it failed, and files that it did not finish."""
    for path in [folder / "error.txt", *folder.glob(".[0-9]*-*")]:
        path.unlink(missing_ok=True)


def _forget_history(folder: Path) -> None:
    """What an earlier start has logged ahead of its first checkpoint: the run plays it again."""
    for name in ("success_matrix.csv", "training.csv"):
        (folder / name).unlink(missing_ok=True)


def _run(settings: RunSettings, folder: Path) -> dict[str, float]:
    start = time.monotonic()
    model = _continue_or_start(settings, folder)
    env = model.env
    assert env is not None
    evaluation = SequenceEvaluation(folder, settings.n_eval_episodes, progress_bar=False, verbose=1)
    checkpoints = StartAfresh(settings.seed, settings.save_freq, folder)
    files = [NeuronFile(folder / "neurons.json"), SequenceProgress(folder / "progress.json")]
    callbacks: list[BaseCallback] = [evaluation, *files, checkpoints]
    # A run can be killed after its last phase, before its result is written
    if not env.get_attr("sequence_over")[0]:
        model.learn(_most_steps(env) - model.num_timesteps, callback=callbacks, reset_num_timesteps=False)
    save_agent(model, folder)
    minutes = (time.monotonic() - start) / 60
    result = {**read_matrix(folder).metrics(), "steps": _steps(folder), "minutes_since_last_start": minutes}
    atomic_write(folder / "result.json", json.dumps(result, indent=2) + "\n")
    return result


def _most_steps(env: VecEnv) -> int:
    """More steps than a sequence can have, which ends by itself: the last episode of a phase may go beyond its steps."""
    return int(env.get_attr("n_phases")[0] * 2 * env.get_attr("steps_per_task")[0])


def _steps(folder: Path) -> int:
    """Step at which the sequence was over."""
    return int(read_rows(folder / "training.csv")[-1][0])


def _continue_or_start(settings: RunSettings, folder: Path) -> BaseAlgorithm:
    checkpoint = latest_checkpoint(folder)
    cls = algorithm(settings.algo)
    assert issubclass(cls, OffPolicyAlgorithm), "a run is resumed with its replay buffer"
    if checkpoint is None:
        return make_agent(settings, make_env(settings))
    model = load_checkpoint(cls, checkpoint, make_env(settings))
    assert model.env is not None
    position = model.env.env_method("get_progress", indices=0)[0]
    n_finished = position["phase"] + int(position["sequence_over"])
    if n_finished and len(read_matrix(folder).rows) < n_finished:
        raise ValueError(f"{folder} has lost a part of its success matrix: delete the folder to begin anew")
    return model


def read_matrix(folder: str | os.PathLike[str]) -> SuccessMatrix:
    """
    :param folder: a run's folder
    :return: its success matrix
    """
    return SuccessMatrix.load(Path(folder) / "success_matrix.csv")


def _end_with_stdin() -> None:
    """End this process when the one that started it ends, which closes the pipe between the two."""

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)  # not through the buffer, whose lock would block this process's own end
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Compute one run from the command line, with one thread; what a comparison starts for each of its runs."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--json", type=json.loads, required=True, metavar="ARGUMENTS", help="arguments of run_cell")
    parser.add_argument("--end-with-stdin", action="store_true", help="end when standard input is closed")
    args = parser.parse_args()
    if args.end_with_stdin:
        _end_with_stdin()
    th.set_num_threads(1)
    try:
        run_cell(**args.json)
    except Timeout as error:
        print(f"Another process is at this run: {error}", file=sys.stderr)
        raise SystemExit(BUSY) from None


if __name__ == "__main__":
    main()
