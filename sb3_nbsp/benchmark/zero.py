"""Does a trained agent need its skill neurons? Zero them, and look at which tasks it can still do (NBSP, table 8)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import torch as th
from rich.console import Console
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from torch import nn
from tqdm.auto import tqdm

from sb3_nbsp.algorithms import NBSPSAC
from sb3_nbsp.benchmark.folder import RunFolder
from sb3_nbsp.benchmark.rendering import Table
from sb3_nbsp.files import atomic_write
from sb3_nbsp.interventions import GradientMasking
from sb3_nbsp.interventions.networks import AgentNetwork, networks_of
from sb3_nbsp.messages import did_you_mean, warn
from sb3_nbsp.neurons import zeroed
from sb3_nbsp.neurons.layers import NeuronLayer
from sb3_nbsp.tasks import TaskSequence
from sb3_nbsp.tasks.policy_evaluation import SEED, evaluate_task, evaluation_seed
from sb3_nbsp.tasks.task_envs import single_task_makers
from sb3_nbsp.zoo.options import check_env_kwargs

FILE = "zero_neurons.csv"
WIDTH = 3  # columns beside each other on a terminal

# By network: boolean over its hidden neurons
Neurons = dict[str, th.Tensor]


@dataclass(frozen=True)
class SkillSet:
    """Neurons by network; general ones are the intersection of two tasks' skill neurons."""

    name: str
    neurons: Neurons
    is_general: bool = False

    @property
    def size(self) -> int:
        """Number of its neurons in all networks."""
        return sum(int(neurons.sum()) for neurons in self.neurons.values())


def skill_sets(skill_neurons: Mapping[str, Neurons], networks: Sequence[str]) -> list[SkillSet]:
    """For every pair of tasks, the skill neurons that are general (of both tasks) and those that are specific to either."""
    sets = []
    for first, second in combinations(skill_neurons, 2):
        pairs = {network: (skill_neurons[first][network].cpu(), skill_neurons[second][network].cpu()) for network in networks}
        sets += [
            SkillSet(f"{first} ∩ {second}", {name: a & b for name, (a, b) in pairs.items()}, is_general=True),
            SkillSet(f"{first} ∖ {second}", {name: a & ~b for name, (a, b) in pairs.items()}),
            SkillSet(f"{second} ∖ {first}", {name: b & ~a for name, (a, b) in pairs.items()}),
        ]
    return sets


def control_set(general: SkillSet, skill_neurons: Mapping[str, Neurons], active: Neurons, seed: int) -> SkillSet:
    """
    Random neurons that are a skill neuron of no task, to compare with: in each network as many as the general ones, or all
    that there are. Only active ones: to zero a dead neuron changes nothing.
    """
    generator = th.Generator().manual_seed(seed)
    neurons = {}
    for network, wanted in general.neurons.items():
        skilled = th.stack([by_network[network].cpu() for by_network in skill_neurons.values()]).any(0)
        candidates = (active[network].cpu() & ~skilled).nonzero().flatten()
        drawn = candidates[th.randperm(len(candidates), generator=generator)[: int(wanted.sum())]]
        neurons[network] = th.zeros_like(wanted)
        neurons[network][drawn] = True
    return SkillSet(f"random, beside {general.name}", neurons)


