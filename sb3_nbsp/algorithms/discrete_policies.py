"""Policies of SAC for discrete actions: a categorical actor, and critics with a value for each action."""

from __future__ import annotations

from typing import Any, ClassVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
    create_mlp,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.sac.policies import SACPolicy
from torch import nn
from torch.distributions import Categorical
from typing_extensions import override

from sb3_nbsp.algorithms.policies import ExtendedLayers
from sb3_nbsp.neurons.crelu import widen_after


def _mlp(n_inputs: int, net_arch: list[int], activation_fn: type[nn.Module], n_outputs: int = -1) -> nn.Sequential:
    net = nn.Sequential(*create_mlp(n_inputs, n_outputs, net_arch, activation_fn))
    widen_after(net)
    return net


def _output(layer: nn.Module, inputs: th.Tensor) -> th.Tensor:
    """What an output layer returns, in its own precision under autocast, too."""
    with th.autocast(inputs.device.type, enabled=False):
        outputs: th.Tensor = layer(inputs.to(next(layer.parameters()).dtype))
    return outputs


class DiscreteActor(BasePolicy):
    """
    The policy: a probability for each action.

    :param observation_space: the observations
    :param action_space: the actions
    :param net_arch: widths of the hidden layers
    :param features_extractor: turns observations into vectors
    :param features_dim: length of these
    :param activation_fn: activation function of the hidden layers
    :param normalize_images: divide images of bytes by 255
    :param is_shared: whether the features extractor is the critics', which alone train it
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        net_arch: list[int],
        features_extractor: nn.Module,
        features_dim: int,
        activation_fn: type[nn.Module] = nn.ReLU,
        normalize_images: bool = True,
        is_shared: bool = False,
    ) -> None:
        super().__init__(
            observation_space, action_space, features_extractor=features_extractor, normalize_images=normalize_images
        )
        self.net_arch, self.features_dim, self.activation_fn, self.is_shared = net_arch, features_dim, activation_fn, is_shared
        self.latent_pi = _mlp(features_dim, net_arch, activation_fn)
        n_features = net_arch[-1] * getattr(activation_fn, "features_per_neuron", 1) if net_arch else features_dim
        self.action_net = nn.Linear(n_features, int(action_space.n))

    @override
    def _get_constructor_parameters(self) -> dict[str, Any]:
        names = ("net_arch", "features_extractor", "features_dim", "activation_fn", "is_shared")
        return {**super()._get_constructor_parameters(), **{name: getattr(self, name) for name in names}}

    def logits(self, observations: PyTorchObs) -> th.Tensor:
        """
        :param observations: a batch
        :return: logarithms of the probabilities but for a constant, shape (batch, actions)
        """
        inputs = preprocess_obs(observations, self.observation_space, self.normalize_images)
        return self.head(self.features_extractor(inputs))

    def head(self, features: th.Tensor) -> th.Tensor:
        """
        :param features: what the features extractor returns
        :return: see :meth:`logits`
        """
        return _output(self.action_net, self.latent_pi(features.detach() if self.is_shared else features))

    def distribution(self, observations: PyTorchObs) -> Categorical:
        """
        :param observations: a batch
        :return: the policy, π(· | s)
        """
        return Categorical(logits=self.logits(observations))

    @override
    def forward(self, observations: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return self._predict(observations, deterministic)

    @override
    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return self.logits(observation).argmax(dim=1) if deterministic else self.distribution(observation).sample()


class DiscreteCritic(BaseModel):
    """
    The critics: each has a value for each action, and by default a features extractor of its own (CleanRL).

    :param observation_space: the observations
    :param action_space: the actions
    :param net_arch: widths of the hidden layers
    :param features_extractors: one for each critic, or a single one for all
    :param features_dim: length of the vectors that they return
    :param activation_fn: activation function of the hidden layers
    :param normalize_images: divide images of bytes by 255
    :param n_critics: number of critics
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        net_arch: list[int],
        features_extractors: list[BaseFeaturesExtractor],
        features_dim: int,
        activation_fn: type[nn.Module] = nn.ReLU,
        normalize_images: bool = True,
        n_critics: int = 2,
    ) -> None:
        super().__init__(observation_space, action_space, normalize_images=normalize_images)
        self.n_critics = n_critics
        self.features_extractors = nn.ModuleList(features_extractors)
        n_actions = int(action_space.n)
        self.q_networks = nn.ModuleList(_mlp(features_dim, net_arch, activation_fn, n_actions) for _ in range(n_critics))

    def q_values(self, index: int, observations: PyTorchObs) -> th.Tensor:
        """
        :param index: which critic
        :param observations: a batch
        :return: Q(s, ·), shape (batch, actions)
        """
        inputs = preprocess_obs(observations, self.observation_space, self.normalize_images)
        return self._head(index, self.features_extractors[index % len(self.features_extractors)](inputs))

    @override
    def forward(self, observations: PyTorchObs) -> list[th.Tensor]:
        """
        :param observations: a batch
        :return: of each critic Q(s, ·), shape (batch, actions)
        """
        return self.heads(self.features(preprocess_obs(observations, self.observation_space, self.normalize_images)))

    def features(self, inputs: Any) -> list[th.Tensor]:
        """
        :param inputs: preprocessed observations
        :return: what each features extractor makes of them
        """
        return [extractor(inputs) for extractor in self.features_extractors]

    def heads(self, features: list[th.Tensor]) -> list[th.Tensor]:
        """
        :param features: what :meth:`features` returned
        :return: see :meth:`forward`
        """
        return [self._head(index, features[index % len(features)]) for index in range(self.n_critics)]

    def _head(self, index: int, features: th.Tensor) -> th.Tensor:
        layers = list(self.q_networks[index].children())
        for layer in layers[:-1]:
            features = layer(features)
        return _output(layers[-1], features)


