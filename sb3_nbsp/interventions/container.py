"""The interventions of one agent, as one."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import nn

from sb3_nbsp.fast.masked_step import take_masked_step
from sb3_nbsp.interventions.base import HOOKS, AnyIntervention, Intervention, Network, Phase
from sb3_nbsp.interventions.own_seeds import agent_seed
from sb3_nbsp.messages import did_you_mean, warn

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from sb3_nbsp.neurons import NeuronLayer

_PACKAGE = __name__.split(".")[0]


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
        self._n_told = 0  # how many have been told of the end of a phase, if it was interrupted

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
        agent_seed(agent)  # now, so that all copies of the agent have it
        for intervention in self._all:
            try:
                intervention.attach(agent)
                _check_hooks(intervention, agent)
                _warn_of_misspelt_hooks(intervention)
            except Exception:
                if getattr(intervention, "agent", None) is agent:
                    del intervention.agent  # so that it can be given to an agent that fits
                raise

    def check_agent(self) -> None:
        """See :meth:`Intervention.check_agent`."""
        for intervention in self._all:
            intervention.check_agent()

    def on_learn_start(self, reset: bool) -> None:
        """See :meth:`Intervention.on_learn_start`."""
        for intervention in self._all:
            intervention.on_learn_start(reset)

    def on_phase_start(self, phase: Phase) -> None:
        """See :meth:`Intervention.on_phase_start`."""
        for intervention in self._all:
            intervention.on_phase_start(phase)

    def on_phase_end(self, phase: Phase) -> None:
        """
        See :meth:`Intervention.on_phase_end`, and ``changes_at_phase_end`` for the order. After an error in it, the next call
        tells those that were not yet told.
        """
        in_order = sorted(self._all, key=lambda each: not each.changes_at_phase_end)
        for intervention in in_order[self._n_told :]:
            intervention.on_phase_end(phase)
            self._n_told += 1
        self._n_told = 0

    def on_task(self, task: str) -> None:
        """See :meth:`Intervention.on_task`."""
        for intervention in self._all:
            intervention.on_task(task)

    def on_transition(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """See :meth:`Intervention.on_transition`."""
        for intervention in self._all:
            intervention.on_transition(rewards, dones, infos)

    def replay_source(self, gradient_step: int) -> ReplayBuffer | None:
        """See :meth:`Intervention.replay_source`; the first intervention that names a buffer decides."""
        sources = (intervention.replay_source(gradient_step) for intervention in self._all)
        return next((source for source in sources if source is not None), None)

    def on_batch(self, data: ReplayBufferSamples) -> None:
        """See :meth:`Intervention.on_batch`."""
        for intervention in self._all:
            intervention.on_batch(data)

    def warmup_actions(self, observations: np.ndarray | dict[str, np.ndarray]) -> np.ndarray | None:
        """See :meth:`Intervention.warmup_actions`; the first intervention that acts decides."""
        found = (intervention.warmup_actions(observations) for intervention in self._all)
        return next((actions for actions in found if actions is not None), None)

    def penalty(self, network: Network) -> th.Tensor | float:
        """See :meth:`Intervention.penalty`; the sum over the interventions."""
        penalties = [penalty for each in self._all if each.has_penalty() and (penalty := _penalty(each, network)) is not None]
        return th.stack(penalties).sum() if penalties else 0.0

    def have_penalty(self) -> bool:
        """Whether one of them may add a term to a loss: see :meth:`Intervention.has_penalty`."""
        return any(each.has_penalty() for each in self._all)

    def need_autograd(self) -> bool:
        """Whether gradients by hand would miss something: see :meth:`Intervention.has_penalty` and ``needs_autograd``."""
        return any(each.has_penalty() or each.needs_autograd() for each in self._all)

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
        self.take_masked_step(optimizer, networks)
        for network in reversed(networks):
            for intervention in reversed(self._all):
                intervention.after_step(network)

    def take_masked_step(self, optimizer: th.optim.Optimizer, networks: Sequence[Network]) -> None:
        """
        Take only the optimizer's step, scaled as in :meth:`Intervention.masked_step`. The optimizer need not be the agent's:
        masks also hold for an intervention that trains a network with an optimizer of its own.

        :param optimizer: an optimizer whose parameters have their gradients
        :param networks: the networks whose parameters it updates
        """
        masked = [each.masked_step(network) for network in networks for each in self._all]
        take_masked_step(optimizer, [masks for masks in masked if masks is not None])

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

    def after_redraw(self, parameters: Sequence[nn.Parameter]) -> None:
        """See :meth:`Intervention.after_redraw`."""
        for intervention in self._all:
            intervention.after_redraw(parameters)

    @contextmanager
    def all_parameters(self) -> Iterator[None]:
        """See :meth:`Intervention.all_parameters`."""
        with ExitStack() as stack:
            for intervention in self._all:
                stack.enter_context(intervention.all_parameters())
            yield

    def state_dict(self) -> dict[str, Any]:
        """State of all interventions, by the names of their classes; a second one of a class has a number."""
        return {name: each.state_dict() for name, each in self._by_name().items()}

    def checked_state_dict(self) -> dict[str, Any]:
        """
        :return: :meth:`state_dict`
        :raises ValueError: if a file that contains it could not be read again
        """
        states = self.state_dict()
        for name, state in states.items():
            if unreadable := _unreadable(state):
                raise ValueError(
                    f"interventions: state_dict() of {name} holds {unreadable}, which cannot be read from a model's file: "
                    "use tensors, numbers of Python, strings, lists and dictionaries of these only"
                )
        return states

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> None:
        """
        Restore :meth:`state_dict`. Interventions that are not in the file start without state.

        :param state: the saved state
        :param strict: look for state of interventions that the agent lacks
        :raises ValueError: if there is some, unless the agent was told to do without them
        """
        if strict:
            remedy = "load it as the class that saved it, or do without their state: load(path, interventions=[])"
            self._check_known(state, "The saved model", remedy)
        for name, intervention in self._by_name().items():
            if name in state:
                intervention.load_state_dict(state[name])

    def on_load(self) -> None:
        """See :meth:`Intervention.on_load`."""
        for intervention in self._all:
            intervention.on_load()

    def memory_state(self) -> dict[str, Any]:
        """The interventions' memories, named as in :meth:`state_dict`, without empty ones."""
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


