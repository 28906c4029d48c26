"""Does a trained agent need its skill neurons? Zero them, and look at which tasks it can still do (NBSP, table 8)."""

from __future__ import annotations

import argparse
import csv
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch as th
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from torch import nn
from tqdm.auto import tqdm

from sb3_nbsp.algorithms import NBSPSAC
from sb3_nbsp.benchmark.agents import STATISTICS
from sb3_nbsp.benchmark.key_value import key_value
from sb3_nbsp.benchmark.skill_sets import Neurons, SkillSet, control_set, skill_sets
from sb3_nbsp.files import atomic_write, read_json_object
from sb3_nbsp.interventions import GradientMasking
from sb3_nbsp.interventions.networks import ScoredNetwork, scored_networks
from sb3_nbsp.messages import did_you_mean, warn
from sb3_nbsp.neurons import zeroed
from sb3_nbsp.neurons.layers import NeuronLayer
from sb3_nbsp.tasks import TaskSequence
from sb3_nbsp.tasks.policy_evaluation import SEED, evaluate_task, evaluation_seed
from sb3_nbsp.tasks.task_envs import single_task_makers
from sb3_nbsp.zoo.options import check_env_kwargs

FILE = "zero_neurons.csv"


@dataclass(frozen=True)
class Zeroed:
    """
    A row of the table.

    :param name: what is zeroed
    :param n_neurons: how many neurons
    :param success: by task: the success rate, or the mean return where a task does not report success
    """

    name: str
    n_neurons: int
    success: dict[str, float]


def zero_neurons(
    model: NBSPSAC, env: gym.Env, n_eval_episodes: int = 20, networks: Sequence[str] = ("actor",), seed: int = 0
) -> list[Zeroed]:
    """
    Evaluate a model with nothing zeroed and, for every pair of its tasks, with its general skill neurons zeroed, the
    specific ones of either task, and as many random neurons that are nobody's skill neurons.

    :param model: the trained agent; it is left as it is
    :param env: a task sequence; the model is evaluated on its distinct tasks
    :param n_eval_episodes: episodes per task and row
    :param networks: names of the networks in which neurons are zeroed; the critics do not act
    :param seed: seed of the choice of random neurons
    :return: the rows: nothing, then four for every pair
    :raises ValueError: if the model has no skill neurons, of one task only, or of tasks that the environment lacks;
        if there is no such network
    """
    if n_eval_episodes < 1:
        raise ValueError(f"n_eval_episodes must be at least 1, not {n_eval_episodes}")
    skill_neurons = _skill_neurons(model, networks)
    scored = [network for network in scored_networks(model) if network.name in networks]
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
                rows = [Zeroed("nothing", 0, evaluate("nothing", {}))]
            for skill_set in _with_controls(sets, skill_neurons, active, seed):
                success = evaluate(skill_set.name, skill_set.neurons) if skill_set.size else rows[0].success
                rows.append(Zeroed(skill_set.name, skill_set.size, success))
    return rows


def _success(
    model: NBSPSAC, envs: Mapping[str, VecEnv], n_episodes: int, on_episode: Callable[[], Any], reporting: set[str]
) -> dict[str, float]:
    """
    Success on each task.

    :param reporting: tasks that have reported success before; those that do so now are added
    """
    success = {}
    for index, (task, env) in enumerate(envs.items()):
        seed = evaluation_seed(SEED, index, model.seed)  # the episodes of SequenceEvaluation
        success[task], is_success = evaluate_task(model, env, n_episodes, seed, on_episode, task in reporting)
        if is_success:
            reporting.add(task)
        else:
            warn(f"{task} does not report success: the mean return of an episode takes its place")
    return success


def _with_controls(
    sets: Sequence[SkillSet], skill_neurons: Mapping[str, Mapping[str, th.Tensor]], active: Neurons, seed: int
) -> Iterator[SkillSet]:
    for skill_set in sets:
        yield skill_set
        if skill_set.is_general:
            yield control_set(skill_set, skill_neurons, active, seed)


