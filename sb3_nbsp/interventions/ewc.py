"""Elastic weight consolidation (EWC): what mattered for earlier tasks is pulled back to where it was."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn
from typing_extensions import override

from sb3_nbsp.checks import check_option, check_range, whole
from sb3_nbsp.interventions.base import NETWORKS, Lacking, Network, OffPolicyIntervention, Phase
from sb3_nbsp.interventions.fisher import diagonal_fisher, policy_outputs
from sb3_nbsp.interventions.networks import actor_of, optimized_parameters, plain_policy, taken_q_values
from sb3_nbsp.interventions.observations import as_seen, phase_transitions, warn_if_observations_move
from sb3_nbsp.interventions.own_seeds import own_seed
from sb3_nbsp.interventions.quadratic_pull import Importance, Pull, Tensors
from sb3_nbsp.interventions.trial_pass import evaluating
from sb3_nbsp.messages import warn

# The smallest importance of a parameter of the actor, as in Continual World (there of each state, here of their mean)
ACTOR_FLOOR = 1e-5
DECAY = 0.9  # default of ewc_decay


class EWC(OffPolicyIntervention):
    r"""
    At the end of a phase, compute the diagonal Fisher information F of each network in states of that phase: how much the
    policy, or the Q-values, depend on each parameter. From then on, pull each parameter back to its value θ* at that time:

    .. math:: L = L_{SAC} + \lambda \sum_i F_i (\theta_i - \theta^*_i)^2

    The gradient of this term, :math:`2 \lambda F (\theta - \theta^*)`, is added to that of the losses, so that these can
    still be computed by hand. Target critics and the entropy coefficient are not regularized.

    Papers: Overcoming catastrophic forgetting in neural networks (Kirkpatrick et al., 2017, equation 3, with λ/2 instead
    of λ); Continual World (Wołczyk et al., 2021), whose form and defaults these are: actor only, sums of F.

    :param ewc_coef: λ of the actor; 0 for no pull
    :param ewc_critic_coef: λ of the critics, whose F is larger by orders of magnitude; 0 for no pull
    :param accumulate: how several phases are combined. "sum": F ← F + F_new with the latest θ*, so that a task that comes
        back counts twice; "online": F ← γF + F_new; "separate": each task has its own F and θ*, and a task that comes back
        replaces them
    :param ewc_decay: γ of "online", in [0, 1]; an error with another ``accumulate``
    :param fisher_states: number of states to compute F in
    :param fisher_window: these states are drawn from this many of the last transitions of a phase
    :raises ValueError: if an option is out of its range
    """

    capturable: ClassVar[bool] = True
    holds_networks: ClassVar[bool] = True
    waits_for_phase_end = True

    def __init__(
        self,
        ewc_coef: float = 100.0,
        ewc_critic_coef: float = 0.0,
        accumulate: Literal["sum", "online", "separate"] = "sum",
        ewc_decay: float = DECAY,
        fisher_states: int = 2560,
        fisher_window: int = 10_000,
    ) -> None:
        check_range("ewc_coef", ewc_coef, 0)
        check_range("ewc_critic_coef", ewc_critic_coef, 0)
        check_option("accumulate", accumulate, ("sum", "online", "separate"))
        check_range("ewc_decay", ewc_decay, 0, 1)
        if ewc_decay != DECAY and accumulate != "online":
            raise ValueError(f"ewc_decay={ewc_decay} only has an effect with accumulate='online', not {accumulate!r}")
        self.ewc_coef = ewc_coef
        self.ewc_critic_coef = ewc_critic_coef
        self.accumulate = accumulate
        self.ewc_decay = ewc_decay
        self.fisher_states = whole("fisher_states", fisher_states, 1)
        self.fisher_window = whole("fisher_window", fisher_window, 1)
        if self.fisher_states > self.fisher_window:
            raise ValueError(
                f"fisher_states={self.fisher_states} different states cannot be drawn from fisher_window={self.fisher_window} "
                "transitions: lower the one or raise the other"
            )

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        super().attach(agent)
        actor_of(agent)  # complains of other policies
        for other in agent.all_interventions:  # type: ignore[attr-defined]
            if isinstance(other, EWC) and other is not self:
                names = f"{type(self).__name__} and {type(other).__name__}"
                raise ValueError(f"interventions: {names} would both pull at the same parameters: do without one of them")
        # By network and task; one for all tasks together unless they are "separate"
        self._known: dict[Network, dict[str, Importance]] = {network: {} for network in NETWORKS}
        self._prepare_pulls()

    @property
    def importances(self) -> dict[Network, dict[str, Importance]]:
        """By network and task, what is known; with "sum" and "online" it is one for all tasks, under the name ""."""
        return self._known

    @property
    def unknown(self) -> list[Network]:
        """Networks with a λ above 0 of which nothing is known yet."""
        return [network for network in NETWORKS if self._coef(network) > 0 and not self._known[network]]

    @property
    @override
    def pulls_actor(self) -> bool:
        return self.ewc_coef > 0

    @property
    @override
    def lacks(self) -> Lacking | None:
        return "knowledge" if self.unknown else None

    @override
    def check_agent(self) -> None:
        if self._coef("critic") > 0 and getattr(self.agent, "reset_critics", False):
            raise ValueError(
                f"ewc_critic_coef={self.ewc_critic_coef:g} pulls the critics back to what reset_critics=True draws anew: use "
                "one of the two"
            )

    @override
    def on_learn_start(self, reset: bool) -> None:
        warn_if_observations_move(self)
        self._prepare_pulls()  # networks may have been exchanged since

    def on_phase_end(self, phase: Phase) -> None:
        """Compute F in states of the phase that is over, and take the parameters as they are for θ*."""
        networks = [network for network in NETWORKS if self._coef(network) > 0]
        if self.agent.phase_steps == 0 or not networks:  # type: ignore[attr-defined]
            return
        seed = own_seed(self.agent, phase, purpose=400)
        rows = phase_transitions(self.agent, self.fisher_states, seed, self.fisher_window)
        states = as_seen(self.agent, rows["observations"]), th.as_tensor(rows["actions"], device=self.agent.device)
        found = {network: self._importance(network, states) for network in networks}
        for network, new in found.items():  # only when all are known: after an interruption, the phase ends once more
            self._remember(network, phase.task, new)
            self.record(f"ewc/fisher_{network}", _mean(new.fisher))
        self._prepare_pulls()

    @override
    def on_transition(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        if dones.any():  # SB3 writes its records at the end of episodes
            for network, pull in self._pulls.items():
                self.record(f"ewc/penalty_{network}", pull.value())

    @override
    def before_step(self, network: Network) -> None:
        if network in self._pulls:
            self._pulls[network].add_gradients()

    @override
    def state_dict(self) -> dict[str, Any]:
        return {network: {task: vars(each) for task, each in known.items()} for network, known in self._known.items()}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._known = {network: {task: Importance(**each) for task, each in state[network].items()} for network in NETWORKS}
        is_sum = self.agent.n_finished_phases > 1 and any(known.keys() == {""} for known in self._known.values())  # type: ignore[attr-defined]
        if self.accumulate == "separate" and is_sum:
            warn(
                "accumulate='separate': the saved importances are of several phases together. They stay as they are, and a "
                "task that comes back does not replace its share of them"
            )
        self._prepare_pulls()

    def _coef(self, network: Network) -> float:
        return self.ewc_coef if network == "actor" else self.ewc_critic_coef

    def _importance(self, network: Network, states: tuple[PyTorchObs, th.Tensor]) -> Importance:
        learning = learning_parameters(self.agent, network)
        anchor = {name: parameter.detach().clone() for name, parameter in learning.items()}
        return Importance(fisher_of(self.agent, network, *states), anchor)

    def _remember(self, network: Network, task: str, new: Importance) -> None:
        known = self._known[network]
        if self.accumulate == "separate":
            known[task] = new
            return
        decay = self.ewc_decay if self.accumulate == "online" else 1.0
        for old in known.values():
            for name, fisher in old.fisher.items():
                if name in new.fisher:
                    new.fisher[name] = new.fisher[name] + decay * fisher
        self._known[network] = {"": new}

    def _prepare_pulls(self) -> None:
        self._pulls: dict[Network, Pull] = {}
        for network, known in self._known.items():
            if known and self._coef(network) > 0:
                self._pulls[network] = self._pull(network, list(known.values()), self._coef(network))

    def _pull(self, network: Network, importances: list[Importance], coef: float) -> Pull:
        # Where the actor's loss has a factor before its expectation, so has the penalty
        scale = getattr(self.agent, "actor_loss_scale", 1.0) if network == "actor" else 1.0
        return Pull(learning_parameters(self.agent, network), importances, scale * coef)


def learning_parameters(agent: BaseAlgorithm, network: Network) -> dict[str, nn.Parameter]:
    """
    :param agent: an agent with an actor and a critic as SAC's
    :param network: "actor" or "critic"
    :return: what the network's optimizer moves and is not frozen, by name
    """
    names = {parameter: name for name, parameter in plain_policy(agent).named_parameters()}
    return {names[each]: each for each in optimized_parameters(agent, network) if each.requires_grad}


def fisher_of(agent: BaseAlgorithm, network: Network, observations: PyTorchObs, actions: th.Tensor) -> Tensors:
    r"""
    :param agent: an agent with an actor and a critic as SAC's
    :param network: "actor" or "critic"
    :param observations: as the policy sees them, shape (states, ...)
    :param actions: as a replay buffer holds them, shape (states, actions)
    :return: by name of a parameter that the network's optimizer moves: the policy's Fisher information, at least
        :data:`ACTOR_FLOOR`, or the sum of :math:`E (\partial Q_j / \partial \theta)^2` over the critics
    """

    def outputs(observations: PyTorchObs, actions: th.Tensor) -> list[tuple[th.Tensor, th.Tensor]]:
        if network == "actor":
            return policy_outputs(distribution(observations))
        q_values = taken_q_values(agent, observations, actions)
        return [(q_values, th.ones_like(q_values))]

    policy, parameters, distribution = plain_policy(agent), learning_parameters(agent, network), actor_of(agent).distribution
    with evaluating(policy), th.autocast(agent.device.type, enabled=False):
        found = diagonal_fisher(getattr(policy, network), list(parameters.values()), outputs, observations, actions)
    if network == "actor":
        found = [each.clamp_min(ACTOR_FLOOR) for each in found]
    return dict(zip(parameters, found, strict=True))


def _mean(tensors: Tensors) -> float:
    """Over all entries."""
    return sum(each.sum().item() for each in tensors.values()) / sum(each.numel() for each in tensors.values())
