"""Auxiliary network continual learning (ANCL): EWC, and a second pull towards a copy that learns the new task freely."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Literal

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from typing_extensions import override

from sb3_nbsp.checks import check_range, whole
from sb3_nbsp.interventions.base import NETWORKS, Network, Phase
from sb3_nbsp.interventions.container import Interventions
from sb3_nbsp.interventions.ewc import DECAY, EWC, fisher_of, learning_parameters
from sb3_nbsp.interventions.observations import as_seen, phase_transitions
from sb3_nbsp.interventions.own_seeds import own_seed
from sb3_nbsp.interventions.quadratic_pull import Importance, Pull, Tensors
from sb3_nbsp.messages import warn
from sb3_nbsp.neurons.module_kinds import state_beside_parameters
from sb3_nbsp.random_states import drawing_from


class ANCL(EWC):
    r"""
    In every phase but the first, copies of actor and critics, the auxiliary networks, learn the new task without any penalty,
    from the same minibatches. The acting networks are pulled to where earlier tasks left them, and towards the auxiliary ones:

    .. math:: L = L_{SAC} + \lambda \sum_i F_i (\theta_i - \theta^*_i)^2
        + \lambda_a \sum_i F^{aux}_i (\theta_i - \theta^{aux}_i)^2

    with F and θ* as in :class:`EWC`, and :math:`F^{aux}` the Fisher information of the auxiliary networks in states of the new
    task. They are made at the first gradient step of a phase, with new optimizers, and are discarded at its end.

    Paper: Achieving a Better Stability-Plasticity Trade-off via Auxiliary Networks in Continual Learning (Kim et al., 2023,
    which has λ/2). There, the copy is trained before the network, which would take twice the environment steps. Here both
    learn at the same time, from the experience of the acting network.

    :param ewc_coef: see :class:`EWC`
    :param ewc_critic_coef: see :class:`EWC`
    :param ancl_coef: :math:`\lambda_a` of the actor
    :param ancl_critic_coef: :math:`\lambda_a` of the critics. If both are 0, there are no auxiliary networks
    :param aux_fisher_interval: gradient steps after which :math:`F^{aux}` is computed again
    :param aux_fisher_states: number of states to compute it in, drawn from all of the phase's transitions in the replay buffer
    :param accumulate: see :class:`EWC`
    :param ewc_decay: see :class:`EWC`
    :param fisher_states: see :class:`EWC`
    :param fisher_window: see :class:`EWC`
    :raises ValueError: if an option is out of its range
    """

    capturable: ClassVar[bool] = False
    waits_for_phase_end = True

    def __init__(
        self,
        ewc_coef: float = 100.0,
        ewc_critic_coef: float = 0.0,
        ancl_coef: float = 1.0,
        ancl_critic_coef: float = 0.0,
        aux_fisher_interval: int = 5000,
        aux_fisher_states: int = 640,
        accumulate: Literal["sum", "online", "separate"] = "sum",
        ewc_decay: float = DECAY,
        fisher_states: int = 2560,
        fisher_window: int = 10_000,
    ) -> None:
        super().__init__(ewc_coef, ewc_critic_coef, accumulate, ewc_decay, fisher_states, fisher_window)
        check_range("ancl_coef", ancl_coef, 0)
        check_range("ancl_critic_coef", ancl_critic_coef, 0)
        self.ancl_coef = ancl_coef
        self.ancl_critic_coef = ancl_critic_coef
        self.aux_fisher_interval = whole("aux_fisher_interval", aux_fisher_interval, 1)
        self.aux_fisher_states = whole("aux_fisher_states", aux_fisher_states, 1)

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        self._aux_pulls: dict[Network, Pull] = {}
        self._auxiliary: Auxiliary | None = None
        super().attach(agent)

    @property
    @override
    def pulls_actor(self) -> bool:
        return super().pulls_actor or self.ancl_coef > 0 or self.ancl_critic_coef > 0  # which needs a copy of the actor, too

    @property
    def auxiliary(self) -> Auxiliary | None:
        """The auxiliary networks of the phase, once it has made a gradient step."""
        return self._auxiliary

    @override
    def on_learn_start(self, reset: bool) -> None:
        super().on_learn_start(reset)
        agent: Any = self.agent
        is_learning = not agent._is_warming_up() and agent.n_finished_phases == agent.phase.index
        if self._is_active() and self._auxiliary is None and is_learning:
            warn(
                "ANCL does not have the auxiliary networks of the phase under way, which the file did not hold: they begin "
                "again as copies of the present ones"
            )

    @override
    def on_phase_end(self, phase: Phase) -> None:
        super().on_phase_end(phase)
        self._auxiliary, self._aux_pulls = None, {}

    @override
    def on_batch(self, data: ReplayBufferSamples) -> None:
        if not self._is_active():
            return
        if self._auxiliary is None:
            self._auxiliary = Auxiliary(self.agent)
        pulling = {network for network in NETWORKS if self._aux_coef(network) > 0}
        if self._auxiliary.n_steps % self.aux_fisher_interval == 0 or pulling - self._auxiliary.fisher.keys():
            self._measure(self._auxiliary)
        self._auxiliary.step(self.agent, data)

    @override
    def before_step(self, network: Network) -> None:
        super().before_step(network)
        if network in self._aux_pulls:
            self._aux_pulls[network].add_gradients()

    @override
    def after_train(self) -> None:
        if self._auxiliary is not None:
            self._auxiliary.after_train()

    @override
    def on_transition(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        super().on_transition(rewards, dones, infos)
        if dones.any() and self._auxiliary is not None:
            for network, pull in self._aux_pulls.items():
                self.record(f"ancl/penalty_{network}", pull.value())
            for name, value in self._auxiliary.losses.items():
                self.record(f"ancl/auxiliary_{name}", value.mean().item())

    @override
    def state_dict(self) -> dict[str, Any]:
        auxiliary = None if self._auxiliary is None else self._auxiliary.state_dict()
        return {**super().state_dict(), "auxiliary": auxiliary}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._auxiliary = None
        if state["auxiliary"] is not None and self._has_coef():
            self._auxiliary = Auxiliary(self.agent)
            self._auxiliary.load_state_dict(state["auxiliary"])
        self._prepare_aux_pulls()

    def _has_coef(self) -> bool:
        return self.ancl_coef > 0 or self.ancl_critic_coef > 0

    def _is_active(self) -> bool:
        return self._has_coef() and self.agent.phase.index > 0  # type: ignore[attr-defined]

    def _aux_coef(self, network: Network) -> float:
        return self.ancl_coef if network == "actor" else self.ancl_critic_coef

    def _measure(self, auxiliary: Auxiliary) -> None:
        """Compute the Fisher information of the auxiliary networks."""
        seed = own_seed(self.agent, self.agent._n_updates, purpose=411)
        found = phase_transitions(self.agent, self.aux_fisher_states, seed)
        states = as_seen(self.agent, found["observations"]), th.as_tensor(found["actions"], device=self.agent.device)
        networks = [network for network in NETWORKS if self._aux_coef(network) > 0]
        auxiliary.fisher = {network: fisher_of(auxiliary.agent, network, *states) for network in networks}
        self._prepare_aux_pulls()

    def _prepare_aux_pulls(self) -> None:
        self._aux_pulls = {}
        for network, fisher in self._auxiliary.fisher.items() if self._auxiliary is not None else ():
            # The parameters themselves, which go on to move
            anchor = {name: each.detach() for name, each in learning_parameters(self._auxiliary.agent, network).items()}  # type: ignore[union-attr]
            self._aux_pulls[network] = self._pull(network, [Importance(fisher, anchor)], self._aux_coef(network))


class Auxiliary:
    """
    An agent that shares everything with another one but its networks, its entropy coefficient and its interventions, of
    which it has none.

    :param agent: the agent; its networks are copied
    """

    def __init__(self, agent: Any) -> None:
        self.n_steps = 0
        self.fisher: dict[Network, Tensors] = {}
        self.losses: dict[str, th.Tensor] = {}  # of the last step
        self._gradients: Any = None
        self.agent: Any = object.__new__(type(agent))
        distribution = getattr(agent.actor, "action_dist", None)  # it may hang on the graph of the last gradient step
        policy = copy.deepcopy(agent.policy, {id(distribution): copy.copy(distribution)})
        self._own = {
            **{"policy": policy, **{name: getattr(policy, name) for name in ("actor", "critic", "critic_target")}},
            "batch_norm_stats": state_beside_parameters(policy.critic),
            "batch_norm_stats_target": state_beside_parameters(policy.critic_target),
            "all_interventions": Interventions(),
            "_captured": None,
        }
        if agent.ent_coef_optimizer is not None:
            learned = agent.log_ent_coef.detach().clone().requires_grad_()
            optimizer = copy.deepcopy(agent.ent_coef_optimizer, {id(agent.log_ent_coef): learned})
            self._own.update(log_ent_coef=learned, ent_coef_optimizer=optimizer)
        self._follow(agent)
        for optimizer in self.agent._optimizers():
            optimizer.state.clear()

    def step(self, agent: Any, data: ReplayBufferSamples) -> None:
        """
        One gradient step of SAC, whose noise comes from a generator of its own.

        :param agent: the agent, for the learning rates and whether the targets move
        :param data: the batch
        """
        self._follow(agent)
        for own, others in zip(self.agent._optimizers(), agent._optimizers(), strict=True):
            for group, other in zip(own.param_groups, others.param_groups, strict=True):
                group["lr"] = other["lr"]
        if self._gradients is None:
            self.agent.policy.set_training_mode(True)
            self._gradients = self.agent._make_gradients()
        seed = own_seed(agent, self.n_steps, purpose=410 + 1000 * agent.phase.index)
        with drawing_from(seed, agent.device):
            self.losses = self.agent._gradient_step(self._gradients, data, agent._moves_targets)
        self.n_steps += 1

    def after_train(self) -> None:
        """A call of ``train()`` is done: networks may be exchanged before the next one."""
        self._gradients = None

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimizers, Fisher information."""
        learned = self._own.get("log_ent_coef")
        return {
            "policy": self.agent.policy.state_dict(),
            "optimizers": [each.state_dict() for each in self.agent._optimizers()],
            "log_ent_coef": None if learned is None else learned.detach(),
            "fisher": self.fisher,
            "n_steps": self.n_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        :param state: what :meth:`state_dict` returned
        """
        state = copy.deepcopy(state)
        self.agent.policy.load_state_dict(state["policy"])
        for optimizer, saved in zip(self.agent._optimizers(), state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        if state["log_ent_coef"] is not None:
            self._own["log_ent_coef"].data.copy_(state["log_ent_coef"])
        self.fisher, self.n_steps = state["fisher"], state["n_steps"]

    def _follow(self, agent: Any) -> None:
        """Take over what is not its own, such as options that were set."""
        vars(self.agent).update({**vars(agent), **self._own})
