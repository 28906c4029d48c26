"""The networks of an agent whose neurons a method looks at: the actor and each critic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.sac.policies import Actor, ContinuousCritic, SACPolicy

from sb3_nbsp.interventions.base import Network
from sb3_nbsp.neurons import NeuronLayer, find_neuron_layers


@dataclass
class ScoredNetwork:
    """
    One network whose hidden neurons are ranked together.

    :param name: "actor", "qf0", "qf1", ...
    :param optimized_by: whose optimizer moves it
    :param layers: its neuron layers; a features extractor that critics share is part of each of them
    :param forward: runs it on a batch of (observations, actions) as they come out of a replay buffer
    """

    name: str
    optimized_by: Network
    layers: list[NeuronLayer]
    forward: Callable[[th.Tensor, th.Tensor], object]


def scored_networks(agent: OffPolicyAlgorithm) -> list[ScoredNetwork]:
    """
    :param agent: an agent with a SAC policy
    :return: the actor and each critic
    :raises ValueError: if the policy is of another kind
    """
    if not isinstance(agent.policy, SACPolicy):
        raise ValueError(f"policy must be a SACPolicy to find its neurons, not {type(agent.policy).__name__}")
    return [_actor(agent.policy.actor), *_critics(agent.policy.critic)]


def _actor(actor: Actor) -> ScoredNetwork:
    chain = [("actor.features_extractor", actor.features_extractor), ("actor.latent_pi", actor.latent_pi)]
    return ScoredNetwork("actor", "actor", find_neuron_layers(chain), lambda obs, _: actor.get_action_dist_params(obs))


def _critics(critic: ContinuousCritic) -> list[ScoredNetwork]:
    def network(index: int) -> ScoredNetwork:
        head = critic.q_networks[index]

        def forward(observations: th.Tensor, actions: th.Tensor) -> th.Tensor:
            features = critic.extract_features(observations, critic.features_extractor)
            return head(th.cat([features, actions], dim=1))

        chain = [("critic.features_extractor", critic.features_extractor), (f"critic.qf{index}", head)]
        return ScoredNetwork(f"qf{index}", "critic", find_neuron_layers(chain), forward)

    return [network(index) for index in range(critic.n_critics)]
