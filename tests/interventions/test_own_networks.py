"""Policies with networks of their own, as SB3's documentation shows them: found, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_nbsp import CBPPPO, P3O, ContinualPPO, ReDoPPO
from sb3_nbsp.interventions import CycleReset

SMALL: dict[str, Any] = {"n_steps": 64, "batch_size": 32, "n_epochs": 1, "seed": 0, "device": "cpu"}


class Documented(nn.Module):
    """SB3's documentation, "Custom Policy Network", advanced example."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.latent_dim_pi = self.latent_dim_vf = 16
        self.policy_net = nn.Sequential(nn.Linear(n_features, 16), nn.ReLU())
        self.value_net = nn.Sequential(nn.Linear(n_features, 16), nn.ReLU())

    def forward(self, features: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: th.Tensor) -> th.Tensor:
        return self.policy_net(features)

    def forward_critic(self, features: th.Tensor) -> th.Tensor:
        return self.value_net(features)


class OtherNames(nn.Module):
    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.latent_dim_pi = self.latent_dim_vf = 16
        self.body = nn.Sequential(nn.Linear(n_features, 16), nn.ReLU())

    def forward(self, features: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        return self.body(features), self.body(features)

    def forward_actor(self, features: th.Tensor) -> th.Tensor:
        return self.body(features)

    forward_critic = forward_actor


class DocumentedPolicy(ActorCriticPolicy):
    networks: type[Any] = Documented

    def __init__(self, observation_space: Any, action_space: Any, lr_schedule: Any, *args: Any, **kwargs: Any) -> None:
        kwargs["ortho_init"] = False
        super().__init__(observation_space, action_space, lr_schedule, *args, **kwargs)

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = self.networks(self.features_dim)


class OtherPolicy(DocumentedPolicy):
    networks = OtherNames


def test_documented_networks_are_renewed() -> None:
    agent = P3O(DocumentedPolicy, "Pendulum-v1", reset_frequency=64, reset_rate=0.25, max_distill_epochs=2, **SMALL).learn(128)
    counts = agent.all_interventions.find(CycleReset).reset_counts
    assert {name: int(each.sum()) for name, each in counts.items()} == {"actor.policy_net.0": 8}


@pytest.mark.parametrize("cls", [P3O, ReDoPPO, CBPPPO])
def test_networks_under_other_names_are_refused(cls: type[ContinualPPO]) -> None:
    with pytest.raises(ValueError, match=r"mlp_extractor, a OtherNames, must be .* policy_net and value_net"):
        cls(OtherPolicy, "Pendulum-v1", **SMALL)


def test_without_interventions_any_network_learns() -> None:
    agent = ContinualPPO(OtherPolicy, "Pendulum-v1", **SMALL).learn(64)
    assert agent._n_updates == 1
