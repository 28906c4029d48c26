"""One training run of a comparison, which continues where it was when it is started again."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
import traceback
import warnings
from typing import Any

import numpy as np
import torch as th
from filelock import Timeout
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env

from sb3_nbsp.algorithms.replay_phases import PhasedReplay
from sb3_nbsp.benchmark.callbacks import Progress, Resumable, Retention, SkillNeurons
from sb3_nbsp.benchmark.first_phase import common_settings, continue_or_start_plain, later_options, start_from
from sb3_nbsp.benchmark.folder import RunFolder
from sb3_nbsp.benchmark.settings import Settings
from sb3_nbsp.diagnostics import PlasticityCallback
from sb3_nbsp.interventions import GradientMasking
from sb3_nbsp.tasks import SequenceEvaluation, load_checkpoint
from sb3_nbsp.tasks.checkpoint import save_checkpoint
from sb3_nbsp.tasks.policy_evaluation import evaluate_task
from sb3_nbsp.zoo.algos import algorithm

BUSY = 75  # exit status: another process is at this run
N_RECORDS = 30  # of the plasticity, in a run on an environment that is no sequence


def train(settings: Settings, folder: RunFolder, first_phase: RunFolder | None = None) -> dict[str, Any]:
    """
    Train one method with one seed. A run that was cut off continues from its last checkpoint, to the same end as if it had not
    been; one that is done is not run again. If it fails, ``error.txt`` in its folder says why.

    :param first_phase: the folder of the first phase that it has in common with other runs, which is computed there if it is
        not done; None to compute it in the run's own folder, to the same result
    :return: on a task sequence ASR, FM and FWT; on any other environment the mean ``return`` of the deterministic policy and
        the ``training_return`` of the last 100 episodes; the number of steps and the minutes since the last start
    :raises ValueError: if the folder holds a run with other settings, or parts of a run are missing
    :raises filelock.Timeout: if another process is at this run, or at its first phase
    """
    with folder.lock():
        if folder.is_done:
            return folder.result()
        try:
            folder.begin(settings)
            start = time.monotonic()
            if first_phase is not None and folder.checkpoint is None:
                _train_common_first_phase(common_settings(settings), first_phase, folder)
                start_from(first_phase, folder)
            model = (_train_on_sequence if settings.is_sequence else _train_on_one_task)(settings, folder)
            normalizer = model.get_vec_normalize_env()
            if normalizer is not None:
                normalizer.save(str(folder.statistics))
            model.save(folder.model)
            found = _metrics(folder) if settings.is_sequence else _returns(model, settings)
            result = {**found, "minutes_since_last_start": (time.monotonic() - start) / 60}
            folder.write_result(result)
            return result
        except Timeout:  # of the first phase: not an error
            raise
        except Exception:
            folder.write_error(traceback.format_exc())
            raise


def continue_or_start(settings: Settings, folder: RunFolder) -> BaseAlgorithm:
    """The agent of the last checkpoint, in its place of the sequence; a new one if there is none."""
    env = settings.make_env()
    if folder.checkpoint is None:
        return settings.make_agent(env)
    # The checkpoint at the end of the first phase can be that of the plain agent
    later = later_options(settings) if settings.is_sequence else {}
    later |= {"interventions": ()} if later else {}
    with warnings.catch_warnings():  # what that one has noted for masking is of no use to methods without
        warnings.filterwarnings("ignore", "The saved model holds state of GradientMasking")
        return load_checkpoint(algorithm(settings.algo), folder.checkpoint, env, **later)


def _train_common_first_phase(settings: Settings, folder: RunFolder, seen_in: RunFolder) -> None:
    with folder.lock():
        if folder.is_done:
            return
        folder.begin(settings)
        model = continue_or_start_plain(settings, folder)
        _train_until_boundary(model, settings, folder, seen_in)
        folder.write_result({"steps": model.num_timesteps})


def _train_on_sequence(settings: Settings, folder: RunFolder) -> BaseAlgorithm:
    model = continue_or_start(settings, folder)
    # In any case, so that it makes no difference where the first phase was computed
    if _train_until_boundary(model, settings, folder, folder):
        model = continue_or_start(settings, folder)
    assert model.env is not None
    position = model.env.env_method("get_progress", indices=0)[0]
    n_finished = 0 if folder.checkpoint is None else position["phase"] + int(position["sequence_over"])
    if n_finished and len(folder.matrix().rows) < n_finished:
        raise ValueError(f"{folder.path} has lost a part of its success matrix: delete the folder to begin anew")
    # A run can be killed after its last phase, before its result is written
    if not position["sequence_over"]:
        _learn(model, settings, folder, folder)
    return model


def _metrics(folder: RunFolder) -> dict[str, Any]:
    return {**folder.matrix().metrics(), "steps": int(folder.episodes()[-1][0])}


def _train_until_boundary(model: BaseAlgorithm, settings: Settings, folder: RunFolder, seen_in: RunFolder) -> bool:
    """
    Train an agent of this package that is in the first phase until that has ended, and save it before it acts on that. Return
    whether it was, and the last checkpoint is the end of the phase.
    """
    assert model.env is not None
    position = model.env.env_method("get_progress", indices=0)[0]
    is_last = len(position["tasks"]) * position["cycles"] == 1
    if not isinstance(model, PhasedReplay) or position["phase"] > 0 or is_last:
        return False
    model.pause_at_boundary()
    _learn(model, settings, folder, seen_in)
    save_checkpoint(model, folder.path)
    model.replay_buffer = None  # whose copy the next agent loads
    model.env.close()
    return True


def _learn(model: BaseAlgorithm, settings: Settings, folder: RunFolder, seen_in: RunFolder) -> None:
    """Train on a sequence until it is over or the agent pauses; ``seen_in`` is of the run whose progress is shown."""
    env = model.env
    assert env is not None
    evaluation = SequenceEvaluation(
        folder.path,
        settings.n_eval_episodes,
        progress_bar=False,
        verbose=1,
        n_eval_steps=settings.n_eval_steps,
        deterministic=settings.eval_policy == "deterministic",
    )
    callbacks = [
        evaluation,
        *([] if settings.eval_freq is None else [Retention(folder, evaluation, settings.eval_freq)]),
        *(SkillNeurons(folder, each) for each in getattr(model, "all_interventions", ()) if isinstance(each, GradientMasking)),
        Progress(seen_in),
        Resumable(settings.seed, settings.save_freq, folder),
    ]
    # By then the sequence has ended by itself, unless its episodes are longer than its phases
    longest = max(env.get_attr("steps_per_task")[0], env.get_attr("last_phase_steps")[0] or 0)
    most_steps = int(env.get_attr("n_phases")[0] * 2 * longest)
    model.learn(most_steps - model.num_timesteps, callback=callbacks, reset_num_timesteps=False)
    position = env.env_method("get_progress", indices=0)[0]
    if model.num_timesteps >= most_steps and not position["sequence_over"]:
        raise ValueError(
            f"The sequence is in phase {position['phase'] + 1} after {model.num_timesteps} steps, twice those of all phases: "
            "its episodes are longer than its phases. Give the phases more steps (--env-kwargs steps_per_task:...)"
        )


def _train_on_one_task(settings: Settings, folder: RunFolder) -> BaseAlgorithm:
    n_timesteps = int(settings.hyperparams["n_timesteps"])
    model = continue_or_start(settings, folder)
    callbacks = [
        PlasticityCallback(max(1, n_timesteps // N_RECORDS), folder.path, plot=False),
        Progress(folder, n_timesteps),
        Resumable(settings.seed, settings.save_freq, folder, waits=False),
    ]
    if model.num_timesteps < n_timesteps:
        model.learn(n_timesteps - model.num_timesteps, callback=callbacks, reset_num_timesteps=False)
    return model


def _returns(model: BaseAlgorithm, settings: Settings) -> dict[str, Any]:
    env = make_vec_env(settings.env_id, env_kwargs=settings.env_kwargs)
    evaluated = evaluate_task(model, env, settings.n_eval_episodes, settings.seed + 1_000_000).mean_return
    training_return = float(np.mean([episode["r"] for episode in model.ep_info_buffer or []]))
    return {"return": evaluated, "training_return": training_return, "steps": model.num_timesteps}


def _end_with_stdin() -> None:
    """End this process when the one that started it ends, which closes the pipe between the two."""
    os.read(sys.stdin.fileno(), 1)  # not through the buffer, whose lock would block this process's own end
    os._exit(1)


def main() -> None:
    """Compute one run from the command line, with one thread; what a comparison starts for each of its runs."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--folder", required=True, help="the folder of the run")
    parser.add_argument("--settings", type=json.loads, required=True, metavar="JSON", help="what its config.json says")
    parser.add_argument("--first-phase", type=RunFolder, help="folder of the first phase that it has in common with others")
    parser.add_argument("--end-with-stdin", action="store_true", help="end when standard input is closed")
    args = parser.parse_args()
    if args.end_with_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    th.set_num_threads(1)
    try:
        train(Settings(**args.settings), RunFolder(args.folder), args.first_phase)
    except Timeout as error:
        print(f"Another process is at this run: {error}", file=sys.stderr)
        raise SystemExit(BUSY) from None


if __name__ == "__main__":
    main()
