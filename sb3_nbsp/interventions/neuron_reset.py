"""What the interventions that renew neurons share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.sac.policies import SACPolicy
from torch.nn.utils.parametrize import is_parametrized
from typing_extensions import override

from sb3_nbsp.checks import check_option, check_range, whole
from sb3_nbsp.interventions.base import Intervention
from sb3_nbsp.interventions.container import Interventions
from sb3_nbsp.interventions.networks import ActorNetwork, AgentNetwork, actor_of, plain_policy
from sb3_nbsp.interventions.own_seeds import own_seed
from sb3_nbsp.neurons.layers import NeuronLayer, count_neurons
from sb3_nbsp.neurons.new_state import check_renewable
from sb3_nbsp.neurons.renewal import clear_incoming_moments, clear_outgoing_moments, cut_outgoing, renew_incoming


class NeuronReset(Intervention):
    """
    Renews neurons of the actor: their incoming parameters are drawn anew with the policy's own initializer.

    Layers that are frozen (``requires_grad=False``) when it happens stay as they are.

    :param clear_moments: also forget the optimizer's moments of everything that is reset
    :param renew_shared: include the layers of a features extractor that actor and critic share
    :raises ValueError: if an option is out of its range
    """

    # Whether a renewed neuron starts without outgoing weights
    holds_networks: ClassVar[bool] = True
    cuts_outgoing = False

    def __init__(self, clear_moments: bool = True, renew_shared: bool = False) -> None:
        check_option("clear_moments", clear_moments, (True, False))
        check_option("renew_shared", renew_shared, (True, False))
        self.clear_moments = clear_moments
        self.renew_shared = renew_shared

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        super().attach(agent)
        self._counts: dict[str, th.Tensor] = {}
        self._n_renewals = 0
        self._find_layers()
        if not any(map(self._may_renew, self._layers)):
            roles = " or a ".join(dict.fromkeys(network.role for network in self._networks))
            raise ValueError(
                f"policy_kwargs: net_arch gives {type(agent.policy).__name__} no hidden layer that belongs to the {roles} "
                "alone and could be renewed; give it one, e.g. net_arch=[64], or renew the shared layers with "
                "renew_shared=True"
            )

    @override
    def on_learn_start(self, reset: bool) -> None:
        # Layers may have been exchanged since
        self._find_layers()

    def _find_layers(self) -> None:
        """Look at the actor; what is known of a layer of the same name and width stays."""
        self._network = actor_of(self.agent, shared=self.renew_shared)
        policy = plain_policy(self.agent)
        if self.renew_shared and isinstance(policy, SACPolicy) and policy.share_features_extractor:
            if len(self._network.layers) > len(actor_of(self.agent).layers):
                raise ValueError(
                    "renew_shared: SAC's critics read a shared features extractor together with the action; use False"
                )
        self._networks = self._find_networks()
        self._check_layers()  # complain now, not at the first reset
        fresh = {layer.name: th.zeros(layer.n_neurons, dtype=th.int64) for layer in self._layers}
        old = self._counts
        self._counts = {n: old[n] if n in old and len(old[n]) == len(zeros) else zeros for n, zeros in fresh.items()}

    def _find_networks(self) -> list[AgentNetwork]:
        """Those whose neurons are renewed."""
        return [self._network]

    @property
    def _layers(self) -> list[NeuronLayer]:
        return [layer for network in self._networks for layer in network.layers]

    def _may_renew(self, layer: NeuronLayer) -> bool:
        """Whether nothing that a renewal changes is frozen at this moment: frozen layers are to stay as they are."""
        changed = [layer.linear, *(layer.consumers if self.cuts_outgoing else [])]
        return all(module.weight.requires_grad for module in changed)

    def _check_layers(self) -> None:
        for layer in filter(self._may_renew, self._layers):
            written = [layer.linear, *(layer.consumers if self.cuts_outgoing else [])]
            if any(is_parametrized(each, "weight") for each in written):
                raise ValueError(
                    f"The neurons of {layer.name!r} cannot be renewed: its weight or one that reads it is "
                    "parametrized (weight_norm, spectral_norm), computed from other numbers. Use plain layers"
                )
            if self.cuts_outgoing:
                list(layer.outgoing())
        for network in self._networks if self.clear_moments else []:
            check_renewable(network.optimizer)

    @property
    def network(self) -> ActorNetwork:
        """The actor."""
        return self._network

    @property
    def reset_counts(self) -> dict[str, th.Tensor]:
        """How often each neuron has been reset: layer name to a vector of shape (neurons,)."""
        return self._counts

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"counts": {name: counts.clone() for name, counts in self._counts.items()}, "n_renewals": self._n_renewals}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, counts in self._counts.items():
            if name in state["counts"]:  # not after a change of renew_shared
                counts.copy_(state["counts"][name])
        self._n_renewals = state["n_renewals"]

    def renew(
        self,
        chosen: Sequence[th.Tensor],
        mean_features: Sequence[th.Tensor] | None = None,
        network: AgentNetwork | None = None,
    ) -> None:
        """
        Renew neurons of a network. The other interventions are told of those of the actor; of those of a critic only the ones
        that keep account of neurons (``holds_networks``).

        :param chosen: for each layer the indices of the neurons to renew, shape (k,)
        :param mean_features: for each layer what a neuron whose outgoing weights are cut leaves in the next layer's bias:
            see :func:`~sb3_nbsp.neurons.renewal.cut_outgoing`
        :param network: the network; None for the actor
        """
        network = network or self._network
        pairs = zip(network.layers, chosen, strict=True)
        renewed = [
            (layer, (neurons if self._may_renew(layer) else neurons[:0]).to(self.agent.device)) for layer, neurons in pairs
        ]
        if not any(len(neurons) for _, neurons in renewed):
            return
        everyone = getattr(self.agent, "all_interventions", Interventions([self]))  # agents of SB3 itself have none
        told = everyone
        if network is not self._network:  # of critics, those hear that keep account of neurons
            told = Interventions([each for each in everyone if each.holds_networks])
        told.before_renewal()
        # Each reset of an agent draws from a stream of its own
        seed = own_seed(self.agent, self._n_renewals, purpose=1000 + list(everyone).index(self))
        generator = th.Generator().manual_seed(seed)
        for index, (layer, neurons) in enumerate(renewed):
            renew_incoming(layer, neurons, network.initializer, generator)
            if self.cuts_outgoing:
                cut_outgoing(layer, neurons, None if mean_features is None else mean_features[index])
            self._counts[layer.name][neurons.cpu()] += 1
        if self.clear_moments:
            self._clear_moments(network.optimizer, renewed)
        self._n_renewals += 1
        self._record()
        told.after_renewal(renewed)

    def _clear_moments(self, optimizer: th.optim.Optimizer, renewed: Sequence[tuple[NeuronLayer, th.Tensor]]) -> None:
        for layer, neurons in renewed:
            clear_incoming_moments(optimizer, layer, neurons)
            if self.cuts_outgoing:
                clear_outgoing_moments(optimizer, layer, neurons)

    def _record(self) -> None:
        total = sum(int(counts.sum()) for counts in self._counts.values())
        ever = sum(int((counts > 0).sum()) for counts in self._counts.values())
        self.record("resets/total", total)
        self.record("resets/share_ever_reset", ever / count_neurons(self._layers))


class PeriodicReset(NeuronReset):
    """
    Renews neurons every ``reset_frequency`` environment steps, checked after each call of ``train()``.

    :param reset_frequency: F, in environment steps
    :param reset_rate: γ, share of each layer that a reset renews, in (0, 1]
    :param clear_moments: see :class:`NeuronReset`
    :param renew_shared: see :class:`NeuronReset`
    :raises ValueError: if an option is out of its range
    """

    def __init__(
        self,
        reset_frequency: int = 50_000,
        reset_rate: float = 0.01,
        clear_moments: bool = True,
        renew_shared: bool = False,
    ) -> None:
        super().__init__(clear_moments, renew_shared)
        reset_frequency = whole("reset_frequency", reset_frequency, 1)
        check_range("reset_rate", reset_rate, 0, 1, low_open=True)
        self.reset_frequency = reset_frequency
        self.reset_rate = reset_rate

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        super().attach(agent)
        # Whole periods of reset_frequency steps when it was last checked; None until training begins
        self._periods: int | None = None

    @abstractmethod
    def choose(self) -> list[th.Tensor]:
        """
        Which neurons to renew now.

        :return: for each layer their indices, shape (k,)
        """

    @property
    def next_reset(self) -> int:
        """Environment step from which on the next reset is due."""
        return ((self._periods or 0) + 1) * self.reset_frequency

    @override
    def on_learn_start(self, reset: bool) -> None:
        # The agent's count of steps may have begun anew
        super().on_learn_start(reset)
        now = self.agent.num_timesteps // self.reset_frequency
        self._periods = now if self._periods is None else min(self._periods, now)

    def after_train(self) -> None:
        """Reset if a multiple of ``reset_frequency`` steps has been passed since the last call."""
        periods = self.agent.num_timesteps // self.reset_frequency
        if self._periods is not None and periods > self._periods:
            self.renew(self.choose())
        self._periods = periods

    @override
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "periods": self._periods, "reset_frequency": self.reset_frequency}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._periods = state["periods"] if state["reset_frequency"] == self.reset_frequency else None
