"""The networks of an agent: the actor and each critic, with their neurons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import nn
from torch.distributions import Categorical, Distribution, Normal

from sb3_nbsp.batches import n_rows
from sb3_nbsp.interventions.base import Network
from sb3_nbsp.interventions.trial_pass import trial_pass
from sb3_nbsp.neurons import NeuronLayer, find_neuron_layers
from sb3_nbsp.neurons.module_kinds import register_chain
from sb3_nbsp.neurons.renewal import Initializer

register_chain(FlattenExtractor)
register_chain(NatureCNN)


@dataclass
class AgentNetwork:
    """
    One network of an agent.

    :param name: "actor"; "critic" of PPO; "qf0", "qf1", ... of SAC
    :param role: the network whose optimizer moves it, as interventions know it
    :param layers: its neuron layers, in order, with those that are frozen. A features extractor that critics share is part of
        each of them
    :param own: the parameters that belong to it alone, with those that are frozen
    :param owner: the module whose optimizer moves the layers
    :param initializer: how the layers were initialized
    :param forward: runs it on a batch of (observations, actions) as they come out of a replay buffer
    """

    name: str
    role: Network
    layers: list[NeuronLayer]
    own: list[nn.Parameter]
    owner: Any
    initializer: Initializer
    forward: Callable[[PyTorchObs, th.Tensor], object]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that belong to it alone and are not frozen at this moment."""
        return [parameter for parameter in self.own if parameter.requires_grad]

    @property
    def optimizer(self) -> th.optim.Optimizer:
        """Moves the layers; asked for each time, as a policy can be given another one."""
        return self.owner.optimizer


@dataclass
class ActorNetwork(AgentNetwork):
    """
    The network that acts.

    :param distribution: distribution of the actions (before a squashing tanh) for a batch of observations as buffers hold
        them: one distribution, or one for each part of the action; their entries are the states. An agent that acts without
        drawing has one nevertheless, for what is measured with it: DQN and QR-DQN the softmax of their (mean) values, TD3 and
        DDPG a normal one of standard deviation 1 around the action
    """

    distribution: Callable[[PyTorchObs], list[Distribution]]


def networks_of(agent: BaseAlgorithm, shared: bool = True) -> list[AgentNetwork]:
    """
    :param agent: an agent with a policy of PPO, SAC, TQC, TD3, DDPG, DQN or QR-DQN
    :param shared: include the layers of a features extractor that actor and critic share
    :return: the actor, then the critics; of DQN and QR-DQN the one network that there is
    :raises ValueError: if the policy is of another kind
    """
    actor, policy = actor_of(agent, shared), plain_policy(agent)
    if isinstance(policy, ActorCriticPolicy):
        return [actor, _ppo_critic(policy, shared)]
    return [actor, *(_critics(policy, shared) if hasattr(policy, "critic") else [])]


def actor_of(agent: BaseAlgorithm, shared: bool = False) -> ActorNetwork:
    """
    :param agent: an agent with a policy of PPO, SAC, TQC, TD3, DDPG, DQN or QR-DQN
    :param shared: include the layers of a features extractor that actor and critic share
    :return: the actor; its critics may be of any kind
    :raises ValueError: if the policy is of another kind
    """
    policy = plain_policy(agent)
    if isinstance(policy, ActorCriticPolicy):
        _check_actor_critic(policy)
        return _ppo_actor(policy, shared)
    actor: Any = getattr(policy, "actor", None)
    if isinstance(policy, SACPolicy) or hasattr(actor, "get_action_dist_params"):
        return _sac_actor(policy, shared)
    if isinstance(policy, TD3Policy):
        return _td3_actor(policy, shared)
    for name in ("q_net", "quantile_net"):  # of DQN; of contrib's QR-DQN
        if isinstance(body := getattr(getattr(policy, name, None), name, None), nn.Sequential):
            return _value_network(policy, getattr(policy, name), body)
    raise ValueError(
        f"policy must be an ActorCriticPolicy, or one of SAC, TQC, TD3, DDPG, DQN or QR-DQN, not a {type(policy).__name__}"
    )


def plain_policy(agent: BaseAlgorithm) -> BasePolicy:
    """
    :param agent: any agent
    :return: its policy; where ``torch.compile`` has wrapped it, the module inside, which has the same parameters
    """
    policy: BasePolicy = getattr(agent.policy, "_orig_mod", agent.policy)
    return policy


