"""Plasticity injection: put a fresh head beside a network's own one, without changing what the network says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.sac.policies import SACPolicy
from torch import nn
from typing_extensions import override

from sb3_nbsp.checks import check_option, whole
from sb3_nbsp.interventions.clonex import ClonEx
from sb3_nbsp.interventions.fresh_networks import PhaseStartChange, refuse_holders, refuse_reset_critics
from sb3_nbsp.interventions.networks import plain_policy
from sb3_nbsp.interventions.own_seeds import own_seed
from sb3_nbsp.neurons.injection import InjectableHead
from sb3_nbsp.neurons.redraw import check_redrawable, redraw
from sb3_nbsp.random_states import drawing_from

# Attribute of the agent, saved with it: a file is loaded into networks that have been injected as often
COUNT = "_injections"


class PlasticityInjection(PhaseStartChange):
    r"""
    At the start of every phase but the first, or at given steps, freeze the head of a network and add a new head that
    learns, minus a frozen copy of the new head, :class:`~sb3_nbsp.neurons.injection.InjectedOutput`:

    .. math:: h_\theta(\phi(x)) + h_{\theta'_1}(\phi(x)) - h_{\theta'_2}(\phi(x)), \quad \theta'_2 = \theta'_1 \text{ at first}

    The network's output is unchanged at that moment, and so is the number of parameters that learn. The encoder φ keeps
    learning, with gradients through all heads. Target critics get the same heads. The paper does this once, for a Q
    network.

    Paper: Deep Reinforcement Learning with Plasticity Injection (Nikishin et al., 2023).

    :param injection_networks: "both", "critic" (the paper's) or "actor"
    :param head_layers: number of linear layers in the head, from the output: 2 are the last hidden layer and the output layer
    :param injection_steps: environment steps at which to inject, in ascending order; None for the starts of phases
    :param max_injections: maximum number of injections; None for no limit
    :raises ValueError: if an option is out of its range, or the networks are none of SAC's with separate outputs
    """

    waits_for_phase_end = True

    def __init__(
        self,
        injection_networks: Literal["both", "critic", "actor"] = "both",
        head_layers: int = 2,
        injection_steps: Sequence[int] | None = None,
        max_injections: int | None = None,
    ) -> None:
        check_option("injection_networks", injection_networks, ("both", "critic", "actor"))
        head_layers = whole("head_layers", head_layers, 1)
        if max_injections is not None:
            max_injections = whole("max_injections", max_injections, 1)
        if injection_steps is not None:
            if not np.ndim(injection_steps) or not len(injection_steps):
                raise ValueError(f"injection_steps must be a list of steps such as [100_000], not {injection_steps!r}")
            injection_steps = [whole("injection_steps", each, 1) for each in injection_steps]
            if injection_steps != sorted(set(injection_steps)):
                raise ValueError(f"injection_steps must be in ascending order, not {injection_steps}")
        self.injection_networks = injection_networks
        self.head_layers = head_layers
        self.injection_steps = injection_steps
        self.waits_for_phase_end = injection_steps is None
        self.max_injections = max_injections

    @property
    @override
    def needs_phases(self) -> bool:
        return self.injection_steps is None

    @property
    def n_injections(self) -> int:
        """How often it has injected."""
        return int(vars(self.agent).get(COUNT, 0))

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        super().attach(agent)
        if not isinstance(plain_policy(agent), SACPolicy):
            raise ValueError(
                f"interventions: PlasticityInjection needs the networks of SAC, not those of {type(agent).__name__}"
            )
        refuse_holders(self, agent)
        self._last_step = 0  # environment step up to which it has injected
        for other in agent.all_interventions:  # type: ignore[attr-defined]
            is_old_actor = isinstance(other, ClonEx) and other.best_return_exploration and self.injection_networks != "critic"
            if is_old_actor or (isinstance(other, PhaseStartChange) and other is not self):
                raise ValueError(
                    f"interventions: PlasticityInjection gives networks further heads, of which {type(other).__name__} knows "
                    f"nothing: do without {'best_return_exploration' if is_old_actor else 'one of them'}"
                )
        if getattr(agent, "use_sde", False):
            raise ValueError("use_sde: its noise reads the hidden layers of one head; PlasticityInjection makes several")
        self._check_depth()
        # A loaded agent has new networks, a copy has its own
        if self.n_injections > 0:
            for number in range(self._heads()[0][0].n_injections, self.n_injections):
                self._inject(number)

    @override
    def check_agent(self) -> None:
        if self.injection_networks != "actor":
            refuse_reset_critics(self.agent, "PlasticityInjection adds heads to the critics", "injection_networks='actor'")

    @override
    def change(self, phase: int) -> None:
        if self.injection_steps is None:
            self._inject_next()

    @override
    def after_train(self) -> None:
        super().after_train()
        now = self.agent.num_timesteps
        for step in self.injection_steps or ():
            if self._last_step < step <= now:
                self._inject_next()
        self._last_step = max(self._last_step, now)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "last_step": self._last_step}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._last_step = state.get("last_step", self.agent.num_timesteps)  # older files do not say

    def _inject_next(self) -> None:
        number = self.n_injections
        if self.max_injections is not None and number >= self.max_injections:
            return
        self._inject(number)
        vars(self.agent)[COUNT] = number + 1
        vars(self.agent)["_captured"] = None  # a captured step would go on with the old networks

    def _inject(self, number: int) -> None:
        agent: Any = self.agent
        with drawing_from(own_seed(agent, number, purpose=330), agent.device):
            for head, target, optimizer in self._heads():
                new = dict(head.inject(self._initialize))
                if target is not None:
                    target.follow(head)
                _replace(optimizer, new)

    def _initialize(self, module: nn.Module) -> None:
        agent: Any = self.agent
        redraw(module, agent._initialize)

    def _heads(self) -> list[tuple[InjectableHead, InjectableHead | None, th.optim.Optimizer]]:
        """Heads, those of their target networks, and the optimizers that move them. Networks that are not cut yet are cut."""
        policy: Any = plain_policy(self.agent)
        actor, n_hidden = policy.actor, self.head_layers - 1
        heads: list[tuple[InjectableHead, InjectableHead | None, th.optim.Optimizer]] = []
        if self.injection_networks != "critic":
            head = InjectableHead(actor.latent_pi, n_hidden, actor, _outputs(actor))
            heads.append((head, None, actor.optimizer))
        if self.injection_networks != "actor":
            for net, target in zip(policy.critic.q_networks, policy.critic_target.q_networks, strict=True):
                heads.append((InjectableHead(net, n_hidden), InjectableHead(target, n_hidden), policy.critic.optimizer))
        return heads

    def _check_depth(self) -> None:
        """Complain now, not at the first injection."""
        policy: Any = plain_policy(self.agent)
        nets = [] if self.injection_networks == "critic" else [policy.actor.latent_pi]
        nets += [] if self.injection_networks == "actor" else [net[:-1] for net in policy.critic.q_networks]
        depth = 1 + min(sum(isinstance(each, nn.Linear) for each in net) for net in nets)
        if self.n_injections == 0 and self.head_layers > depth:
            raise ValueError(
                f"head_layers must be at most {depth}, as many as the networks have after their features extractor"
            )
        check_redrawable(nn.ModuleList(nets))


def _outputs(actor: nn.Module) -> tuple[str, ...]:
    return ("action_net",) if hasattr(actor, "action_net") else ("mu", "log_std")


def _replace(optimizer: th.optim.Optimizer, new: dict[nn.Parameter, nn.Parameter]) -> None:
    """Put parameters in the places of others, in the same group: learning rates and fused steps go on."""
    for group in optimizer.param_groups:
        group["params"][:] = [new.get(each, each) for each in group["params"]]
    for each, added in new.items():
        state = optimizer.state.pop(each, {})
        if state.get("momentum_buffer") is not None:  # SGD's fused kernel wants one of every parameter
            optimizer.state[added] = {"momentum_buffer": th.zeros_like(added)}
