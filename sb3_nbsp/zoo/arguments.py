"""Find arguments of ``train`` that are out of range, contradict each other or would have no effect."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sb3_nbsp.messages import warn

# By name of an argument, its smallest value
_MINIMUM = {
    "eval_episodes": 1,
    "max_total_trials": 1,
    "n_eval_envs": 1,
    "n_evaluations": 1,
    "n_startup_trials": 0,
    "n_trials": 1,
}
# Arguments that only some runs use, with rl-zoo3's defaults
_OF_THE_SEARCH = {
    "max_total_trials": None,
    "n_evaluations": None,
    "n_jobs": 1,
    "n_startup_trials": 10,
    "n_trials": 500,
    "no_optim_plots": False,
    "optimization_log_path": None,
    "pruner": "median",
    "sampler": "tpe",
}
_OF_ONE_RUN = {
    "log_interval": -1,
    "progress": False,
    "save_freq": -1,
    "save_replay_buffer": False,
    "track": False,
    "trial_id": None,
}
_OF_TRACKING: dict[str, Any] = {"wandb_entity": None, "wandb_group": None, "wandb_project_name": "sb3", "wandb_tags": []}


def truth(word: str) -> bool:
    """
    :param word: "True" or "False", in any case, or 1 or 0; for argparse, to which ``bool("False")`` is true
    :return: what it says
    """
    values = {"true": True, "1": True, "false": False, "0": False}
    if word.lower() not in values:
        raise argparse.ArgumentTypeError(f"must be True or False, not {word!r}")
    return values[word.lower()]


def is_given(*flags: str) -> bool:
    """
    :param flags: names of an option, such as "-tb" and "--tensorboard-log"
    :return: whether the command line has it, where its value does not tell
    """
    return not {argument.partition("=")[0] for argument in sys.argv}.isdisjoint(flags)


def check_arguments(args: argparse.Namespace) -> None:
    """
    :param args: the arguments of ``train``
    :raises ValueError: if one is out of range, or if two contradict each other
    :raises ImportError: if a package is missing that one of them needs
    """
    for name, minimum in _MINIMUM.items():
        value = getattr(args, name)
        if value is not None and value < minimum:
            raise ValueError(f"{_flag(name)} must be {minimum} or more, not {value}")
    if args.n_timesteps < 1 and args.n_timesteps != -1:
        raise ValueError(f"--n-timesteps must be 1 or more, or -1 for that of the hyperparameters, not {args.n_timesteps}")
    if args.n_jobs < 1 and args.n_jobs != -1:
        raise ValueError(f"--n-jobs must be 1 or more, or -1 for one per core, not {args.n_jobs}")
    if args.log_interval == 0:
        raise ValueError("--log-interval must not be 0; -2 turns logging off")
    _check_places(args)
    if args.optimize_hyperparameters:
        _check_search(args)
    _warn_of_unused(args)


def _check_places(args: argparse.Namespace) -> None:
    if not args.log_folder:  # of which rl-zoo3 makes the root of the disk
        raise ValueError("--log-folder must be the name of a folder, not empty; . is this one")
    for name in ("log_folder", "tensorboard_log", "optimization_log_path"):
        place = getattr(args, name)
        if place and Path(place).is_file():
            raise ValueError(f"{_flag(name)} must be a folder, and {place} is a file")
    storage = args.storage
    if storage is not None and not storage.endswith(".log") and "://" not in storage:
        raise ValueError(f"--storage must be a file .log or a database such as sqlite:///study.db, not {storage!r}")


def _check_search(args: argparse.Namespace) -> None:
    if args.trained_agent:
        raise ValueError("-optimize trains new agents and cannot continue one: leave out -i or -optimize")
    if args.sampler == "auto" and importlib.util.find_spec("optunahub") is None:
        raise ImportError("--sampler auto needs optunahub: pip install optunahub")


def _warn_of_unused(args: argparse.Namespace) -> None:
    if args.optimize_hyperparameters:
        unused, why = _given(args, _OF_ONE_RUN), "with -optimize"
    else:
        unused, why = _given(args, _OF_THE_SEARCH), "without -optimize"
        if args.trial_id is None:
            unused += _given(args, {"storage": None, "study_name": None})
    if unused:
        warn(f"No effect {why}: {', '.join(unused)}")
    if not args.track and (unused := _given(args, _OF_TRACKING)):
        warn(f"No effect without --track: {', '.join(unused)}")
    # rl-zoo3 has replaced its value
    if args.track and is_given("-tb", "--tensorboard-log"):
        warn(
            f"No effect with --track: --tensorboard-log. What it logs is in {args.tensorboard_log}, from where it is uploaded"
        )


def _given(args: argparse.Namespace, defaults: Mapping[str, Any]) -> list[str]:
    return [_flag(name) for name, default in defaults.items() if getattr(args, name) != default]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
