"""Does a trained agent need its skill neurons? Zero them, and look at which tasks it can still do (NBSP, table 8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import gymnasium as gym
import torch as th
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import VecEnv
from tqdm.auto import tqdm

from sb3_nbsp.algorithms import NBSPSAC
from sb3_nbsp.interventions import GradientMasking
from sb3_nbsp.interventions.networks import AgentNetwork, networks_of
from sb3_nbsp.messages import warn
from sb3_nbsp.neurons import zeroed
from sb3_nbsp.neurons.activations import observed
from sb3_nbsp.neurons.utility import neuron_magnitudes
from sb3_nbsp.tasks import TaskSequence
from sb3_nbsp.tasks.policy_evaluation import SEED, TaskResult, comparable_values, evaluate_task, evaluation_seed
from sb3_nbsp.tasks.task_envs import single_task_makers

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
) -> list[dict[str, str | float]]:
    """
    Evaluate a model with nothing zeroed and, for every pair of its tasks, with its general skill neurons zeroed, as many
    random neurons that are no task's skill neurons, and the specific ones of either task.

    :param model: the trained agent; it is left as it is
    :param env: a task sequence; the model is evaluated on its distinct tasks
    :param n_eval_episodes: episodes per task and row
    :param networks: names of the networks in which neurons are zeroed; the critics do not act
    :param seed: of the choice of random neurons
    :return: a row for nothing, then four for every pair: what is ``zeroed``, how many ``neurons``, and for each task the
        success rate, or the mean score or return where it does not report success
    :raises ValueError: if the model has no skill neurons, of one task only, or of tasks that the environment lacks;
        if there is no such network
    """
    if n_eval_episodes < 1:
        raise ValueError(f"n_eval_episodes must be at least 1, not {n_eval_episodes}")
    skill_neurons = _skill_neurons(model, networks)
    scored = [network for network in networks_of(model) if network.name in networks]
    sets = skill_sets(skill_neurons, networks)
    rows: list[tuple[SkillSet, list[TaskResult]]] = []
    with _task_envs(model, env, skill_neurons) as envs, tqdm(unit="episode", leave=False) as bar:
        bar.total = (1 + len(sets) + sum(each.is_general for each in sets)) * len(envs) * n_eval_episodes

        def evaluate(zeroing: SkillSet) -> None:
            bar.set_description(f"zeroed: {zeroing.name}")
            found = rows[0][1] if rows and not zeroing.size else []  # with nothing zeroed it is known
            with ExitStack() as stack:
                for network in scored if zeroing.size else []:
                    stack.enter_context(zeroed(network.layers, zeroing.neurons[network.name]))
                for index, (task, task_env) in enumerate(() if found else envs.items()):
                    episodes = evaluation_seed(SEED, index, model.seed)  # those of SequenceEvaluation
                    found = [*found, evaluate_task(model, task_env, n_eval_episodes, episodes, bar.update, task=task)]
            rows.append((zeroing, found))

        with _watched(scored) as active:
            evaluate(SkillSet("nothing", {}))
        for each in sets:
            evaluate(each)
            if each.is_general:
                evaluate(control_set(each, skill_neurons, active, seed))
    columns = [_rates(task, [found[index] for _, found in rows]) for index, task in enumerate(envs)]
    return [
        {"zeroed": each.name, "neurons": each.size, **dict(zip(envs, values, strict=True))}
        for (each, _), *values in zip(rows, *columns, strict=True)
    ]


def _rates(task: str, results: Sequence[TaskResult]) -> list[float]:
    if results[0].kind == "return" and all(each.kind != "success" for each in results):
        warn(f"{task} does not report success: the mean return of an episode takes its place")
    return comparable_values(results)


def _skill_neurons(model: NBSPSAC, networks: Sequence[str]) -> dict[str, Neurons]:
    found = model.all_interventions.find(GradientMasking).skill_neurons
    if not found:
        raise ValueError(
            "The model has no skill neurons: it was trained without gradient masking, or no phase has identified any"
        )
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
def _task_envs(model: NBSPSAC, env: gym.Env, tasks: Mapping[str, Neurons]) -> Iterator[dict[str, VecEnv]]:
    """An environment for each distinct task of a sequence."""
    names = env.unwrapped.task_names if isinstance(env.unwrapped, TaskSequence) else []
    if not names:
        raise ValueError(f"env must be a task sequence, such as MW-CoffeeButton-HandlePress-laptop-v0, not {env}")
    if any(task not in names for task in tasks):
        raise ValueError(f"The model has skill neurons of {', '.join(tasks)}, but the tasks of env are {', '.join(names)}")
    with ExitStack() as stack:
        makers, envs = single_task_makers(env), dict[str, VecEnv]()
        for name in names:
            envs[name] = stack.enter_context(closing(model._wrap_env(makers[name](), monitor_wrapper=True)))
            check_for_correct_spaces(envs[name], model.observation_space, model.action_space)
        yield envs


@contextmanager
def _watched(networks: Sequence[AgentNetwork]) -> Iterator[Neurons]:
    """Which neurons are ever not zero inside the block: filled when it is left."""
    seen = {each.name: [th.zeros(layer.n_neurons, dtype=th.bool) for layer in each.layers] for each in networks}
    found: Neurons = {}

    def note(network: AgentNetwork, index: int, output: th.Tensor) -> None:
        magnitudes = neuron_magnitudes(network.layers[index], output.detach())
        seen[network.name][index] |= (magnitudes > 0).any(0).cpu()

    with ExitStack() as stack:
        for each in networks:
            stack.enter_context(observed(each.layers, partial(note, each)))
        yield found
    for name, layers in seen.items():
        active = th.cat(layers)
        # Nothing ran through the critics, which says nothing about their neurons
        found[name] = active if active.any() else ~active