def _skill_neurons(model: NBSPSAC, networks: Sequence[str]) -> dict[str, dict[str, th.Tensor]]:
    skill_neurons = model.hooks.find(GradientMasking).skill_neurons
    if not skill_neurons:
        raise ValueError("The model has no skill neurons yet: no phase has ended, or none could identify any")
    if len(skill_neurons) < 2:
        raise ValueError(
            f"The model has skill neurons of one task only, {', '.join(skill_neurons)}: "
            "general and specific ones need two tasks with a finished phase"
        )
    there_are = list(dict.fromkeys(name for by_network in skill_neurons.values() for name in by_network))
    for task, by_network in skill_neurons.items():
        unknown = [name for name in networks if name not in by_network]
        if unknown or not networks:
            raise ValueError(
                f"networks: {list(networks)} are not all networks with skill neurons of {task}; there are {there_are}"
            )
    return skill_neurons


@contextmanager
def _task_envs(model: NBSPSAC, env: gym.Env, tasks: Mapping[str, Any]) -> Iterator[dict[str, VecEnv]]:
    """An environment for each distinct task of a sequence."""
    names = env.unwrapped.task_names if isinstance(env.unwrapped, TaskSequence) else []
    if not names:
        raise ValueError(f"env must be a task sequence, such as MW-CoffeeButton-HandlePress-laptop-v0, not {env}")
    missing = [task for task in tasks if task not in names]
    if missing:
        raise ValueError(f"The model has skill neurons of {', '.join(tasks)}, but the tasks of env are {', '.join(names)}")
    makers, envs = single_task_makers(env), dict[str, VecEnv]()
    try:
        for name in names:
            envs[name] = model._wrap_env(makers[name](), monitor_wrapper=True)
            for kind in ("observation_space", "action_space"):
                own, theirs = getattr(model, kind), getattr(envs[name], kind)
                if own != theirs:
                    raise ValueError(f"The model's {kind} is {own}, but that of the task {name!r} is {theirs}")
        yield envs
    finally:
        for task_env in envs.values():
            task_env.close()


@contextmanager
def _watched(networks: Sequence[ScoredNetwork]) -> Iterator[Neurons]:
    """
    Which neurons are ever not zero inside the block.

    :param networks: the networks to watch
    :return: by network, filled when the block is left: boolean over its hidden neurons
    """
    seen: dict[str, list[th.Tensor]] = {
        network.name: [th.zeros(layer.n_neurons, dtype=th.bool) for layer in network.layers] for network in networks
    }

    def watch(layer: NeuronLayer, active: th.Tensor) -> Any:
        def hook(_module: nn.Module, _inputs: object, output: th.Tensor) -> None:
            # The features of a CReLU neuron j are j and n + j
            features = output.detach().transpose(0, 1).reshape(layer.features_per_neuron, layer.n_neurons, -1)
            active.logical_or_((features != 0).any(2).any(0).cpu())

        return layer.activation.register_forward_hook(hook)

    handles = [
        watch(layer, active) for network in networks for layer, active in zip(network.layers, seen[network.name], strict=True)
    ]
    found: Neurons = {}
    try:
        yield found
        for name, layers in seen.items():
            active = th.cat(layers)
            # Nothing ran through the critics, which says nothing about their neurons
            found[name] = active if active.any() else ~active
    finally:
        for handle in handles:
            handle.remove()


def load_model(path: str | os.PathLike[str]) -> tuple[NBSPSAC, Path, dict[str, Any]]:
    """
    :param path: a model's zip, or a run's folder with ``model.zip`` and ``config.json``
    :return: the model, its zip and what its ``config.json`` says; nothing, if there is none
    :raises ValueError: if there is no such model, or one of the files is damaged
    """
    path = Path(path)
    zip_file, config_file = (path / "model.zip", path / "config.json") if path.is_dir() else (path, None)
    if not zip_file.is_file():
        why = ": it was deleted, or the run has not finished" if path.is_dir() else ""
        raise ValueError(f"There is no model {zip_file}{why}")
    config = read_json_object(config_file) if config_file is not None and config_file.exists() else {}
    return NBSPSAC.load(zip_file, device="cpu"), zip_file, config