class DiscreteSACPolicy(ExtendedLayers, SACPolicy):
    """
    Actor and critics of SAC for discrete actions.

    :param observation_space: the observations
    :param action_space: the actions
    :param lr_schedule: schedule of the learning rate
    :param net_arch: widths of the hidden layers after the features extractor: of all networks, or as
        ``dict(pi=[...], qf=[...])``; None for [256, 256], none after a CNN
    :param activation_fn: activation function of these layers, :class:`~sb3_nbsp.neurons.crelu.CReLU` too
    :param features_extractor_class: what turns observations into vectors
    :param features_extractor_kwargs: its arguments
    :param normalize_images: divide images of bytes by 255
    :param optimizer_class: class of the optimizers
    :param optimizer_kwargs: their arguments; ``eps`` is the temperature's, too
    :param n_critics: number of critics
    :param share_features_extractor: one features extractor for the actor and all critics. The critics' loss alone trains it;
        the actor's gradient stops ahead of it. By default each network has its own (CleanRL)
    :param kaiming_init: initialize all layers, output layers too, with Kaiming's normal distribution and biases of 0
        (CleanRL), rather than in PyTorch's own way
    :param layer_norm: put a layer norm between each hidden layer after the features extractor and its activation function
    """

    default_extractor: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    actor: DiscreteActor  # type: ignore[assignment]
    critic: DiscreteCritic  # type: ignore[assignment]
    critic_target: DiscreteCritic  # type: ignore[assignment]

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        n_critics: int = 2,
        share_features_extractor: bool = False,
        kaiming_init: bool = False,
        layer_norm: bool = False,
    ) -> None:
        extractor = features_extractor_class or self.default_extractor
        self.kaiming_init = kaiming_init
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            [] if net_arch is None and issubclass(extractor, NatureCNN) else net_arch,
            activation_fn,
            features_extractor_class=extractor,
            features_extractor_kwargs=features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            n_critics=n_critics,
            share_features_extractor=share_features_extractor,
            layer_norm=layer_norm,
        )

    @override
    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        for name in ("use_sde", "log_std_init", "use_expln", "clip_mean"):
            del data[name]
        own = ("share_features_extractor", "kaiming_init")
        return {**data, **{name: getattr(self, name) for name in own}}

    @override
    def _build(self, lr_schedule: Schedule) -> None:
        options: dict[str, Any] = {"lr": lr_schedule(1), **self.optimizer_kwargs}
        self.actor = self.make_actor()
        shared = self.actor.features_extractor if self.share_features_extractor else None
        assert shared is None or isinstance(shared, BaseFeaturesExtractor)
        self.critic = self.make_critic(shared)
        self.critic_target = self.make_critic()
        self.initialize(self.actor)
        self.initialize(self.critic)
        self.critic_target.load_state_dict(self.critic.state_dict())
        self.critic_target.set_training_mode(False)
        of_critic = {id(parameter) for parameter in self.critic.parameters()}
        own = [parameter for parameter in self.actor.parameters() if id(parameter) not in of_critic]
        self.actor.optimizer = self.optimizer_class(own, **options)
        self.critic.optimizer = self.optimizer_class(self.critic.parameters(), **options)

    @override
    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> DiscreteActor:  # type: ignore[override]
        kwargs = self._update_features_extractor(self.net_args, features_extractor)
        actor = DiscreteActor(**kwargs, is_shared=self.share_features_extractor)
        self.normalize(actor.latent_pi)
        return actor.to(self.device)

    @override
    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> DiscreteCritic:  # type: ignore[override]
        kwargs: dict[str, Any] = {**self.net_args, **{name: self.critic_kwargs[name] for name in ("net_arch", "n_critics")}}
        n_extractors = 1 if self.share_features_extractor else kwargs["n_critics"]
        if features_extractor is not None:
            extractors = [features_extractor]
        else:
            extractors = [self.make_features_extractor() for _ in range(n_extractors)]
        critic = DiscreteCritic(**kwargs, features_extractors=extractors, features_dim=extractors[0].features_dim)
        self.normalize(*critic.q_networks)
        return critic.to(self.device)

    def initialize(self, network: nn.Module) -> None:
        """
        Draw a network's layers as ``kaiming_init`` says; without it, they stay as PyTorch has drawn them.

        :param network: any part of the policy
        """
        for module in network.modules() if self.kaiming_init else ():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class DiscreteSACCnnPolicy(DiscreteSACPolicy):
    """See :class:`DiscreteSACPolicy`; on images, with a CNN in front."""

    default_extractor = NatureCNN


class DiscreteSACMultiInputPolicy(DiscreteSACPolicy):
    """See :class:`DiscreteSACPolicy`, for dictionary observations."""

    default_extractor = CombinedExtractor
