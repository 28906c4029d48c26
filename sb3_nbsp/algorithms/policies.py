"""
SB3's policies, with two additions: layers after a CReLU read both of its halves, and ``layer_norm=True``. Without either
they are SB3's.
"""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    BasePolicy,
    ContinuousCritic,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, NatureCNN
from stable_baselines3.sac import policies as sac
from torch import nn
from typing_extensions import override

from sb3_nbsp.checks import check_option
from sb3_nbsp.neurons.crelu import CReLU, widen_after, widened


class ExtendedLayers(BasePolicy):
    """
    What policies of PPO and SAC share.

    :param layer_norm: put a layer norm between each hidden linear layer and its activation function: those after the features
        extractor, and that of SB3's CNN, whose convolutions have none
    :raises ValueError: if there is no such layer
    """

    def __init__(self, *args: Any, layer_norm: bool = False, **kwargs: Any) -> None:
        check_option("layer_norm", layer_norm, (True, False))
        self.layer_norm = layer_norm
        super().__init__(*args, **kwargs)
        if layer_norm and not any(isinstance(each, nn.LayerNorm) for each in self.modules()):
            raise ValueError("layer_norm=True has no hidden layer to normalize: give some with net_arch")

    @override
    def make_features_extractor(self) -> BaseFeaturesExtractor:
        extractor = super().make_features_extractor()
        activation: Any = getattr(self, "activation_fn", None)
        is_combined = type(extractor) is CombinedExtractor
        for part in extractor.extractors.values() if is_combined else [extractor]:  # type: ignore[operator]
            if type(part) is NatureCNN:
                width = part.features_dim
                if activation is CReLU:
                    with_crelu(part)
                if is_combined:
                    extractor._features_dim += part.features_dim - width
                self.normalize(part.linear)
        return extractor

    def normalize(self, *nets: nn.Module) -> None:
        """
        Put a layer norm (Ba et al., 2016) after every linear layer that an activation function follows, in place; nothing
        without ``layer_norm``.

        :param nets: hidden networks of SB3's, each an ``nn.Sequential``, with their output layers or without
        """
        for net in nets if self.layer_norm else ():
            assert isinstance(net, nn.Sequential)
            for index in reversed(range(len(net) - 1)):
                layer = net[index]
                if isinstance(layer, nn.Linear):
                    net.insert(index + 1, nn.LayerNorm(layer.out_features).to(layer.weight))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"layer_norm": True} if self.layer_norm else {}
        return {**super()._get_constructor_parameters(), **own}


class _PPOLayers(ExtendedLayers, ActorCriticPolicy):
    """SB3 makes the output layers, initializes all layers and makes the optimizer after this."""

    def _build_mlp_extractor(self) -> None:
        super()._build_mlp_extractor()
        self.normalize(self.mlp_extractor.policy_net, self.mlp_extractor.value_net)
        self.mlp_extractor.latent_dim_pi *= widen_after(self.mlp_extractor.policy_net)
        self.mlp_extractor.latent_dim_vf *= widen_after(self.mlp_extractor.value_net)


def with_crelu(extractor: NatureCNN) -> None:
    """
    Give SB3's CNN the activation function CReLU in the place of ReLU, and layers that read both halves, in place.

    :param extractor: SB3's CNN, not yet in use
    """
    layers = [*extractor.cnn.children(), *extractor.linear.children()]
    whole, n_cnn = nn.Sequential(*(CReLU() if isinstance(each, nn.ReLU) else each for each in layers)), len(extractor.cnn)
    extractor._features_dim *= widen_after(whole)
    layers = list(whole)
    extractor.cnn, extractor.linear = nn.Sequential(*layers[:n_cnn]), nn.Sequential(*layers[n_cnn:])


class PPOMlpPolicy(_PPOLayers, ActorCriticPolicy):
    """
    :class:`stable_baselines3.common.policies.ActorCriticPolicy`, which also takes
    ``activation_fn=`` :class:`~sb3_nbsp.neurons.crelu.CReLU`.
    """


class PPOCnnPolicy(_PPOLayers, ActorCriticCnnPolicy):
    """See :class:`PPOMlpPolicy`, with a CNN in front, whose activation is the CReLU, too, if the MLP's is one."""


class PPOMultiInputPolicy(_PPOLayers, MultiInputActorCriticPolicy):
    """See :class:`PPOMlpPolicy`, for dictionary observations."""


class WideActor(sac.Actor):
    """SB3's actor, whose layers after a CReLU read both of its halves: a class, so that its ``load()`` makes the same."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        factor = widen_after(self.latent_pi)
        if factor == 1:
            return
        if not self.use_sde:
            assert isinstance(self.mu, nn.Linear) and isinstance(self.log_std, nn.Linear)
            self.mu, self.log_std = widened(self.mu, factor), widened(self.log_std, factor)
            return
        width = factor * self.net_arch[-1]
        options: dict[str, Any] = {"latent_dim": width, "latent_sde_dim": width, "log_std_init": self.log_std_init}
        mu, self.log_std = self.action_dist.proba_distribution_net(**options)
        if isinstance(self.mu, nn.Sequential):  # a clip follows it (clip_mean)
            self.mu[0] = mu
        else:
            self.mu = mu


class _SACLayers(ExtendedLayers, sac.SACPolicy):
    """SB3 makes the optimizers and copies the critics into their targets after this."""

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> sac.Actor:
        if getattr(self.activation_fn, "features_per_neuron", 1) == 1:
            actor = super().make_actor(features_extractor)
        else:
            actor = WideActor(**self._update_features_extractor(self.actor_kwargs, features_extractor)).to(self.device)
        self.normalize(actor.latent_pi)
        return actor

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> ContinuousCritic:
        critic = super().make_critic(features_extractor)
        for net in critic.q_networks:
            assert isinstance(net, nn.Sequential)
            widen_after(net)
        self.normalize(*critic.q_networks)
        return critic


class SACMlpPolicy(_SACLayers):
    """
    :class:`stable_baselines3.sac.policies.SACPolicy`, which also takes
    ``activation_fn=`` :class:`~sb3_nbsp.neurons.crelu.CReLU`.
    """


class SACCnnPolicy(_SACLayers, sac.CnnPolicy):
    """See :class:`SACMlpPolicy`, with a CNN in front, whose activation is the CReLU, too, if the MLP's is one."""


class SACMultiInputPolicy(_SACLayers, sac.MultiInputPolicy):
    """See :class:`SACMlpPolicy`, for dictionary observations."""