def make_sequence(env_id: str, env_kwargs: Mapping[str, Any]) -> gym.Env:
    """
    :param env_id: id of a task sequence
    :param env_kwargs: its arguments
    :return: the environment
    :raises ValueError: if there is no such environment, or it does not take the arguments
    """
    try:
        check_env_kwargs(env_id, env_kwargs)
        return gym.make(env_id, **env_kwargs)
    except gym.error.UnregisteredEnv as error:
        raise ValueError(f"There is no environment {env_id!r}{did_you_mean(env_id, gym.registry, n=3)}") from error
    except (gym.error.Error, TypeError) as error:
        raise ValueError(f"{env_id} cannot be made with {dict(env_kwargs)}: {error}") from error


def write_csv(rows: Sequence[Zeroed], path: str | os.PathLike[str]) -> None:
    """
    :param rows: what :func:`zero_neurons` returns
    :param path: the file: a line per row, a column per task
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["zeroed", "neurons", *rows[0].success])
    writer.writerows([row.name, row.n_neurons, *row.success.values()] for row in rows)
    atomic_write(path, text.getvalue())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    :param parser: the parser of the subcommand
    """
    parser.add_argument("model", metavar="MODEL", help="an NBSPSAC model's zip, or the folder of a run")
    parser.add_argument("--env", help="id of a task sequence; default: that of the run")
    parser.add_argument(
        "--env-kwargs",
        type=key_value,
        nargs="+",
        metavar="KEY:VALUE",
        help="arguments of the environment; default: those of the run",
    )
    parser.add_argument("--n-eval-episodes", type=int, default=20, help="episodes per task and row")
    parser.add_argument(
        "--networks",
        nargs="+",
        default=["actor"],
        help="networks whose neurons are zeroed; the critics, qf0 and qf1, do not act",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of random neurons")


def main(args: argparse.Namespace) -> None:
    """
    Print the table, and write it as ``zero_neurons.csv`` beside the model.

    :param args: what :func:`add_arguments` asks for
    :raises ValueError: see :func:`load_model`, :func:`make_sequence` and :func:`zero_neurons`
    """
    model, zip_file, config = load_model(args.model)
    env_id = args.env or config.get("env_id")
    if env_id is None:
        raise ValueError(f"{args.model} does not say which environment the model is of: give --env")
    # A run's arguments belong to its environment
    is_own = args.env in (None, config.get("env_id"))
    env_kwargs = (config.get("env_kwargs") or {}) if is_own else {}
    if args.env_kwargs is not None:
        env_kwargs = dict(args.env_kwargs)
    env = make_sequence(env_id, env_kwargs)
    try:
        _normalize(model, env, zip_file.with_name(STATISTICS))
        rows = zero_neurons(model, env, args.n_eval_episodes, args.networks, args.seed)
    finally:
        env.close()
    _print(rows, args.n_eval_episodes)
    write_csv(rows, zip_file.with_name(FILE))
    Console().print(f"Written: {zip_file.with_name(FILE)}", markup=False, highlight=False, soft_wrap=True)


def _normalize(model: NBSPSAC, env: gym.Env, statistics: Path) -> None:
    """Let a model that has learned on normalized observations act on such."""
    if statistics.exists():
        model.set_env(VecNormalize.load(str(statistics), DummyVecEnv([lambda: env])))


def _print(rows: Sequence[Zeroed], n_episodes: int) -> None:
    table = RichTable(title=f"Success with neurons zeroed, {n_episodes} episodes")
    table.add_column("zeroed")
    for name in ("neurons", *rows[0].success):
        table.add_column(escape(name), justify="right")
    for row in rows:
        table.add_row(escape(row.name), str(row.n_neurons), *(f"{rate:.2f}" for rate in row.success.values()))
    Console().print(table)
