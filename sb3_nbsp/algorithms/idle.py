"""What an agent was told to do and will not do: said when it begins to learn, with what to change."""

from __future__ import annotations

import math
from typing import Any

from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import TrainFreq

from sb3_nbsp.algorithms.options import constructor_parameters
from sb3_nbsp.interventions import ContinualBackprop, Intervention
from sb3_nbsp.interventions.neuron_reset import NeuronReset, PeriodicReset


def idle_parts(agent: Any, has_phases: bool, phase_options: dict[str, Any]) -> dict[str, str]:
    """
    :param agent: an agent of this package whose ``learn()`` begins
    :param has_phases: whether its environment is a task sequence
    :param phase_options: the agent's options that act at the start of a phase only, with their defaults
    :return: for everything that will not act, its name and a message
    """
    interventions, messages = list(agent.all_interventions), {}
    waiting = [type(each).__name__ for each in interventions if each.needs_phases]
    waiting += [name for name, default in phase_options.items() if getattr(agent, name) != default]
    if waiting and not has_phases and agent.phase.task == "":
        messages["phases"] = _no_phases(agent, waiting)
    if phase_options and _asked_for(agent, "reset_ent_coef") and agent.ent_coef_optimizer is None:
        fixed = f"ent_coef={agent.ent_coef!r} is fixed"
        messages["reset_ent_coef"] = f"reset_ent_coef has nothing to reset: {fixed}. Use ent_coef='auto', or leave it out"
    if isinstance(agent, OffPolicyAlgorithm) and _last_step(agent) <= agent.learning_starts:
        messages["learning_starts"] = _no_updates(agent)
    elif isinstance(agent, OffPolicyAlgorithm) and has_phases and (message := _warm_up_only(agent)) is not None:
        messages["warm-up"] = message
    for each in interventions:
        name = type(each).__name__
        if each.waits_for_renewals and not any(isinstance(other, NeuronReset) for other in interventions):
            messages[name] = _no_renewals(name)
        elif agent.n_finished_phases > 0 and (lacking := each.lacks) is not None:
            messages[name] = _nothing_remembered(agent, name) if lacking == "memory" else _nothing_known(agent, name)
        elif (message := _too_short(agent, each)) is not None:
            messages[name] = message
    return messages


def _asked_for(agent: Any, name: str) -> bool:
    """Whether an option is True, and is not so by default."""
    return bool(getattr(agent, name) and not constructor_parameters(type(agent))[name].default)


def _no_updates(agent: OffPolicyAlgorithm) -> str:
    return (
        f"{type(agent).__name__} learns nothing in this call of learn(), which ends at step {_last_step(agent)}: until step "
        f"learning_starts={agent.learning_starts} it acts at random, without updates. Train longer or lower it"
    )


def _warm_up_only(agent: Any) -> str | None:
    """Whether the phases after the first one end ahead of any update, but for what an episode goes on beyond them."""
    assert agent.env is not None
    attributes = ("n_phases", "steps_per_task", "last_phase_steps")
    n_phases, steps, of_last = (agent.env.get_attr(name, indices=0)[0] for name in attributes)
    longest = max([steps] * (n_phases > 2) + [steps if of_last is None else of_last] * (n_phases > 1), default=None)
    own = agent.phase_learning_starts
    name, warmup = ("learning_starts", agent.learning_starts) if own is None else ("phase_learning_starts", own)
    if longest is None or warmup < longest * agent.n_envs:
        return None
    return (
        f"{type(agent).__name__} learns nothing from the second phase on: each begins with {name}={warmup} steps without "
        f"updates, and ends after {longest * agent.n_envs} at the latest. Make phases longer, or lower phase_learning_starts"
    )


def _no_phases(agent: Any, waiting: list[str]) -> str:
    return (
        f"The environment is no task sequence: there is one phase only, which never ends, and {', '.join(waiting)} of this "
        f"{type(agent).__name__} will not act. Put the tasks into a sb3_nbsp.tasks.TaskSequence, or call start_phase(task) "
        "whenever you change the task yourself, and ahead of the first one"
    )


def _no_renewals(name: str) -> str:
    return f"{name} acts when neurons are renewed, and no intervention renews any: add one that does, e.g. CycleReset"


def _nothing_remembered(agent: Any, name: str) -> str:
    """A model's zip does not hold the memory, which can be large."""
    return (
        f"{name} has no memory of the phases of this {type(agent).__name__} that are over ({agent.n_finished_phases}), and "
        "will replay nothing of them. If it was on then, it is in the file of the replay buffer: load_replay_buffer(path)"
    )


def _nothing_known(agent: Any, name: str) -> str:
    return (
        f"{name} knows nothing of the phases of this {type(agent).__name__} that are over ({agent.n_finished_phases}): it was "
        "not there when they ended, or off (as with a coefficient of 0), or found nothing to protect. It protects what is "
        "learned from now on"
    )


def _too_short(agent: BaseAlgorithm, intervention: Intervention) -> str | None:
    """Whether this call of ``learn()`` ends ahead of the first renewal in the agent's life."""
    if not isinstance(intervention, NeuronReset) or any(counts.any() for counts in intervention.reset_counts.values()):
        return None
    if isinstance(intervention, PeriodicReset):
        end, next_reset = _last_step(agent), intervention.next_reset
        if end < next_reset:
            return (
                f"{type(intervention).__name__} renews no neuron in this call of learn(), which ends at step {end}: the next "
                f"reset is due at step {next_reset}. Train longer or lower reset_frequency={intervention.reset_frequency}"
            )
    if isinstance(intervention, ContinualBackprop):
        n_steps, threshold = _gradient_steps(agent), intervention.maturity_threshold
        if n_steps <= threshold:
            return (
                f"ContinualBackprop replaces no neuron in this call of learn(), which makes {n_steps} gradient steps: neurons "
                f"have to be older than maturity_threshold={threshold}. Train longer or lower it"
            )
    return None


def _last_step(agent: BaseAlgorithm) -> int:
    """Environment step at which this call of ``learn()`` ends; PPO fills its last rollout."""
    total = agent._total_timesteps
    if not isinstance(agent, PPO):
        return total
    rollout, left = agent.n_steps * agent.n_envs, total - agent.num_timesteps
    return agent.num_timesteps + math.ceil(left / rollout) * rollout


def _gradient_steps(agent: BaseAlgorithm) -> int:
    """How many gradient steps this call of ``learn()`` makes at most."""
    left = _last_step(agent) - agent.num_timesteps
    if isinstance(agent, PPO):
        rollout = agent.n_steps * agent.n_envs
        return left // rollout * agent.n_epochs * math.ceil(rollout / agent.batch_size)
    assert isinstance(agent, OffPolicyAlgorithm) and isinstance(agent.train_freq, TrainFreq)
    if agent.gradient_steps < 0:
        return left
    per_rollout = agent.train_freq.frequency * agent.n_envs if agent.train_freq.unit.value == "step" else 1
    return left // per_rollout * agent.gradient_steps