def optimized_parameters(agent: BaseAlgorithm, network: Network) -> list[nn.Parameter]:
    """
    All that the step of a network moves, whatever its layers are. Each parameter belongs to one network; what actor and critic
    of PPO share belongs to the actor.

    :param agent: an agent with a policy of PPO, or one with an actor and a critic as SAC's
    :param network: "actor" or "critic"
    :return: parameters, in the optimizer's order, with those that are frozen or without a gradient
    """
    policy = plain_policy(agent)
    owner = policy if isinstance(policy, ActorCriticPolicy) else getattr(policy, network)
    found = [parameter for group in owner.optimizer.param_groups for parameter in group["params"]]
    if not isinstance(policy, ActorCriticPolicy):
        return found
    critic = [policy.value_net, getattr(policy.mlp_extractor, "value_net", nn.Identity())]
    critic += [] if policy.share_features_extractor else [policy.vf_features_extractor]
    of_critic = {id(parameter) for parameter in _parameters(*critic)}
    return [parameter for parameter in found if (id(parameter) in of_critic) == (network == "critic")]


def taken_q_values(agent: BaseAlgorithm, observations: PyTorchObs, actions: th.Tensor) -> th.Tensor:
    """
    :param agent: an agent with critics as SAC's
    :param observations: as the policy sees them, shape (states, ...)
    :param actions: as a replay buffer holds them, shape (states, actions)
    :return: :math:`Q_j(s, a)`, shape (states, critics)
    """
    critic: Any = plain_policy(agent).critic
    if isinstance(agent.action_space, spaces.Discrete):
        return th.cat([values.gather(1, actions.long()) for values in critic(observations)], dim=1)
    return th.cat(critic(observations, actions), dim=1)


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


def _ppo_actor(policy: ActorCriticPolicy, shared: bool) -> ActorNetwork:
    def distribution(observations: PyTorchObs) -> list[Distribution]:
        found = policy.get_distribution(observations).distribution
        return found if isinstance(found, list) else [found]

    body, is_shared = policy.mlp_extractor.policy_net, policy.share_features_extractor
    front = [] if is_shared and not shared else [("actor.features_extractor", policy.pi_features_extractor)]
    layers = find_neuron_layers(
        [*front, ("actor.policy_net", body)], [policy.action_net], trial_pass(policy, policy.get_distribution)
    )
    if front and is_shared:
        critic = nn.Sequential(policy.mlp_extractor.value_net, policy.value_net)
        _add_readers(layers, front, critic, trial_pass(policy, policy.predict_values))
    own = _parameters(body, policy.action_net, *([] if is_shared else [policy.pi_features_extractor]))
    if hasattr(policy, "log_std"):
        own.append(policy.log_std)
    return ActorNetwork(
        "actor", "actor", layers, own, policy, _initializer(policy), lambda obs, _: distribution(obs), distribution
    )


def _ppo_critic(policy: ActorCriticPolicy, shared: bool) -> AgentNetwork:
    body, is_shared = policy.mlp_extractor.value_net, policy.share_features_extractor
    front = [] if is_shared and not shared else [("critic.features_extractor", policy.vf_features_extractor)]
    layers = find_neuron_layers(
        [*front, ("critic.value_net", body)], [policy.value_net], trial_pass(policy, policy.predict_values)
    )
    if front and is_shared:
        actor = nn.Sequential(policy.mlp_extractor.policy_net, policy.action_net)
        _add_readers(layers, front, actor, trial_pass(policy, policy.get_distribution))
    own = _parameters(body, policy.value_net, *([] if is_shared else [policy.vf_features_extractor]))
    forward = policy.predict_values
    return AgentNetwork("critic", "critic", layers, own, policy, _initializer(policy), lambda obs, _: forward(obs))


def _initializer(policy: ActorCriticPolicy | SACPolicy) -> Initializer:
    is_kaiming = getattr(policy, "kaiming_init", False)
    return Initializer(float(np.sqrt(2)) if getattr(policy, "ortho_init", False) else None, is_kaiming)


def _parameters(*modules: nn.Module) -> list[nn.Parameter]:
    return [parameter for module in modules for parameter in module.parameters()]


def _add_readers(
    layers: list[NeuronLayer], front: Sequence[tuple[str, nn.Module]], other: nn.Module, run: Callable[[], object]
) -> None:
    """The last layers of a features extractor that is shared are also read by the first layer of the other network."""
    for layer, same in zip(layers, find_neuron_layers(front, [other], run), strict=False):
        layer.unknown_readers = layer.unknown_readers or same.unknown_readers
        layer.consumers += [each for each in same.consumers if all(each is not known for known in layer.consumers)]


