"""PackNet: every weight of the actor belongs to one task, and later tasks share what earlier ones can do without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn
from typing_extensions import override

from sb3_nbsp.checks import whole
from sb3_nbsp.interventions.base import Network, Phase
from sb3_nbsp.interventions.observations import can_sample
from sb3_nbsp.interventions.task_aware import TaskAware
from sb3_nbsp.messages import warn
from sb3_nbsp.neurons.masks import MaskedStep

_MOST_TASKS = 255  # an owner is a byte


class PackNet(TaskAware):
    """
    Every weight of the actor has an owner, the number of a task. While task t is learned, only its weights move. At the end
    of a task's first phase, the smallest of its weights are set to zero and passed on to task t + 1, and the task is trained
    again on D with the remaining ones. To play task t, the weights of later tasks are set to zero. Biases, and the gains and
    biases of norm layers, stay fixed after the first phase. The critics learn as usual.

    If another task has been learned after a task, a return to that task does not change the actor any more, because the
    later task builds on its weights.

    Papers: PackNet: Adding Multiple Tasks to a Single Network by Iterative Pruning (Mallya & Lazebnik, 2018); on SAC:
    Continual World: A Robotic Benchmark For Continual Reinforcement Learning (Wołczyk et al., 2021). The agent is told the
    task.

    :param n_tasks: number of tasks there will be, at most 255; None: as many as the task sequence has
    :param retrain_steps: gradient steps on D with the weights that a task keeps
    :param revisit: "reuse": a task that comes back has its weights again; "new": every phase has weights of its own, and a
        task is played with its latest ones
    :raises ValueError: if an option is out of its range
    """

    waits_for_phase_end = True

    def __init__(
        self, n_tasks: int | None = None, retrain_steps: int = 100_000, revisit: Literal["reuse", "new"] = "reuse"
    ) -> None:
        super().__init__(revisit)
        self.n_tasks = None if n_tasks is None else whole("n_tasks", n_tasks, 1, _MOST_TASKS)
        self.retrain_steps = whole("retrain_steps", retrain_steps, 0)

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        super().attach(agent)
        self._owners: dict[
            str, th.Tensor
        ] = {}  # by name of a weight, one byte each; empty until the first task has been packed
        self._n_packed = 0  # tasks that have handed weights on
        self._has_to_retrain = False  # it may be interrupted
        self._is_full = False  # has the last task that there was to be been learned?
        self._view: int | None = None  # weights of later owners are zero; None: all weights are there
        self._aside: dict[str, th.Tensor] = {}  # by name of a weight, those of later owners, shape (k,)
        self._step: MaskedStep | None = None

    @property
    def owners(self) -> dict[str, th.Tensor]:
        """By name of a weight of the actor, the number of the task that owns each entry. Empty in the first phase."""
        return self._owners

    @property
    @override
    def knows_a_task(self) -> bool:
        return self._n_packed > 0 or self._is_full

    @override
    def play(self, task: str) -> None:
        self._set_view(self._numbers.get(task))

    @override
    def on_learn_start(self, reset: bool) -> None:
        super().on_learn_start(reset)
        to_come = self._n_to_come(0)
        if to_come is None and self.n_tasks is None and self._task:
            raise ValueError(_UNKNOWN_NUMBER)
        total = self.n_tasks_so_far + (to_come or 0)
        if total > (_MOST_TASKS if self.n_tasks is None else self.n_tasks):
            raise ValueError(
                f"n_tasks is {self.n_tasks} (at most {_MOST_TASKS}), but with revisit={self.revisit!r} the task sequence has "
                f"{total} tasks in all"
            )
        if self._is_full and to_come:
            raise ValueError(self._no_weights_left("those to come"))
        self._prepare_step()

    @override
    def on_phase_start(self, phase: Phase) -> None:
        is_new = self.revisit == "new" or phase.task not in self._numbers
        if is_new and (self._is_full or self.n_tasks_so_far == self.n_tasks):
            raise ValueError(self._no_weights_left(phase.task))
        before = self._current
        super().on_phase_start(phase)
        self._prepare_step()
        if self._current != before:  # gradients that a mask has held back are in the moments all the same
            self._actor.optimizer.state.clear()

    @override
    def on_phase_end(self, phase: Phase) -> None:
        super().on_phase_end(phase)
        if self._current >= self._n_packed:  # otherwise it has handed its weights on before
            self._hand_on()
        if self._has_to_retrain:
            if self._can_retrain():
                if self.agent.verbose >= 1:  # it can take as long as a phase
                    task = phase.task or "the task"
                    print(f"PackNet retrains the weights that {task} keeps: {self.retrain_steps} gradient steps")
                self.agent.train_further(self.retrain_steps)  # type: ignore[attr-defined]
                self._forget_moments()
            self._has_to_retrain = False

    def _hand_on(self) -> None:
        """Hand weights of the current task on to those still to come."""
        n_left = self._n_to_come(1) if self.n_tasks is None else self.n_tasks - self._current - 1
        if n_left is None:
            raise ValueError(_UNKNOWN_NUMBER)
        if n_left == 0:
            self._is_full = True
            return
        self._set_view(None)
        if not self._owners:
            self._owners = {name: th.zeros_like(weight, dtype=th.uint8) for name, weight in self._weights().items()}
        for name, weight in self._weights().items():
            prune(weight, self._owners[name], self._current, n_left)
        self._n_packed, self._has_to_retrain = self._current + 1, self.retrain_steps > 0
        self._set_view(self._current)
        self._prepare_step()
        self._forget_moments()

    @override
    def masked_step(self, network: Network) -> MaskedStep | None:
        return self._step if network == "actor" else None

    @override
    @contextmanager
    def all_parameters(self) -> Iterator[None]:
        view = self._view
        self._set_view(None)
        try:
            yield
        finally:
            self._set_view(view)

    @override
    def state_dict(self) -> dict[str, Any]:
        owners = {name: each.clone() for name, each in self._owners.items()}
        aside = {name: each.clone() for name, each in self._aside.items()}
        own = {"owners": owners, "n_packed": self._n_packed, "is_full": self._is_full, "view": self._view, "aside": aside}
        return {**super().state_dict(), **own, "has_to_retrain": self._has_to_retrain}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._owners, self._aside = ({name: each.clone() for name, each in state[key].items()} for key in ("owners", "aside"))
        self._n_packed, self._is_full, self._view = state["n_packed"], state["is_full"], state["view"]
        self._has_to_retrain = state.get("has_to_retrain", False)  # older files do not say
        self._prepare_step()

    def _weights(self) -> dict[str, nn.Parameter]:
        """What has owners: the weights, but no biases, nor gains and biases of norm layers."""
        return {name: parameter for name, parameter in self._actor.named_parameters() if parameter.dim() > 1}

    def _n_to_come(self, ahead: int) -> int | None:
        """
        :param ahead: phases by which the environment is ahead of the agent: 1 when one ends
        :return: tasks after the agent's current one, None if the environment is no task sequence
        """
        if not self._names:
            return None
        if self.revisit == "reuse":
            return len(set(self._names) - self._numbers.keys())
        env = self.agent.env
        assert env is not None
        n_phases, phase, is_over = (env.get_attr(name, indices=0)[0] for name in ("n_phases", "phase", "sequence_over"))
        return 0 if is_over else int(n_phases - phase - 1 + ahead)

    def _no_weights_left(self, tasks: str) -> str:
        return (
            f"n_tasks: PackNet has divided the actor's weights between {self.n_tasks_so_far} tasks, and none are left for "
            f"{tasks}. Say how many there will be when the agent is made: n_tasks=..."
        )

    @th.no_grad()
    def _set_view(self, view: int | None) -> None:
        """Set the weights of tasks after one to zero, and put back those that were."""
        weights = self._weights()
        for name, owners in self._owners.items():
            if self._view is not None:
                weights[name][owners > self._view] = self._aside.pop(name)
            if view is not None:
                self._aside[name] = weights[name][owners > view]
                weights[name][owners > view] = 0.0
        self._view = view

    def _prepare_step(self) -> None:
        """Mask the steps: the weights of the current task move, if none has been learned after it."""
        if not self._owners:
            self._step = None  # the first task has everything
            return
        is_latest = self._current == self.n_tasks_so_far - 1
        self._step = MaskedStep(
            [
                (parameter, (self._owners[name] == self._current) & is_latest)
                if name in self._owners
                else (parameter, th.zeros(parameter.shape))
                for name, parameter in self._actor.named_parameters()
            ]
        )

    def _forget_moments(self) -> None:
        for optimizer in self.agent._optimizers():  # type: ignore[attr-defined]
            optimizer.state.clear()

    def _can_retrain(self) -> bool:
        assert self.agent.replay_buffer is not None
        if can_sample(self.agent.replay_buffer):
            return True
        warn(
            "PackNet cannot retrain: the replay buffer is empty, or HER has no whole episode. Load that of the agent: "
            "load_replay_buffer(path)"
        )
        return False


_UNKNOWN_NUMBER = (
    "n_tasks: PackNet has to know how many tasks there will be, and the environment is no task sequence: say so when the "
    "agent is made, n_tasks=..."
)


@th.no_grad()
def prune(weight: th.Tensor, owners: th.Tensor, task: int, n_left: int) -> None:
    r"""
    Hand weights of a task on to the next one, so that the tasks still to come get an equal share: the smallest

    .. math:: \left\lfloor n \, \frac{n_\mathrm{left}}{n_\mathrm{left} + 1} \right\rfloor

    of its n weights by magnitude, which are set to zero (Wołczyk et al., 2021). Of equal ones, the first go.

    :param weight: weights of a layer
    :param owners: numbers of the tasks that own them, of the same shape
    :param task: number of the task
    :param n_left: tasks still to come
    """
    own = th.nonzero(owners.flatten() == task).flatten()
    magnitudes = weight.flatten()[own].abs()
    handed_on = own[th.sort(magnitudes, stable=True).indices[: len(own) * n_left // (n_left + 1)]]
    chosen = th.zeros(weight.numel(), dtype=th.bool, device=weight.device)
    chosen[handed_on] = True
    weight[chosen.view(weight.shape)] = 0.0
    owners[chosen.view(weight.shape)] = task + 1
