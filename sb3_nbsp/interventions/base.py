"""What an intervention is: hooks into an agent's training that do nothing unless a method overrides them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import nn
from typing_extensions import override

from sb3_nbsp.neurons.masks import MaskedStep

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from sb3_nbsp.neurons import NeuronLayer

Network = Literal["actor", "critic"]
NETWORKS: tuple[Network, ...] = ("actor", "critic")
Lacking = Literal["memory", "knowledge"]
AnyIntervention = TypeVar("AnyIntervention", bound="Intervention")

# The hooks that every agent of this package calls, and those that an agent with a replay buffer or with rollouts calls
_COMMON_HOOKS = frozenset(
    {
        "check_agent",
        "on_learn_start",
        "on_phase_start",
        "on_phase_end",
        "on_task",
        "on_transition",
        "has_penalty",
        "needs_autograd",
        "penalty",
        "before_step",
        "masked_step",
        "after_step",
        "after_train",
        "before_renewal",
        "after_renewal",
        "after_redraw",
        "all_parameters",
        "state_dict",
        "load_state_dict",
        "on_load",
    }
)
OFF_POLICY_HOOKS = _COMMON_HOOKS | {"replay_source", "on_batch", "warmup_actions", "memory_state", "load_memory_state"}
ON_POLICY_HOOKS = _COMMON_HOOKS | {"extra_epochs"}
HOOKS = OFF_POLICY_HOOKS | ON_POLICY_HOOKS


@dataclass(frozen=True)
class Phase:
    """
    One stretch of training on one task.

    :param index: position of the phase in the agent's life, from 0
    :param task: name of the task; the same name means the same task
    """

    index: int
    task: str


class Intervention:
    """
    A change to how an agent learns. Subclass it and override the hooks you need; all others do nothing.

    The constructor must only store its options: it runs once, in the user's code, and
    the object is saved with the model. State belongs in :meth:`attach`, :meth:`state_dict`
    and :meth:`load_state_dict`.
    """

    agent: BaseAlgorithm
    # Within a phase, it does the same operations on the same tensors at every gradient step, and never waits for their
    # values: only then can a gradient step on a GPU be captured once and replayed
    capturable: ClassVar[bool] = False
    # It acts when another intervention renews neurons, and does nothing on its own
    waits_for_renewals: ClassVar[bool] = False
    # Until a phase has ended, the agent learns as it does without it, to the last bit
    waits_for_phase_end: bool = False
    # It keeps account of neurons or parameters of the networks as they are: nothing may replace these, and it is told of all
    # neurons that are renewed
    holds_networks: ClassVar[bool] = False
    # It changes the networks at the end of a phase: it comes first there, so that the others judge and keep what is left
    changes_at_phase_end: ClassVar[bool] = False

    @property
    def needs_phases(self) -> bool:
        """Whether it does nothing where no phase ever ends."""
        return self.overrides("on_phase_end")

    @property
    def pulls_actor(self) -> bool:
        """Whether it pulls the actor's parameters or outputs to what earlier tasks have left, or to a network beside it."""
        return False

    @property
    def lacks(self) -> Lacking | None:
        """
        What it needs of phases that are over, and has of none: ``learn()`` warns if the agent has finished some.

        :return: "memory" for what a model's zip does not hold and the file of the replay buffer does, "knowledge" for what is
            gathered at the end of a phase only; None if it lacks nothing
        """
        return None

    def attach(self, agent: BaseAlgorithm) -> None:
        """
        Called when the agent's networks have been built, also when a saved model is loaded.

        :param agent: the agent; its environment may be missing
        :raises ValueError: if the intervention cannot work with this agent, or already works for another
        """
        if getattr(self, "agent", agent) is not agent:
            raise ValueError(
                f"interventions: this {type(self).__name__} already works for another agent; make a new one for each agent"
            )
        self.agent = agent

    def check_agent(self) -> None:
        """Raise ValueError if the agent's options, just set, do not go with the intervention; also when ``learn()`` begins."""

    def on_learn_start(self, reset: bool) -> None:
        """
        A call of ``learn()`` begins.

        :param reset: whether the environments were reset, which ends their current episodes
        :raises ValueError: if the intervention cannot work with the environment
        """

    def on_phase_start(self, phase: Phase) -> None:
        """
        A phase other than the first one starts. The replay buffer is empty. On-policy agents call this right after
        :meth:`on_phase_end`, before they learn from the rollout in which the phase started.

        :param phase: the phase that starts
        """

    def on_phase_end(self, phase: Phase) -> None:
        """
        A phase has ended. The replay buffer still holds its transitions. On-policy agents call this when the rollout that
        contains the boundary is full, before they learn from it. If it raises an error or is interrupted, the next call of
        ``learn()`` begins with it again.

        :param phase: the phase that has ended
        """

    def on_task(self, task: str) -> None:
        """
        The agent is about to act on a task: an evaluation calls this for every task that it plays, and with the current
        phase's task when it has played them. Task-aware methods switch here. The start of a
        phase is announced by :meth:`on_phase_start`.

        :param task: name of the task
        """

    def on_transition(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """
        One transition per environment has just been added to the replay buffer. On-policy agents call this for all steps of a
        rollout when it is full, in order with :meth:`on_phase_end` and :meth:`on_phase_start`.

        :param rewards: as returned by the environment, shape (n_envs,)
        :param dones: shape (n_envs,)
        :param infos: one dictionary per environment
        """

    def replay_source(self, gradient_step: int) -> ReplayBuffer | None:
        """
        Where a gradient step takes its batch from.

        :param gradient_step: number of the step in the agent's life, from 1
        :return: a buffer, or None for the agent's own
        """
        return None

    def on_batch(self, data: ReplayBufferSamples) -> None:
        """
        A gradient step of an off-policy agent begins.

        :param data: its batch
        """

    def warmup_actions(self, observations: np.ndarray | dict[str, np.ndarray]) -> np.ndarray | None:
        """
        Actions for the warm-up of a phase other than the first, in which an off-policy agent acts uniformly at random.

        :param observations: one per environment, normalized if the agent's are
        :return: actions within the bounds of the action space, shape (n_envs, ...); None for random ones
        """
        return None

    def needs_autograd(self) -> bool:
        """
        Whether gradients must come from autograd at present, because the intervention observes the forward and backward
        passes of training. Asked at the start of every ``train()``.

        :return: False
        """
        return False

    def has_penalty(self) -> bool:
        """
        Whether :meth:`penalty` can add a term at present. Gradients by hand do not support such terms, so return False if the
        weight of yours is 0, and training is as fast as without it. Asked at the start of every ``train()``.

        :return: whether the intervention has a :meth:`penalty` of its own
        """
        return self.overrides("penalty")

    def penalty(self, network: Network) -> th.Tensor | None:
        """
        A term to add to a loss.

        :param network: "actor" or "critic"
        :return: a tensor without dimensions, or None for no term
        """
        return None

    def before_step(self, network: Network) -> None:
        """
        Gradients have been computed, but the optimizer has not stepped yet.

        :param network: the network whose optimizer is about to step
        """

    def masked_step(self, network: Network) -> MaskedStep | None:
        """
        How the optimizer's step is scaled.

        :param network: the network whose optimizer is about to step
        :return: masks of its parameters, or None for the whole step
        """
        return None

    def after_step(self, network: Network) -> None:
        """
        The optimizer has stepped.

        :param network: the network whose optimizer has stepped
        """

    def after_train(self) -> None:
        """All gradient steps of one call of ``train()`` have been made."""

    def extra_epochs(self) -> int:
        """
        Epochs that an on-policy agent trains beyond its ``n_epochs`` on the rollout at hand.

        :return: number of epochs
        """
        return 0

    def before_renewal(self) -> None:
        """Another intervention is about to renew neurons of the actor; with ``holds_networks``, of a critic as well."""

    def after_renewal(self, renewed: Sequence[tuple[NeuronLayer, th.Tensor]]) -> None:
        """
        Another intervention has renewed neurons of the actor; with ``holds_networks``, of a critic as well.

        :param renewed: pairs of a layer and the indices of its renewed neurons
        """

    def after_redraw(self, parameters: Sequence[nn.Parameter]) -> None:
        """
        Networks have been drawn anew as a whole, by the agent (``reset_critics``) or by another intervention.

        :param parameters: all of theirs
        """

    @contextmanager
    def all_parameters(self) -> Iterator[None]:
        """
        The agent's parameters are read or replaced as a whole inside the block, by ``save()``, ``get_parameters()`` and
        ``set_parameters()``. An intervention that has put some aside puts them back for that time.
        """
        yield

    def state_dict(self) -> dict[str, Any]:
        """
        State that is saved with the model.

        :return: tensors, numbers, strings, lists and dictionaries of those only
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Restore what :meth:`state_dict` returned. Called after :meth:`attach`.

        :param state: the saved state
        """

    def on_load(self) -> None:
        """
        Parameters have been loaded, from a file or by ``set_parameters()``, and this intervention has its state if the file
        contains it. :meth:`attach` was called before that, with the networks as initialized. Anything to be taken from the
        loaded network, such as an anchor, is taken here.
        """

    def memory_state(self) -> Any:
        """
        State that is too large for the model's file; it is saved with the replay buffer.

        :return: anything that pickles, or None
        """
        return None

    def load_memory_state(self, state: Any) -> None:
        """
        Restore what :meth:`memory_state` returned.

        :param state: the saved state, or None if the file has none
        :raises ValueError: if it does not fit the agent
        """

    def record(self, name: str, value: float) -> None:
        """
        Write a value to the agent's logger, which exists once the agent has begun to learn.

        :param name: name of the record
        :param value: what to record
        """
        if hasattr(self.agent, "_logger"):
            self.agent.logger.record(name, value)

    def overrides(self, hook: str) -> bool:
        """
        :param hook: name of a method of :class:`Intervention`
        :return: whether this intervention overrides it
        """
        return getattr(getattr(self, hook), "__func__", None) is not getattr(Intervention, hook)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the options only: the public attributes apart from the agent."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_") and name != "agent"}


class OffPolicyIntervention(Intervention):
    """An intervention that works on the replay buffer of an off-policy agent."""

    agent: OffPolicyAlgorithm

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        if not isinstance(agent, OffPolicyAlgorithm):
            raise ValueError(
                f"interventions: {type(self).__name__} needs a replay buffer, which {type(agent).__name__} does not have"
            )
        super().attach(agent)
