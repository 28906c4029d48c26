"""What an intervention is: hooks into an agent's training that do nothing unless a method overrides them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_nbsp.fast.masked_step import take_masked_step
from sb3_nbsp.messages import warn
from sb3_nbsp.neurons.masks import MaskedStep

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from sb3_nbsp.neurons import NeuronLayer

Network = Literal["actor", "critic"]
NETWORKS: tuple[Network, ...] = ("actor", "critic")
AnyIntervention = TypeVar("AnyIntervention", bound="Intervention")

# The hooks that every agent of this package calls, and those that an agent with a replay buffer or with rollouts calls
_COMMON_HOOKS = frozenset(
    {
        "on_learn_start",
        "on_phase_start",
        "on_phase_end",
        "on_transition",
        "has_penalty",
        "penalty",
        "before_step",
        "masked_step",
        "after_step",
        "after_train",
        "before_renewal",
        "after_renewal",
        "state_dict",
        "load_state_dict",
        "on_load",
    }
)
_PACKAGE = __name__.split(".")[0]
OFF_POLICY_HOOKS = _COMMON_HOOKS | {"replay_source", "memory_state", "load_memory_state"}
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

    The constructor must store its options only: it runs once, in the user's code, and
    the object is saved with the model. State belongs into :meth:`attach`, :meth:`state_dict`
    and :meth:`load_state_dict`.
    """

    agent: BaseAlgorithm
    # Within a phase, it does the same operations on the same tensors at every gradient step, and never waits for their
    # values: only then can a gradient step on a GPU be captured once and replayed
    capturable: ClassVar[bool] = False
    # It acts when another intervention renews neurons, and does nothing on its own
    waits_for_renewals: ClassVar[bool] = False

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

    def on_learn_start(self, reset: bool) -> None:
        """
        A call of ``learn()`` begins.

        :param reset: whether the environments were reset, which breaks off the episodes under way
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
        A phase has ended. The replay buffer still holds its transitions. On-policy agents call this when the rollout with the
        boundary in it is full, and have not learned from it.

        :param phase: the phase that has ended
        """

    def on_transition(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """
        One transition per environment has just been added to the replay buffer. On-policy agents call this for all steps of a
        rollout when it is full, in order with :meth:`on_phase_end` and :meth:`on_phase_start`.

        :param rewards: as the environment gave them, shape (n_envs,)
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

    def has_penalty(self) -> bool:
        """
        Whether :meth:`penalty` can add a term at present. Gradients by hand know no such terms: return False where the weight
        of yours is 0, and training is as fast as without it. Asked at the start of every ``train()``.

        :return: whether the intervention has a :meth:`penalty` of its own
        """
        return self.overrides("penalty")

    def penalty(self, network: Network) -> th.Tensor | None:
        """
        A term to add to a loss.

        :param network: "actor" or "critic"
        :return: a scalar, or None for no term
        """
        return None

    def before_step(self, network: Network) -> None:
        """
        Gradients are there, the optimizer has not yet stepped.

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
        """All gradient steps of one call of ``train()`` are done."""

    def extra_epochs(self) -> int:
        """
        Epochs that an on-policy agent trains beyond its ``n_epochs`` on the rollout at hand.

        :return: number of epochs
        """
        return 0

    def before_renewal(self) -> None:
        """Another intervention is about to renew neurons of the actor."""

    def after_renewal(self, renewed: Sequence[tuple[NeuronLayer, th.Tensor]]) -> None:
        """
        Another intervention has renewed neurons of the actor.

        :param renewed: pairs of a layer and the indices of its renewed neurons
        """

    def state_dict(self) -> dict[str, Any]:
        """
        State that travels with the saved model.

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
        Parameters have been loaded: the agent has those of a file, or what ``set_parameters()`` was given, and this
        intervention has its state if the file holds it. :meth:`attach` came before, with the networks still as they were
        initialized: what is to be taken from the loaded network, an anchor for instance, is taken here.
        """

    def memory_state(self) -> Any:
        """
        State too large for the model's file; it travels with the saved replay buffer.

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
        Write a value to the agent's logger, if there is one: an agent gets it when it begins to learn.

        :param name: name of the record
        :param value: what to record
        """
        if hasattr(self.agent, "_logger"):
            self.agent.logger.record(name, value)

    def overrides(self, hook: str) -> bool:
        """
        :param hook: name of a method of :class:`Intervention`
        :return: whether this intervention has a method of its own there
        """
        return getattr(getattr(self, hook), "__func__", None) is not getattr(Intervention, hook)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the options only: the public attributes apart from the agent."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_") and name != "agent"}


