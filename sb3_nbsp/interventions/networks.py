"""The networks of an agent whose neurons a method looks at: the actor and each critic; or the actor alone, to renew it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import FlattenExtractor, NatureCNN
from stable_baselines3.sac.policies import Actor, SACPolicy
from torch import nn
from torch.distributions import Distribution

from sb3_nbsp.interventions.base import Network
from sb3_nbsp.interventions.trial_pass import trial_pass
from sb3_nbsp.neurons import NeuronLayer, find_neuron_layers
from sb3_nbsp.neurons.module_kinds import register_chain
from sb3_nbsp.neurons.renewal import Initializer

register_chain(FlattenExtractor)
register_chain(NatureCNN)


@dataclass
class ScoredNetwork:
    """
    One network whose hidden neurons are ranked together.

    :param name: "actor", "qf0", "qf1", ...
    :param optimized_by: the network whose optimizer moves it
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
    policy = plain_policy(agent)
    if not isinstance(policy, SACPolicy):
        raise ValueError(f"policy must be a SACPolicy to find its neurons, not {type(policy).__name__}")
    return [_actor(policy), *_critics(policy)]


def plain_policy(agent: BaseAlgorithm) -> BasePolicy:
    """
    :param agent: any agent
    :return: its policy; where ``torch.compile`` has wrapped it, the module inside, which has the same parameters
    """
    policy: BasePolicy = getattr(agent.policy, "_orig_mod", agent.policy)
    return policy


def _actor(policy: SACPolicy) -> ScoredNetwork:
    actor = policy.actor
    chain = [("actor.features_extractor", actor.features_extractor), ("actor.latent_pi", actor.latent_pi)]
    layers = find_neuron_layers(chain, _heads(actor), trial_pass(policy, actor.get_action_dist_params))
    return ScoredNetwork("actor", "actor", layers, lambda obs, _: actor.get_action_dist_params(obs))


def _heads(actor: Actor) -> list[nn.Module]:
    """The output layers; with gSDE, log_std is a parameter of its own."""
    return [actor.mu] if isinstance(actor.log_std, nn.Parameter) else [actor.mu, actor.log_std]


def _critics(policy: SACPolicy) -> list[ScoredNetwork]:
    critic, n_actions = policy.critic, get_action_dim(policy.action_space)

    def network(index: int) -> ScoredNetwork:
        head = critic.q_networks[index]

        def forward(observations: th.Tensor, actions: th.Tensor) -> th.Tensor:
            features = critic.extract_features(observations, critic.features_extractor)
            return head(th.cat([features, actions], dim=1))

        run = trial_pass(policy, lambda obs: forward(obs, th.zeros(len(obs), n_actions, device=obs.device)))
        chain = [("critic.features_extractor", critic.features_extractor), (f"critic.qf{index}", head)]
        return ScoredNetwork(f"qf{index}", "critic", find_neuron_layers(chain, run=run), forward)

    return [network(index) for index in range(critic.n_critics)]


