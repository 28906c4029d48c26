"""The first phase of a run on a task sequence: until it ends, methods can be the same agent, and it is computed once."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_nbsp.algorithms import ContinualDiscreteSAC, ContinualSAC
from sb3_nbsp.algorithms.options import constructor_parameters
from sb3_nbsp.benchmark.comparison import Run
from sb3_nbsp.benchmark.folder import RunFolder
from sb3_nbsp.benchmark.methods import METHODS
from sb3_nbsp.benchmark.settings import Settings
from sb3_nbsp.interventions import GradientMasking, Intervention
from sb3_nbsp.machine import versions
from sb3_nbsp.tasks import load_checkpoint
from sb3_nbsp.zoo.algos import algorithm

# Inside the folder of a comparison
FOLDER = "first_phase"
PLAIN_AGENTS = {ContinualSAC: "continual_sac", ContinualDiscreteSAC: "continual_discrete_sac"}


def _acts_early(settings: Settings) -> str | None:
    """Why an agent is not the plain one until the first boundary; None if it is."""
    cls = algorithm(settings.algo)
    if not issubclass(cls, tuple(PLAIN_AGENTS)):
        return f"{cls.__name__} does not know phases"
    if getattr(cls, "own_policy_kwargs", {}):
        return f"{cls.__name__} has other networks from the beginning"
    early = [part.__name__ for part in getattr(cls, "parts", ()) if not _waits(part, settings)]
    return f"{', '.join(early)} acts from the beginning" if early else None


def _waits(part: type[Intervention], settings: Settings) -> bool:
    """Whether a part of a method, with its options, leaves the agent as it is until a phase has ended."""
    parameters, given = constructor_parameters(algorithm(settings.algo)), settings.arguments()
    options = {name: given.get(name, parameters[name].default) for name in inspect.signature(part).parameters}
    # A subclass has to say so again
    return "waits_for_phase_end" in vars(part) and part(**options).waits_for_phase_end


def later_options(settings: Settings) -> dict[str, Any]:
    """Options that act at the first boundary or later, with their values; none of an agent that is another one until then."""
    cls = algorithm(settings.algo)
    if _acts_early(settings):
        return {}
    parameters, given = constructor_parameters(cls), settings.arguments()
    names = {*getattr(cls, "options", {}), *getattr(cls, "phase_options", ()), "probe_episodes"}
    return {name: given.get(name, parameters[name].default) for name in sorted(names)}


def common_settings(settings: Settings) -> Settings:
    """Settings of the plain agent that a run's own is until the first boundary; ValueError says why it is another one."""
    cls = algorithm(settings.algo)
    if reason := _acts_early(settings):
        raise ValueError(reason)
    later = {*later_options(settings), "n_timesteps"}  # which a sequence has no use for
    # A file may say what another leaves to the default
    defaults = {"normalize": False, **{name: each.default for name, each in constructor_parameters(cls).items()}}
    hyperparams = {
        name: value for name, value in settings.hyperparams.items() if name not in later and value != defaults.get(name, ...)
    }
    plain_agent = next(name for plain, name in PLAIN_AGENTS.items() if issubclass(cls, plain))
    return dataclasses.replace(settings, algo=plain_agent, hyperparams=hyperparams)


def share_first_phases(settings: Mapping[Run, Settings], folder: Path) -> tuple[dict[Run, Settings], list[str]]:
    """
    Find the runs that are the same agent until the first boundary.

    :param settings: those of each run of a comparison
    :param folder: the folder of the comparison
    :return: the same, where the runs that have their first phase in common say so; and for each method that computes its own
        a sentence that says why
    """
    common: dict[Run, Settings] = {}
    reasons: dict[str, str] = {}
    for run, each in settings.items():
        try:
            if each.is_sequence:
                common[run] = common_settings(each)
        except ValueError as error:
            reasons.setdefault(run.method, str(error))
    places = {run: _place(each) for run, each in common.items()}
    counts = Counter(places.values())
    shared: dict[Run, Settings] = {}
    for run, each in settings.items():
        is_shared = counts[places.get(run, "")] > 1
        shared[dataclasses.replace(run, first_phase=folder / FOLDER / places[run]) if is_shared else run] = each
        others = [other for other in common if (other.env_id, other.seed) == (run.env_id, run.seed) and other != run]
        if run in places and not is_shared and others:
            own, theirs = common[run].hyperparams, [common[other].hyperparams for other in others]
            names = {name for each in theirs for name in {**own, **each} if own.get(name) != each.get(name)}
            reasons.setdefault(run.method, f"no other method has the same {', '.join(sorted(names))}")
    is_alone = len({run.method for run in settings}) == 1
    sentences = [f"{METHODS[name].title} computes a first phase of its own: {why}" for name, why in reasons.items()]
    return shared, [] if is_alone else sentences


def _place(common: Settings) -> str:
    """Name of the folder, which tells first phases with different settings, or of different versions, apart."""
    text = json.dumps([dataclasses.asdict(common), versions()], sort_keys=True)
    return f"seed_{common.seed}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def continue_or_start_plain(settings: Settings, folder: RunFolder) -> BaseAlgorithm:
    """
    The plain agent of a common first phase, by its last checkpoint or new. It notes what masking asks for at the boundary: how
    successful the steps in the replay buffer were.
    """
    env = settings.make_env()
    if folder.checkpoint is not None:
        return load_checkpoint(algorithm(settings.algo), folder.checkpoint, env)
    buffer_size = constructor_parameters(algorithm(settings.algo))["buffer_size"].default
    n_steps = int(settings.hyperparams.get("buffer_size", buffer_size))
    masking = GradientMasking(identification_steps=n_steps, identification_data="training")
    try:
        return settings.make_agent(env, interventions=[masking])
    except ValueError:  # a policy that cannot be masked: no method that shares the phase does so
        return settings.make_agent(env)


def start_from(first: RunFolder, folder: RunFolder) -> None:
    """Give a run the first phase that it has in common with others and that is done."""
    assert first.checkpoint is not None
    for path in first.history:
        shutil.copyfile(path, folder.path / path.name)
    temporary = folder.path / f".{first.checkpoint.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(first.checkpoint, temporary)
    temporary.rename(folder.path / first.checkpoint.name)  # in the end: a run with a checkpoint has the rest, too