def _warn_of_misspelt_hooks(intervention: Intervention) -> None:
    """A method that is nearly a hook, which the intervention does not have, would never be called."""
    hooks = {name for name in HOOKS | {"attach"} if not intervention.overrides(name)}
    for name in set(dir(intervention)) - set(dir(Intervention)):
        if not name.startswith("_") and callable(getattr(type(intervention), name, None)):
            if hint := did_you_mean(name, hooks, similarity=0.8):
                warn(f"{type(intervention).__name__}.{name}() is no hook, and no agent calls it{hint}")


def _penalty(intervention: Intervention, network: Network) -> th.Tensor | None:
    penalty = intervention.penalty(network)
    if penalty is not None and (not isinstance(penalty, th.Tensor) or penalty.dim() > 0):
        found = f"one of shape {tuple(penalty.shape)}" if isinstance(penalty, th.Tensor) else repr(penalty)
        raise ValueError(
            f"interventions: penalty() of {type(intervention).__name__} must return a tensor without dimensions, or None, "
            f"not {found}"
        )
    return penalty


def _unreadable(state: dict[str, Any]) -> str:
    """What is in a state that ``torch.load(weights_only=True)`` refuses; empty if there is nothing."""
    file = io.BytesIO()
    try:
        th.save(state, file)
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        return f"what cannot be pickled ({error})"
    file.seek(0)
    return ", ".join(sorted(th.serialization.get_unsafe_globals_in_checkpoint(file)))


def check_interventions(interventions: Any) -> None:
    """
    :param interventions: what a user gave as ``interventions``
    :raises ValueError: if it is no list of interventions
    """
    if not isinstance(interventions, Sequence) or not all(isinstance(each, Intervention) for each in interventions):
        raise ValueError(f"interventions must be a list of Intervention objects, not {interventions!r}")
