"""Neuron-level plasticity control (NPC): the more a neuron has mattered to the loss, the slower it learns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import nn
from typing_extensions import override

from sb3_nbsp.checks import check_option, check_range
from sb3_nbsp.interventions.base import NETWORKS, Network, OffPolicyIntervention, Phase
from sb3_nbsp.interventions.fresh_networks import refuse_reset_critics
from sb3_nbsp.interventions.masked_statistics import check_maskable
from sb3_nbsp.interventions.networks import AgentNetwork, networks_of, optimized_parameters, plain_policy
from sb3_nbsp.interventions.watches import watch_modules
from sb3_nbsp.neurons import NeuronLayer
from sb3_nbsp.neurons.masks import MaskedStep
from sb3_nbsp.neurons.module_kinds import tracks_statistics
from sb3_nbsp.neurons.utility import taylor_importance

# Phases after which a neuron of average importance is frozen, unless β says otherwise
PHASES_TO_FREEZE = 4


class NPC(OffPolicyIntervention):
    r"""
    Every neuron i of the actor and of each critic has an importance :math:`C_i`, a running average over gradient steps, and
    the optimizer's steps of its incoming parameters are scaled by

    .. math:: s_i = \min\left(1, \; \alpha \sqrt{\max\left(\sqrt{\beta / (t \, C_i)} - 1, \; 0\right)}\right)

    where t counts gradient steps. At :math:`\alpha = 1` a neuron learns at the full rate until
    :math:`t = \beta / (4 C_i)`, and not at all from :math:`t = \beta / C_i` on; the importance of the neurons of a layer is
    about 1 on average. So β is the age, in gradient steps, at which an average neuron freezes, and should be longer than a
    phase.

    The importance is that of SAC's own loss, on its own minibatch: see :func:`~sb3_nbsp.neurons.utility.taylor_importance`.
    NPC keeps neither parameters nor data.

    Paper: Overcoming Catastrophic Forgetting by Neuron-Level Plasticity Control (Paik et al., 2020). There, the learning rate
    of SGD is scaled; Adam undoes a scaling of gradients, so here its step is scaled.

    :param npc_beta: β; None: four times the number of gradient steps of the first phase, in which all neurons learn at the
        full rate (with ``npc_clock="phases"``: 4); infinity: no effect
    :param npc_alpha: α
    :param npc_delta: δ of the running average, in [0, 1)
    :param output_layers: also treat the units of output layers as neurons; otherwise they always learn at the full rate
    :param npc_clock: "steps": as described above and in the paper; "phases": t counts finished phases, and :math:`C_i` is the
        largest one that the neuron had at the end of a phase, so that rates are fixed within a phase
    :raises ValueError: if an option is out of its range
    """

    capturable: ClassVar[bool] = False

    holds_networks: ClassVar[bool] = True

    def __init__(
        self,
        npc_beta: float | None = None,
        npc_alpha: float = 1.0,
        npc_delta: float = 0.999,
        output_layers: bool = False,
        npc_clock: Literal["steps", "phases"] = "steps",
    ) -> None:
        if npc_beta is not None:
            check_range("npc_beta", npc_beta, 0, low_open=True, infinite=True)
        check_range("npc_alpha", npc_alpha, 0, low_open=True)
        check_range("npc_delta", npc_delta, 0, 1)
        if npc_delta == 1:
            raise ValueError("npc_delta must be below 1, otherwise the running averages never move")
        check_option("output_layers", output_layers, (True, False))
        check_option("npc_clock", npc_clock, ("steps", "phases"))
        self.npc_beta = npc_beta
        self.npc_alpha = npc_alpha
        self.npc_delta = npc_delta
        self.output_layers = output_layers
        self.npc_clock = npc_clock

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        super().attach(agent)
        self._averages: dict[str, th.Tensor] = {}  # C, by layer
        self._largest: dict[str, th.Tensor] = {}  # of the ends of phases
        self._t = dict.fromkeys(NETWORKS, 0)
        self._n_phases = 0
        self._first_phase = 0  # gradient steps
        self._open: set[Network] = set()  # networks whose gradients of this gradient step are waited for
        self._find_layers()

    @property
    def importances(self) -> dict[str, th.Tensor]:
        """C: by name of a layer, of shape (neurons,)."""
        return self._averages

    @property
    def masks(self) -> dict[str, th.Tensor]:
        """s: by name of a layer, of shape (neurons,). Empty as long as all are 1."""
        return self._masks

    @property
    @override
    def needs_phases(self) -> bool:
        return self.npc_clock == "phases" or self.npc_beta is None

    @override
    def needs_autograd(self) -> bool:
        return self.npc_beta != math.inf

    @override
    def check_agent(self) -> None:
        if self.needs_autograd():
            what = "NPC holds back neurons of the critics by what they have learned"
            refuse_reset_critics(self.agent, what, "another method")

    @override
    def on_learn_start(self, reset: bool) -> None:
        self._find_layers()  # networks may have been exchanged since

    @override
    def on_batch(self, data: ReplayBufferSamples) -> None:
        self._open = set(NETWORKS) if self.needs_autograd() else set()
        self._n_passes = 0
        self._found: dict[str, tuple[int, th.Tensor]] = {}

    def watch(self, index: int, output: th.Tensor) -> None:
        """
        Wait for the gradient of a training pass. Of several that have one, the first counts: those of penalties come later,
        and what the actor's loss does to critics comes when they have stepped.

        :param index: the layer's index
        :param output: what its activation function returns
        """
        network, layer = self._layers[index]
        if network in self._open:
            self._n_passes += 1
            output.register_hook(partial(self._keep, layer, self._n_passes, output.detach()))

    def _keep(self, layer: NeuronLayer, n: int, activation: th.Tensor, gradient: th.Tensor) -> None:
        if layer.name not in self._found or n < self._found[layer.name][0]:
            self._found[layer.name] = n, taylor_importance(layer, activation, gradient.detach())

    @override
    def before_step(self, network: Network) -> None:
        if network not in self._open:
            return
        self._open.remove(network)
        self._t[network] += 1
        for of, layer in self._layers:
            if of == network and layer.name in self._found:
                self._averages[layer.name].lerp_(self._found[layer.name][1].float(), 1 - self.npc_delta)
        if self.npc_clock == "steps":
            self._set_masks(network, self._t[network], self._averages)

    @override
    def masked_step(self, network: Network) -> MaskedStep | None:
        return self._steps.get(network) if self.needs_autograd() else None

    @override
    def after_renewal(self, renewed: Sequence[tuple[NeuronLayer, th.Tensor]]) -> None:
        names = {layer.linear: layer.name for _, layer in self._layers}
        for layer, neurons in renewed:  # they have not mattered yet
            for importances in (self._averages, self._largest):
                if names.get(layer.linear) in importances:
                    importances[names[layer.linear]][neurons] = 0
        if self.npc_clock == "phases":
            self._set_masks_of_phases()

    def on_phase_end(self, phase: Phase) -> None:
        """Count the phase, and keep the largest importances of each neuron."""
        if not self.needs_autograd() or self._t["critic"] == 0:
            return
        self._n_phases += 1
        self._first_phase = self._first_phase or self._t["critic"]
        for name, average in self._averages.items():
            self._largest[name] = th.maximum(self._largest.get(name, average), average)
        if self.npc_clock == "phases":
            self._set_masks_of_phases()
        for network in NETWORKS:
            masks = [self._masks[layer.name] for of, layer in self._layers if of == network and layer.name in self._masks]
            if masks:
                self.record(f"npc/{network}_mean_rate", th.cat(masks).mean().item())
                self.record(f"npc/{network}_frozen_share", (th.cat(masks) == 0).float().mean().item())

    @override
    def state_dict(self) -> dict[str, Any]:
        counts = {"t": self._t, "phases": self._n_phases, "first_phase": self._first_phase}
        return {**counts, "averages": self._averages, "largest": self._largest}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._t, self._n_phases, self._first_phase = dict(state["t"]), state["phases"], state["first_phase"]
        for name in ("averages", "largest"):
            setattr(self, f"_{name}", {layer: value.clone() for layer, value in state[name].items()})
        self._find_layers()

    def _find_layers(self) -> None:
        policy, networks = plain_policy(self.agent), networks_of(self.agent)
        names = {module: name for name, module in policy.named_modules()}
        _check(networks, names)
        moved = {network: {id(each) for each in optimized_parameters(self.agent, network)} for network in NETWORKS}
        found: dict[str, tuple[Network, NeuronLayer]] = {}  # once each, though an extractor may be part of several networks
        for network in networks:
            heads = [NeuronLayer(names[each], each, each) for each in network.layers[-1].consumers]
            for layer in [*network.layers, *(heads if self.output_layers else [])]:
                if any(id(parameter) in moved[network.role] for parameter in layer.linear.parameters()):
                    found.setdefault(layer.name, (network.role, layer))
        self._layers = list(found.values())
        for _, layer in self._layers:
            known = self._averages.get(layer.name)
            if known is None or len(known) != layer.n_neurons:
                self._averages[layer.name] = th.zeros(layer.n_neurons, dtype=th.float32, device=self.agent.device)
                self._largest.pop(layer.name, None)
        watch_modules(policy, self, [layer.activation for _, layer in self._layers] if self.needs_autograd() else [])
        self._masks: dict[str, th.Tensor] = {}
        self._steps: dict[Network, MaskedStep] = {}
        if self.npc_clock == "phases":
            self._set_masks_of_phases()

    def _beta(self) -> float | None:
        """β; None if it is not known yet."""
        if self.npc_beta is None and self.npc_clock == "steps":
            return PHASES_TO_FREEZE * self._first_phase or None
        return PHASES_TO_FREEZE if self.npc_beta is None else self.npc_beta

    def _set_masks_of_phases(self) -> None:
        for network in NETWORKS if self._n_phases > 0 else ():
            self._set_masks(network, self._n_phases, self._largest)

    def _set_masks(self, network: Network, t: int, importances: dict[str, th.Tensor]) -> None:
        beta = self._beta()
        if beta is None:
            return
        by_parameter: dict[nn.Parameter, th.Tensor] = {}
        for layer in (layer for of, layer in self._layers if of == network and layer.name in importances):
            rates = self._masks[layer.name] = learning_rates(importances[layer.name], t, beta, self.npc_alpha)
            by_parameter |= {parameter: rates for _, parameter in layer.incoming()}
            by_parameter |= {parameter: rates.min() for parameter in layer.shared()}
        if network not in self._steps:
            self._steps[network] = MaskedStep([(parameter, rates.clone()) for parameter, rates in by_parameter.items()])
        for parameter, rates in by_parameter.items():
            factor = self._steps[network].factors[parameter]
            factor.copy_(rates.view_as(factor))


def _check(networks: Sequence[AgentNetwork], names: Mapping[nn.Module, str]) -> None:
    check_maskable(networks, [(name, module) for module, name in names.items() if name.startswith(("actor.", "critic."))])
    for network in networks:
        if not network.layers:
            raise ValueError(f"policy_kwargs: net_arch gives the network {network.name!r} no hidden layer to hold back")
        for layer in network.layers:
            if any(tracks_statistics(norm) for norm in layer.norms):
                raise ValueError(
                    f"The neurons of {layer.name!r} cannot be frozen: their batch norm keeps learning running statistics. "
                    "Use a LayerNorm"
                )


def learning_rates(importance: th.Tensor, t: int, beta: float, alpha: float) -> th.Tensor:
    r"""
    Learning rates relative to the largest: s of :class:`NPC`.

    :param importance: C, shape (neurons,)
    :param t: steps, from 1
    :param beta: β
    :param alpha: α
    :return: in [0, 1], shape (neurons,)
    """
    return (alpha * ((beta / (t * importance)).sqrt() - 1).clamp_min(0).sqrt()).clamp_max(1)