@dataclass
class ActorNetwork:
    """
    The policy of an agent, as something whose neurons can be renewed.

    :param layers: its neuron layers, in order, with those that are frozen
    :param own: the parameters that belong to the actor alone, with those that are frozen
    :param owner: the module whose optimizer moves the layers
    :param initializer: how the layers were initialized
    :param distribution: distribution of the actions (before a squashing tanh) for a batch of observations as buffers hold
        them: one distribution, or one for each part of the action; their entries are the states
    """

    layers: list[NeuronLayer]
    own: list[nn.Parameter]
    owner: ActorCriticPolicy | Actor
    initializer: Initializer
    distribution: Callable[[th.Tensor], list[Distribution]]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that belong to the actor alone and are not frozen at this moment."""
        return [parameter for parameter in self.own if parameter.requires_grad]

    @property
    def optimizer(self) -> th.optim.Optimizer:
        """Moves the layers; asked for each time, as a policy can be given another one."""
        return self.owner.optimizer


def actor_network(agent: BaseAlgorithm, renew_shared: bool = False) -> ActorNetwork:
    """
    :param agent: an agent with a policy of PPO or SAC on one observation
    :param renew_shared: include the layers of a features extractor that actor and critic share
    :return: the actor
    :raises ValueError: if the policy is of another kind, or its shared layers cannot be renewed
    """
    if isinstance(agent.observation_space, spaces.Dict):
        raise ValueError("policy: neurons are renewed in policies on one observation (MlpPolicy, CnnPolicy) only")
    policy = plain_policy(agent)
    if isinstance(policy, ActorCriticPolicy):
        _check_actor_critic(policy)
        return _ppo_actor(policy, renew_shared)
    if isinstance(policy, SACPolicy):
        return _sac_actor(policy, renew_shared)
    raise ValueError(f"policy must be an ActorCriticPolicy or a SACPolicy, not {type(policy).__name__}")


def _check_actor_critic(policy: ActorCriticPolicy) -> None:
    """Complain of policies that take more than an observation, and of networks in which the actor cannot be found."""
    needed = [each.name for each in signature(policy.get_distribution).parameters.values() if each.default is each.empty][1:]
    if needed:
        raise ValueError(
            f"policy: neurons are looked at in policies that act on one observation alone, but {type(policy).__name__} also "
            f"needs {', '.join(needed)}"
        )
    extractor = policy.mlp_extractor
    missing = [name for name in ("policy_net", "value_net") if not isinstance(getattr(extractor, name, None), nn.Module)]
    if missing:
        raise ValueError(
            f"policy: to find the actor's neurons, the hidden layers of its mlp_extractor, a {type(extractor).__name__}, must "
            f"be the modules policy_net and value_net, as in SB3's MlpExtractor; it lacks {' and '.join(missing)}"
        )


def _ppo_actor(policy: ActorCriticPolicy, renew_shared: bool) -> ActorNetwork:
    extractor, body = policy.pi_features_extractor, policy.mlp_extractor.policy_net
    is_shared = policy.share_features_extractor
    front = [] if is_shared and not renew_shared else [("actor.features_extractor", extractor)]
    run = trial_pass(policy, policy.get_distribution)
    layers = find_neuron_layers([*front, ("actor.policy_net", body)], [policy.action_net], run)
    if front and is_shared:
        _add_critic_as_consumer(layers, policy)

    def distribution(observations: th.Tensor) -> list[Distribution]:
        found = policy.get_distribution(observations).distribution
        return found if isinstance(found, list) else [found]

    own = [body, policy.action_net] if is_shared else [extractor, body, policy.action_net]
    parameters = [parameter for module in own for parameter in module.parameters()]
    if hasattr(policy, "log_std"):
        parameters.append(policy.log_std)
    initializer = Initializer(float(np.sqrt(2)) if policy.ortho_init else None)
    return ActorNetwork(layers, parameters, policy, initializer, distribution)


def _add_critic_as_consumer(layers: list[NeuronLayer], policy: ActorCriticPolicy) -> None:
    """The last layer of a shared features extractor is also read by the first layer of the critic."""
    critic = nn.Sequential(policy.mlp_extractor.value_net, policy.value_net)
    front, run = [("actor.features_extractor", policy.pi_features_extractor)], trial_pass(policy, policy.predict_values)
    shared = find_neuron_layers(front, [critic], run)
    for layer, of_critic in zip(layers, shared, strict=False):
        layer.unknown_readers = layer.unknown_readers or of_critic.unknown_readers
    if shared:
        layers[len(shared) - 1].consumers += shared[-1].consumers


def _sac_actor(policy: SACPolicy, renew_shared: bool) -> ActorNetwork:
    actor, is_shared = policy.actor, policy.share_features_extractor
    run = trial_pass(policy, actor.get_action_dist_params)
    if is_shared and renew_shared and find_neuron_layers([("actor.features_extractor", actor.features_extractor)], run=run):
        raise ValueError("renew_shared: SAC's critics read a shared features extractor together with the action; use False")
    front = [] if is_shared else [("actor.features_extractor", actor.features_extractor)]
    layers = find_neuron_layers([*front, ("actor.latent_pi", actor.latent_pi)], _heads(actor), run)

    def distribution(observations: th.Tensor) -> list[Distribution]:
        mean_actions, log_std, kwargs = actor.get_action_dist_params(observations)
        return [actor.action_dist.proba_distribution(mean_actions, log_std, **kwargs).distribution]

    shared = {id(parameter) for parameter in actor.features_extractor.parameters()} if is_shared else set()
    parameters = [each for each in actor.parameters() if id(each) not in shared]
    return ActorNetwork(layers, parameters, actor, Initializer(), distribution)
