"""SB3's policies, but with layers after a CReLU that read both of its halves. With any other activation they are SB3's."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    ContinuousCritic,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.sac import policies as sac
from torch import nn

from sb3_nbsp.neurons.crelu import widen_behind, widened


class _PPOLayers(ActorCriticPolicy):
    """SB3 makes the output layers, initializes all layers and makes the optimizer after this."""

    def _build_mlp_extractor(self) -> None:
        super()._build_mlp_extractor()
        self.mlp_extractor.latent_dim_pi *= widen_behind(self.mlp_extractor.policy_net)
        self.mlp_extractor.latent_dim_vf *= widen_behind(self.mlp_extractor.value_net)


class PPOMlpPolicy(_PPOLayers, ActorCriticPolicy):
    """
    :class:`stable_baselines3.common.policies.ActorCriticPolicy`, which also takes
    ``activation_fn=`` :class:`~sb3_nbsp.neurons.crelu.CReLU`.
    """


class PPOCnnPolicy(_PPOLayers, ActorCriticCnnPolicy):
    """See :class:`PPOMlpPolicy`, with a CNN in front (whose activation is ReLU)."""


class PPOMultiInputPolicy(_PPOLayers, MultiInputActorCriticPolicy):
    """See :class:`PPOMlpPolicy`, for dictionary observations."""


class WideActor(sac.Actor):
    """SB3's actor, whose layers after a CReLU read both of its halves: a class, so that its ``load()`` makes the same."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        factor = widen_behind(self.latent_pi)
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


class _SACLayers(sac.SACPolicy):
    """SB3 makes the optimizers and copies the critics into their targets after this."""

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> sac.Actor:
        if getattr(self.activation_fn, "features_per_neuron", 1) == 1:
            return super().make_actor(features_extractor)
        return WideActor(**self._update_features_extractor(self.actor_kwargs, features_extractor)).to(self.device)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> ContinuousCritic:
        critic = super().make_critic(features_extractor)
        for net in critic.q_networks:
            assert isinstance(net, nn.Sequential)
            widen_behind(net)
        return critic


class SACMlpPolicy(_SACLayers):
    """
    :class:`stable_baselines3.sac.policies.SACPolicy`, which also takes
    ``activation_fn=`` :class:`~sb3_nbsp.neurons.crelu.CReLU`.
    """


class SACCnnPolicy(_SACLayers, sac.CnnPolicy):
    """See :class:`SACMlpPolicy`, with a CNN in front (whose activation is ReLU)."""


class SACMultiInputPolicy(_SACLayers, sac.MultiInputPolicy):
    """See :class:`SACMlpPolicy`, for dictionary observations."""