def zero_neurons(
    model: NBSPSAC, env: gym.Env, n_eval_episodes: int = 20, networks: Sequence[str] = ("actor",), seed: int = 0
) -> pd.DataFrame:
    """
    Evaluate a model with nothing zeroed and, for every pair of its tasks, with its general skill neurons zeroed, as many
    random neurons that are no task's skill neurons, and the specific ones of either task.

    :param model: the trained agent; it is left as it is
    :param env: a task sequence; the model is evaluated on its distinct tasks
    :param n_eval_episodes: episodes per task and row
    :param networks: names of the networks in which neurons are zeroed; the critics do not act
    :param seed: of the choice of random neurons
    :return: a row for nothing, then four for every pair: what is ``zeroed``, how many ``neurons``, and a column for each task
        with its success rate, or its mean return where it does not report success
    :raises ValueError: if the model has no skill neurons, of one task only, or of tasks that the environment lacks;
        if there is no such network
    """
    if n_eval_episodes < 1:
        raise ValueError(f"n_eval_episodes must be at least 1, not {n_eval_episodes}")
    skill_neurons = _skill_neurons(model, networks)
    scored = [network for network in networks_of(model) if network.name in networks]
    with _task_envs(model, env, skill_neurons) as envs:
        sets = skill_sets(skill_neurons, networks)
        n_rows = 1 + len(sets) + sum(each.is_general for each in sets)
        reporting: set[str] = set()
        with tqdm(total=n_rows * len(envs) * n_eval_episodes, unit="episode", leave=False) as bar:

            def evaluate(name: str, neurons: Neurons) -> dict[str, float]:
                bar.set_description(f"zeroed: {name}")
                with ExitStack() as stack:
                    for network in scored if neurons else []:
                        stack.enter_context(zeroed(network.layers, neurons[network.name]))
                    return _success(model, envs, n_eval_episodes, bar.update, reporting)

            with _watched(scored) as active:
                rows = [{"zeroed": "nothing", "neurons": 0, **(nothing := evaluate("nothing", {}))}]
            for each in sets:
                for zeroing in [each, control_set(each, skill_neurons, active, seed)] if each.is_general else [each]:
                    success = evaluate(zeroing.name, zeroing.neurons) if zeroing.size else nothing
                    rows.append({"zeroed": zeroing.name, "neurons": zeroing.size, **success})
    return pd.DataFrame(rows)


def _success(
    model: NBSPSAC, envs: Mapping[str, VecEnv], n_episodes: int, on_episode: Callable[[], Any], reporting: set[str]
) -> dict[str, float]:
    """Success on each task; those that report it are added to those that have done so before."""
    success = {}
    for index, (task, env) in enumerate(envs.items()):
        seed = evaluation_seed(SEED, index, model.seed)  # the episodes of SequenceEvaluation
        success[task], kind, _ = evaluate_task(model, env, n_episodes, seed, on_episode, task in reporting, task)
        if kind == "success":
            reporting.add(task)
        elif kind == "return":
            warn(f"{task} does not report success: the mean return of an episode takes its place")
    return success


def _skill_neurons(model: NBSPSAC, networks: Sequence[str]) -> dict[str, dict[str, th.Tensor]]:
    found = model.all_interventions.find(GradientMasking).skill_neurons
    if not found:
        raise ValueError("The model has no skill neurons yet: no phase has ended, or none could identify any")
    if len(found) < 2:
        needs = "general and specific ones need two tasks with a finished phase"
        raise ValueError(f"The model has skill neurons of one task only, {', '.join(found)}: {needs}")
    for task, by_network in found.items():
        if not networks or any(name not in by_network for name in networks):
            there_are = list(dict.fromkeys(name for each in found.values() for name in each))
            wrong = f"networks: {list(networks)} are not all networks with skill neurons of {task}"
            raise ValueError(f"{wrong}; there are {there_are}")
    return found


@contextmanager
def _task_envs(model: NBSPSAC, env: gym.Env, tasks: Mapping[str, Any]) -> Iterator[dict[str, VecEnv]]:
    """An environment for each distinct task of a sequence."""
    names = env.unwrapped.task_names if isinstance(env.unwrapped, TaskSequence) else []
    if not names:
        raise ValueError(f"env must be a task sequence, such as MW-CoffeeButton-HandlePress-laptop-v0, not {env}")
    if any(task not in names for task in tasks):
        raise ValueError(f"The model has skill neurons of {', '.join(tasks)}, but the tasks of env are {', '.join(names)}")
    makers, envs = single_task_makers(env), dict[str, VecEnv]()
    with ExitStack() as stack:
        for name in names:
            envs[name] = stack.enter_context(closing(model._wrap_env(makers[name](), monitor_wrapper=True)))
            for kind in ("observation_space", "action_space"):
                own, theirs = getattr(model, kind), getattr(envs[name], kind)
                if own != theirs:
                    raise ValueError(f"The model's {kind} is {own}, but that of the task {name!r} is {theirs}")
        yield envs


