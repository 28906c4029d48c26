"""One training run of one method on one task sequence, which continues where it was when it is started again."""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from filelock import FileLock, Timeout
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_nbsp.algorithms import ContinualSAC
from sb3_nbsp.benchmark.machine import machine, versions
from sb3_nbsp.files import atomic_write
from sb3_nbsp.interventions import GradientMasking
from sb3_nbsp.neurons.layers import split_by_layer
from sb3_nbsp.tasks import SequenceCheckpoint, SequenceEvaluation, SuccessMatrix, latest_checkpoint
from sb3_nbsp.zoo.algos import algorithm, read_hyperparams

LOCK = ".lock"
BUSY = 75  # exit status: another process is at this run


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


class NeuronFile(BaseCallback):
    """
    At the end of every phase, writes which neurons are skill neurons into a small file, for plots.

    :param path: the file; continued if it is there
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._written = -1

    def _on_training_start(self) -> None:
        self._written = self.model.phase.index - 1 if isinstance(self.model, ContinualSAC) else -1

    def _on_rollout_start(self) -> None:
        if isinstance(self.model, ContinualSAC) and self.model.phase.index - 1 > self._written:
            self._write(self.model.phase.index - 1)

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        if isinstance(self.model, ContinualSAC) and self.training_env.get_attr("sequence_over")[0]:
            self._write(self.model.phase.index)

    def _write(self, phase: int) -> None:
        """Enter what is known after a phase, in place of what is there for it and later phases."""
        assert isinstance(self.model, ContinualSAC)
        self._written = phase
        masking = next((each for each in self.model.hooks if isinstance(each, GradientMasking)), None)
        if masking is None:
            return
        entries = json.loads(self.path.read_text())["phases"] if self.path.exists() else []
        entries = [entry for entry in entries if entry["phase"] < phase]
        task = self.training_env.get_attr("tasks")[0][phase % len(self.training_env.get_attr("tasks")[0])]
        if task in masking.skill_neurons:
            entries.append({"phase": phase, "task": task, "networks": _skill_neurons(masking, task)})
        sizes = {each.name: [(layer.name, layer.n_neurons) for layer in each.layers] for each in masking.networks}
        atomic_write(self.path, json.dumps({"networks": sizes, "phases": entries}) + "\n")


def _skill_neurons(masking: GradientMasking, task: str) -> dict[str, dict[str, Any]]:
    """By network: its skill neurons by layer, how many neurons are held back by now, and the best ones' histograms."""
    networks = {}
    for network in masking.networks:
        parts = split_by_layer(masking.skill_neurons[task][network.name], network.layers)
        places = [(layer.name, neuron) for layer in network.layers for neuron in range(layer.n_neurons)]
        histograms = []
        for histogram in masking.histograms[task][network.name]:
            layer_name, neuron = places[histogram["neuron"]]
            histograms.append({**histogram, "layer": layer_name, "neuron": neuron})
        networks[network.name] = {
            "skill_neurons": {name: th.nonzero(part).flatten().tolist() for name, part in parts.items()},
            "masked": {layer.name: int((masking.masks[layer.name] < 1).sum()) for layer in network.layers},
            "histograms": histograms,
        }
    return networks


class StartAfresh(SequenceCheckpoint):
    """
    A checkpoint behind which the run goes on as the one that is started from it would: with an episode that
    begins and with random numbers that follow from the seed and the step. So a run that was
    killed and started again ends as one that was not.

    :param seed: the run's seed
    :param save_freq: environment steps between two checkpoints; they wait for the end of an episode
    :param folder: where to write
    """

    def __init__(self, seed: int, save_freq: int, folder: str | os.PathLike[str]) -> None:
        super().__init__(save_freq, folder)
        self.seed = seed
        self._episode_over = False

    def _on_training_start(self) -> None:
        super()._on_training_start()
        if self.num_timesteps > 0:
            self._start_afresh()

    def _on_rollout_start(self) -> None:
        if self._episode_over:
            last = self._last
            super()._on_rollout_start()
            if self._last != last:
                self._start_afresh()

    def _on_step(self) -> bool:
        self._episode_over = bool(self.locals["dones"][0])
        return True

    def _start_afresh(self) -> None:
        assert self.model.env is not None
        self.model.set_random_seed(int(np.random.SeedSequence([self.seed, self.num_timesteps]).generate_state(1)[0]))
        self.model._last_obs = self.model.env.reset()  # type: ignore[assignment]


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
    Train a method on a task sequence. A run that was cut off continues from its last checkpoint, to the same end as
    if it had not been; one that is done is not run again. The folder holds the run's configuration, the
    success matrix after every phase, the training success of every episode, the skill neurons, the last
    checkpoint and, at the end, ``result.json``. If the run fails, ``error.txt`` says why.

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
    :raises ValueError: if the folder holds a run with other settings
    :raises filelock.Timeout: if another process is at this run
    """
    folder = Path(folder)
    # A copy: SB3 writes into policy_kwargs
    options = copy.deepcopy({**read_hyperparams(algo, env_id), **(hyperparams or {})})
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK, timeout=0):
        if (folder / "result.json").exists():
            result: dict[str, float] = json.loads((folder / "result.json").read_text())
            return result
        settings = {"algo": algo, "env_id": env_id, "seed": seed, "env_kwargs": env_kwargs or {}, "hyperparams": options}
        _write_config(folder, {**settings, "n_eval_episodes": n_eval_episodes, "save_freq": save_freq})
        (folder / "error.txt").unlink(missing_ok=True)
        try:
            return _run(algo, env_id, seed, folder, env_kwargs, options, n_eval_episodes, save_freq)
        except Exception:
            atomic_write(folder / "error.txt", traceback.format_exc())
            raise


def _write_config(folder: Path, settings: dict[str, Any]) -> None:
    settings = json.loads(json.dumps(settings, default=repr))
    path = folder / "config.json"
    if path.exists():
        earlier = json.loads(path.read_text())
        changed = [name for name, value in settings.items() if earlier.get(name) != value]
        if changed:
            names = ", ".join(changed)
            raise ValueError(f"{folder} holds a run with other settings ({names}): choose another folder")
    atomic_write(path, json.dumps({**settings, "versions": versions(), "machine": machine()}, indent=2) + "\n")


def _run(
    algo: str,
    env_id: str,
    seed: int,
    folder: Path,
    env_kwargs: dict[str, Any] | None,
    options: dict[str, Any],
    n_eval_episodes: int,
    save_freq: int,
) -> dict[str, float]:
    start = time.monotonic()
    env = make_vec_env(env_id, seed=seed, env_kwargs=env_kwargs)
    n_timesteps = int(options.pop("n_timesteps"))
    model = _continue_or_start(algo, env, seed, folder, options)
    evaluation = SequenceEvaluation(folder, n_eval_episodes, progress_bar=False, verbose=1)
    checkpoints = StartAfresh(seed, save_freq, folder)
    files = [NeuronFile(folder / "neurons.json"), ProgressFile(folder / "progress.json")]
    callbacks: list[BaseCallback] = [evaluation, *files, checkpoints]
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
    model = cls.load(checkpoint / "model.zip", env=env)
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