def _td3_actor(policy: TD3Policy, shared: bool) -> ActorNetwork:
    def distribution(observations: PyTorchObs) -> list[Distribution]:
        return [Normal(actor(observations), 1.0)]

    actor, is_shared = policy.actor, policy.share_features_extractor
    body, head = actor.mu[:-2], actor.mu[-2]  # a tanh follows the output layer
    front = [] if is_shared and not shared else [("actor.features_extractor", actor.features_extractor)]
    layers = find_neuron_layers([*front, ("actor.mu", body)], [head], trial_pass(policy, actor))
    own = _parameters(actor.mu, *([] if is_shared else [actor.features_extractor]))
    return ActorNetwork("actor", "actor", layers, own, actor, Initializer(), lambda obs, _: actor(obs), distribution)


def _value_network(policy: BasePolicy, network: Any, body: nn.Sequential) -> ActorNetwork:
    """What acts by its values, and is all that there is, but for its target."""

    def distribution(observations: PyTorchObs) -> list[Distribution]:
        values = network(observations)  # of QR-DQN: shape (batch, quantiles, actions)
        return [Categorical(logits=values if values.dim() == 2 else values.mean(dim=1))]

    front = ("actor.features_extractor", network.features_extractor)
    layers = find_neuron_layers([front, ("actor.q_net", body)], run=trial_pass(policy, network))
    own = _parameters(network)
    return ActorNetwork("actor", "actor", layers, own, policy, Initializer(), lambda obs, _: network(obs), distribution)


def _sac_actor(policy: Any, shared: bool) -> ActorNetwork:
    actor: Any = policy.actor
    is_shared = policy.share_features_extractor
    is_discrete = isinstance(policy.action_space, spaces.Discrete)
    forward = actor.logits if is_discrete else actor.get_action_dist_params

    def distribution(observations: PyTorchObs) -> list[Distribution]:
        if is_discrete:
            return [actor.distribution(observations)]
        mean_actions, log_std, kwargs = actor.get_action_dist_params(observations)
        # Of a copy, as what depends on gradients cannot stay in an agent that may be copied
        return [copy(actor.action_dist).proba_distribution(mean_actions, log_std, **kwargs).distribution]

    front = [] if is_shared and not shared else [("actor.features_extractor", actor.features_extractor)]
    layers = find_neuron_layers([*front, ("actor.latent_pi", actor.latent_pi)], _heads(actor), trial_pass(policy, forward))
    others = {id(parameter) for parameter in actor.features_extractor.parameters()} if is_shared else set()
    own = [each for each in actor.parameters() if id(each) not in others]
    return ActorNetwork("actor", "actor", layers, own, actor, _initializer(policy), lambda obs, _: forward(obs), distribution)


def _heads(actor: Any) -> list[nn.Module]:
    """The output layers; with gSDE, log_std is a parameter of its own."""
    if hasattr(actor, "action_net"):  # for discrete actions
        return [actor.action_net]
    return [actor.mu] if isinstance(actor.log_std, nn.Parameter) else [actor.mu, actor.log_std]


def _critics(policy: Any, shared: bool) -> list[AgentNetwork]:
    critic: Any = policy.critic
    is_left_out = policy.share_features_extractor and not shared
    is_discrete = isinstance(policy.action_space, spaces.Discrete)

    def network(index: int) -> AgentNetwork:
        head, extractor, name = critic.q_networks[index], critic.features_extractor, "critic.features_extractor"
        if is_discrete:  # each critic has one of its own, unless they share it with the actor
            own_index = 0 if policy.share_features_extractor else index
            extractor, name = critic.features_extractors[own_index], f"critic.features_extractors.{own_index}"

        def forward(observations: PyTorchObs, actions: th.Tensor) -> th.Tensor:
            if is_discrete:
                return critic.q_values(index, observations)
            features = critic.extract_features(observations, extractor)
            return head(th.cat([features, actions], dim=1))

        n_actions = 0 if is_discrete else get_action_dim(policy.action_space)
        run = trial_pass(policy, lambda obs: forward(obs, th.zeros(n_rows(obs), n_actions, device=policy.device)))
        front = [] if is_left_out else [(name, extractor)]
        layers = find_neuron_layers([*front, (f"critic.qf{index}", head)], run=run)
        own = _parameters(head, *([extractor] if is_discrete and not policy.share_features_extractor else []))
        return AgentNetwork(f"qf{index}", "critic", layers, own, critic, _initializer(policy), forward)

    return [network(index) for index in range(critic.n_critics)]