@contextmanager
def _watched(networks: Sequence[AgentNetwork]) -> Iterator[Neurons]:
    """Which neurons are ever not zero inside the block: filled when it is left."""
    seen = {each.name: [th.zeros(layer.n_neurons, dtype=th.bool) for layer in each.layers] for each in networks}
    found: Neurons = {}
    with ExitStack() as hooks:
        for each in networks:
            for layer, active in zip(each.layers, seen[each.name], strict=True):
                hooks.enter_context(layer.activation.register_forward_hook(partial(_note_active, layer, active)))
        yield found
    for name, layers in seen.items():
        active = th.cat(layers)
        # Nothing ran through the critics, which says nothing about their neurons
        found[name] = active if active.any() else ~active


def _note_active(layer: NeuronLayer, active: th.Tensor, _module: nn.Module, _inputs: object, output: th.Tensor) -> None:
    # The features of a CReLU neuron j are j and n + j
    features = output.detach().transpose(0, 1).reshape(layer.features_per_neuron, layer.n_neurons, -1)
    active.logical_or_((features != 0).any(2).any(0).cpu())


def load_model(path: str | os.PathLike[str]) -> tuple[NBSPSAC, RunFolder, dict[str, Any]]:
    """The model of a zip or of a run's folder, that folder, and what its ``config.json`` says, nothing of a zip."""
    path = Path(path)
    folder = RunFolder(path if path.is_dir() else path.parent)
    model = folder.model if path.is_dir() else path
    if not model.is_file():
        why = ": it was deleted, or the run has not finished" if path.is_dir() else ""
        raise ValueError(f"There is no model {model}{why}")
    return NBSPSAC.load(model, device="cpu"), folder, folder.config() if path.is_dir() else {}


def make_sequence(env_id: str, env_kwargs: Mapping[str, Any]) -> gym.Env:
    """Make a task sequence; ValueError if there is no such environment, or it does not take the arguments."""
    try:
        check_env_kwargs(env_id, env_kwargs)
        return gym.make(env_id, **env_kwargs)
    except gym.error.UnregisteredEnv as error:
        raise ValueError(f"There is no environment {env_id!r}{did_you_mean(env_id, gym.registry, n=3)}") from error
    except (gym.error.Error, TypeError) as error:
        raise ValueError(f"{env_id} cannot be made with {dict(env_kwargs)}: {error}") from error


def zero(
    path: str | os.PathLike[str], env_id: str | None = None, env_kwargs: dict[str, Any] | None = None, **options: Any
) -> Path:
    """
    Print the table of :func:`zero_neurons` with its options, and write it as ``zero_neurons.csv`` beside the model.

    :param path: a model's zip, or the folder of a run
    :param env_id: id of a task sequence; None for that of the run
    :param env_kwargs: its arguments; None for those of the run, if the environment is the run's, too
    :return: the file
    """
    model, folder, config = load_model(path)
    own_id = config.get("env_id")
    if not (env_id or own_id):
        raise ValueError(f"{path} does not say which environment the model is of: give --env")
    own_kwargs = (config.get("env_kwargs") or {}) if env_id in (None, own_id) else {}
    env = make_sequence(str(env_id or own_id), own_kwargs if env_kwargs is None else env_kwargs)
    with closing(env):
        if folder.statistics.exists():  # the model has learned on normalized observations
            model.set_env(VecNormalize.load(str(folder.statistics), DummyVecEnv([lambda: env])))
        frame = zero_neurons(model, env, **options)
    cells = frame.map(lambda value: f"{value:.2f}" if isinstance(value, float) else str(value))
    columns = [list(cells)[i : i + WIDTH] for i in range(1, cells.shape[1], WIDTH)]
    caption = f"Success with neurons zeroed, {options.get('n_eval_episodes', 20)} episodes"
    Table(caption, cells, columns, np.zeros(cells.shape, dtype=bool), frame, [], folder.path / FILE).print(Console())
    atomic_write(folder.path / FILE, frame.to_csv(index=False))
    return folder.path / FILE
