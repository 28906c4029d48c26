"""What methods share that are told which task they play, in training as in evaluation."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

from stable_baselines3.common.base_class import BaseAlgorithm
from typing_extensions import override

from sb3_nbsp.checks import check_option
from sb3_nbsp.interventions.base import Lacking, OffPolicyIntervention, Phase
from sb3_nbsp.interventions.fresh_networks import PhaseStartChange
from sb3_nbsp.interventions.networks import plain_policy
from sb3_nbsp.interventions.neuron_reset import NeuronReset
from sb3_nbsp.interventions.observations import warn_if_observations_move
from sb3_nbsp.messages import did_you_mean
from sb3_nbsp.tasks.recognize import has_phases


class TaskAware(OffPolicyIntervention):
    """
    Gives each task a part of SAC's actor that later tasks leave as it is. Tasks have numbers, in the order in which they come.

    :param revisit: "reuse": a task that comes back has the part that it had, and what later tasks build on stays as it is;
        "new": every phase has a part of its own, and a task is played with its latest
    :raises ValueError: if an option is out of its range
    """

    holds_networks: ClassVar[bool] = True
    changes_at_phase_end: ClassVar[bool] = True

    def __init__(self, revisit: Literal["reuse", "new"] = "reuse") -> None:
        check_option("revisit", revisit, ("reuse", "new"))
        self.revisit = revisit

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        super().attach(agent)
        name = type(self).__name__
        for other in agent.all_interventions:  # type: ignore[attr-defined]
            if isinstance(other, (NeuronReset, PhaseStartChange, TaskAware)) and other is not self:
                raise ValueError(
                    f"interventions: {name} keeps the weights of earlier tasks as they are, but {type(other).__name__} "
                    "changes them, too: leave one of them out"
                )
            if other.pulls_actor:
                raise ValueError(
                    f"interventions: with {name} nothing of earlier tasks is lost from the actor, so that the pull of "
                    f"{type(other).__name__} would only hold back the new one: leave one of them out, or pull at the critics "
                    "alone"
                )
        policy: Any = plain_policy(agent)
        self._actor = policy.actor
        if policy.share_features_extractor and any(True for _ in self._actor.features_extractor.parameters()):
            raise ValueError(
                f"policy_kwargs: the critics train a features extractor that they share with the actor, and {name} could not "
                "keep what earlier tasks need of it. Use share_features_extractor=False"
            )
        if getattr(agent, "use_sde", False):
            raise ValueError(f"use_sde: {name} knows actors without generalized state-dependent exploration only; use False")
        if parametrized := [each for each, _ in self._actor.named_parameters() if ".parametrizations." in each]:
            raise ValueError(
                f"policy: {name} divides weights between tasks, but {parametrized[0]!r} is none: a weight is computed from it "
                "(weight_norm, spectral_norm). Use plain layers"
            )
        if statistics := [each for each, _ in self._actor.named_buffers()]:
            raise ValueError(
                f"policy: {name} keeps weights as they are, but {statistics[0]!r} of the actor changes with what the actor "
                "sees; use a LayerNorm in the place of a batch norm"
            )
        self._numbers: dict[str, int] = {}  # by task, the latest
        self._current = 0
        self._names: list[str] = []  # of the sequence's tasks

    @property
    def task_numbers(self) -> dict[str, int]:
        """By task, its number: from 0, in the order in which they came."""
        return self._numbers

    @property
    def n_tasks_so_far(self) -> int:
        """How many numbers have been given."""
        return max(self._numbers.values(), default=-1) + 1

    @property
    @abstractmethod
    def knows_a_task(self) -> bool:
        """Whether a task has a part that later ones leave as it is."""

    @property
    @override
    def lacks(self) -> Lacking | None:
        return None if self.knows_a_task else "knowledge"

    @abstractmethod
    def play(self, task: str) -> None:
        """
        Play a task from here on.

        :param task: its name; one that has no number yet is to come
        """

    @override
    def on_learn_start(self, reset: bool) -> None:
        if plain_policy(self.agent).actor is not self._actor:
            raise ValueError(f"policy: the actor is another one than that which {type(self).__name__} divides between tasks")
        warn_if_observations_move(self)
        if has_phases(self.agent.env):
            assert self.agent.env is not None
            self._names = list(self.agent.env.get_attr("task_names", indices=0)[0])
        agent: Any = self.agent
        if agent.n_finished_phases == agent.phase.index:  # what another agent has finished has no part
            self._numbers.setdefault(self._task, self._current)  # of the first phase
        self.play(self._task)

    @override
    def on_phase_start(self, phase: Phase) -> None:
        if self.revisit == "new" or phase.task not in self._numbers:
            self._numbers[phase.task] = self.n_tasks_so_far
        self._current = self._numbers[phase.task]
        self.play(phase.task)

    @override
    def on_phase_end(self, phase: Phase) -> None:
        if phase.task not in self._numbers:  # another agent has learned it, and learn() was not called since
            self._numbers[phase.task] = self._current
            self.play(phase.task)

    @override
    def on_task(self, task: str) -> None:
        known = list(dict.fromkeys([*self._names, *self._numbers]))
        if known and task not in known:
            raise ValueError(f"set_task: there is no task {task!r}{did_you_mean(task, known)} (tasks: {', '.join(known)})")
        self.play(task)

    @override
    def on_load(self) -> None:
        self.play(self._task)

    @property
    def _task(self) -> str:
        """The current phase's."""
        phase: Phase = self.agent.phase  # type: ignore[attr-defined]
        return phase.task

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"numbers": dict(self._numbers), "current": self._current, "names": list(self._names)}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._numbers, self._current, self._names = dict(state["numbers"]), state["current"], list(state["names"])