class OffPolicyIntervention(Intervention):
    """An intervention that works on the replay buffer of an off-policy agent."""

    agent: OffPolicyAlgorithm

    def attach(self, agent: BaseAlgorithm) -> None:
        """See :meth:`Intervention.attach`."""
        if not isinstance(agent, OffPolicyAlgorithm):
            raise ValueError(
                f"interventions: {type(self).__name__} needs a replay buffer, which {type(agent).__name__} has not"
            )
        super().attach(agent)


class Interventions:
    """
    The interventions of one agent, called in order; those after a step in reverse order, so that each
    undoes its own preparation.

    :param interventions: in the order in which they act
    :param switched_off: names of classes that the agent was told to do without: what a file holds of them is dropped,
        with a warning
    """

    def __init__(self, interventions: Sequence[Intervention] = (), switched_off: Iterable[str] = ()) -> None:
        self._all = list(interventions)
        self.switched_off = set(switched_off)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(type(each).__name__ for each in self._all)})"

    def __iter__(self) -> Iterator[Intervention]:
        return iter(self._all)

    def find(self, kind: type[AnyIntervention]) -> AnyIntervention:
        """
        :param kind: a class of interventions
        :return: the first intervention of that class
        :raises ValueError: if there is none
        """
        for intervention in self._all:
            if isinstance(intervention, kind):
                return intervention
        raise ValueError(f"The agent has no {kind.__name__}; it has {[type(each).__name__ for each in self._all]}")

    def attach(self, agent: BaseAlgorithm) -> None:
        """
        See :meth:`Intervention.attach`.

        :raises ValueError: if an intervention does not fit the agent, or overrides a hook that it never calls; if two classes
            have one name
        """
        _check_class_names(self._all)
        _seed_of(agent)  # now, so that all copies of the agent have it
        for intervention in self._all:
            try:
                intervention.attach(agent)
                _check_hooks(intervention, agent)
            except Exception:
                if getattr(intervention, "agent", None) is agent:
                    del intervention.agent  # so that it can be given to an agent that fits
                raise

    def on_learn_start(self, reset: bool) -> None:
        """See :meth:`Intervention.on_learn_start`."""
        for intervention in self._all:
            intervention.on_learn_start(reset)

    def on_phase_start(self, phase: Phase) -> None:
        """See :meth:`Intervention.on_phase_start`."""
        for intervention in self._all:
            intervention.on_phase_start(phase)

    def on_phase_end(self, phase: Phase) -> None:
        """See :meth:`Intervention.on_phase_end`."""
        for intervention in self._all:
            intervention.on_phase_end(phase)

    def on_transition(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """See :meth:`Intervention.on_transition`."""
        for intervention in self._all:
            intervention.on_transition(rewards, dones, infos)

    def replay_source(self, gradient_step: int) -> ReplayBuffer | None:
        """See :meth:`Intervention.replay_source`; the first intervention that names a buffer decides."""
        sources = (intervention.replay_source(gradient_step) for intervention in self._all)
        return next((source for source in sources if source is not None), None)

    def penalty(self, network: Network) -> th.Tensor | float:
        """See :meth:`Intervention.penalty`; the sum over the interventions."""
        asked = [each.penalty(network) for each in self._all if each.has_penalty()]
        penalties = [penalty for penalty in asked if penalty is not None]
        return th.stack(penalties).sum() if penalties else 0.0

    def have_penalty(self) -> bool:
        """Whether one of them may add a term to a loss: see :meth:`Intervention.has_penalty`."""
        return any(each.has_penalty() for each in self._all)

    @property
    def capturable(self) -> bool:
        """Whether all classes say so, see :attr:`Intervention.capturable`; a subclass has to say it again."""
        return all(vars(type(intervention)).get("capturable", False) for intervention in self._all)

    def step(self, optimizer: th.optim.Optimizer, networks: Sequence[Network]) -> None:
        """
        What an optimizer does, and the interventions make of it: see :meth:`Intervention.before_step`,
        :meth:`Intervention.masked_step` and :meth:`Intervention.after_step`.

        :param optimizer: has the gradients
        :param networks: the networks that it moves
        """
        for network in networks:
            for intervention in self._all:
                intervention.before_step(network)
        masked = [each.masked_step(network) for network in networks for each in self._all]
        take_masked_step(optimizer, [masks for masks in masked if masks is not None])
        for network in reversed(networks):
            for intervention in reversed(self._all):
                intervention.after_step(network)

    def after_train(self) -> None:
        """See :meth:`Intervention.after_train`."""
        for intervention in self._all:
            intervention.after_train()

    def extra_epochs(self) -> int:
        """See :meth:`Intervention.extra_epochs`; the sum over the interventions."""
        return sum(intervention.extra_epochs() for intervention in self._all)

    def before_renewal(self) -> None:
        """See :meth:`Intervention.before_renewal`."""
        for intervention in self._all:
            intervention.before_renewal()

    def after_renewal(self, renewed: Sequence[tuple[NeuronLayer, th.Tensor]]) -> None:
        """See :meth:`Intervention.after_renewal`."""
        for intervention in self._all:
            intervention.after_renewal(renewed)

    def state_dict(self) -> dict[str, Any]:
        """State of all interventions, by the names of their classes; a second one of a class has a number."""
        return {name: each.state_dict() for name, each in self._by_name().items()}

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> None:
        """
        Restore :meth:`state_dict`. Interventions that the file does not know start afresh.

        :param state: the saved state
        :param strict: look for state of interventions that the agent lacks
        :raises ValueError: if there is some, unless the agent was told to do without them
        """
        if strict:
            remedy = "load it as the class that saved it, or without them (interventions=[])"
            self._check_known(state, "The saved model", remedy)
        for name, intervention in self._by_name().items():
            if name in state:
                intervention.load_state_dict(state[name])

    def on_load(self) -> None:
        """See :meth:`Intervention.on_load`."""
        for intervention in self._all:
            intervention.on_load()

    def memory_state(self) -> dict[str, Any]:
        """What the interventions remember, named as in :meth:`state_dict`; without those that remember nothing."""
        states = {name: each.memory_state() for name, each in self._by_name().items()}
        return {name: state for name, state in states.items() if state is not None}

    def load_memory_state(self, state: dict[str, Any]) -> None:
        """
        Restore :meth:`memory_state`.

        :param state: the saved state; empty if the file comes from plain SB3
        :raises ValueError: see :meth:`load_state_dict`
        """
        self._check_known(state, "The saved replay buffer", "load it into an agent that has them")
        for name, intervention in self._by_name().items():
            if name not in state and intervention.memory_state() is not None:
                warn(f"The saved replay buffer holds no memory of {name}: its present one is dropped")
            intervention.load_memory_state(state.get(name))

    def _by_name(self) -> dict[str, Intervention]:
        named: dict[str, Intervention] = {}
        for each in self._all:
            kind = type(each).__name__
            number = sum(type(other).__name__ == kind for other in named.values()) + 1
            named[kind if number == 1 else f"{kind} {number}"] = each
        return named

    def _check_known(self, saved: Iterable[str], what: str, remedy: str) -> None:
        own = self._by_name()
        lacking = [name for name in saved if name not in own]
        unknown = [name for name in lacking if name.split()[0] not in self.switched_off]
        if unknown:
            raise ValueError(f"{what} has interventions {unknown} which this agent lacks; it has {list(own)}: {remedy}")
        if lacking:
            warn(f"{what} holds state of {', '.join(lacking)}, which is switched off: it is dropped")


def _check_class_names(interventions: Iterable[Intervention]) -> None:
    """Files know the state of an intervention by the name of its class."""
    known = {cls.__name__: cls for cls in _subclasses(Intervention) if cls.__module__.split(".")[0] == _PACKAGE}
    for cls in map(type, interventions):
        other = known.setdefault(cls.__name__, cls)
        if not issubclass(cls, other):
            raise ValueError(
                f"interventions: there are two classes {cls.__name__}, {cls.__module__}.{cls.__qualname__} and "
                f"{other.__module__}.{other.__qualname__}, whose states a file could not tell apart: rename one"
            )


def _subclasses(cls: type[Intervention]) -> Iterator[type[Intervention]]:
    for each in cls.__subclasses__():
        yield each
        yield from _subclasses(each)


def _check_hooks(intervention: Intervention, agent: BaseAlgorithm) -> None:
    never = [hook for hook in sorted(HOOKS - getattr(agent, "called_hooks", HOOKS)) if intervention.overrides(hook)]
    if never:
        kind = "on-policy" if never == ["extra_epochs"] else "off-policy"
        raise ValueError(
            f"interventions: {type(intervention).__name__} overrides {', '.join(f'{hook}()' for hook in never)}, which "
            f"{type(agent).__name__} never calls; use it with an {kind} agent"
        )


def own_seed(agent: BaseAlgorithm, phase: Phase | int, purpose: int) -> int:
    """
    Seed for randomness of an intervention's own, so that switching it on leaves the agent's random streams alone.

    :param agent: its seed is used; an agent without one draws a seed of its own, once in its life
    :param phase: the phase that the randomness is for, or another number that tells occasions apart
    :param purpose: a number of the caller's own
    :return: a seed
    """
    occasion = phase.index if isinstance(phase, Phase) else phase
    return int(np.random.SeedSequence([_seed_of(agent), occasion, purpose]).generate_state(1)[0])


def _seed_of(agent: BaseAlgorithm) -> int:
    if agent.seed is not None:
        return agent.seed
    # From the operating system, as the global random streams are not ours. It travels with the saved agent
    drawn: int = vars(agent).setdefault("_drawn_seed", int(np.random.SeedSequence().generate_state(1)[0]))
    return drawn


def check_interventions(interventions: Any) -> None:
    """
    :param interventions: what a user gave as ``interventions``
    :raises ValueError: if it is no list of interventions
    """
    if not isinstance(interventions, Sequence) or not all(isinstance(each, Intervention) for each in interventions):
        raise ValueError(f"interventions must be a list of Intervention objects, not {interventions!r}")


def check_option(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """
    :param name: name of the option
    :param value: its value
    :param allowed: the values that it may have
    :raises ValueError: if it has another
    """
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")


def check_range(name: str, value: float, low: float, high: float = np.inf, low_open: bool = False) -> None:
    """
    :param name: name of the option
    :param value: its value
    :param low: smallest allowed value
    :param high: largest allowed value
    :param low_open: exclude the smallest value itself
    :raises ValueError: if the value is outside the range, or no number
    """
    interval = f"{'(' if low_open else '['}{low:g}, {high:g}{')' if np.isinf(high) else ']'}"
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not is_number or not (low < value if low_open else low <= value) or not value <= high:
        raise ValueError(f"{name} must be a number in {interval}, not {value!r}")
