"""Policies built from modules that are not known: they learn as in SB3; what asks for their neurons names the module."""

from __future__ import annotations

from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from tagged_tasks import differing
from torch import nn

from sb3_nbsp import ContinualPPO, ContinualSAC
from sb3_nbsp.interventions import CycleReset, GradientMasking


class Recurrent(BaseFeaturesExtractor):
    def __init__(self, space: spaces.Box) -> None:
        super().__init__(space, 6)
        self.cell = nn.GRUCell(3, 6)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.cell(observations)


def options(extractor: type[BaseFeaturesExtractor] = Recurrent) -> dict[str, Any]:
    return {"policy_kwargs": {"features_extractor_class": extractor, "net_arch": [8]}, "seed": 0, "batch_size": 16}


@pytest.mark.parametrize(
    ("cls", "plain", "others"),
    [(ContinualPPO, PPO, {"n_steps": 32, "n_epochs": 1}), (ContinualSAC, SAC, {"learning_starts": 44})],
)
def test_without_interventions_they_learn_as_in_sb3(cls: Any, plain: Any, others: dict[str, Any]) -> None:
    ours = cls("MlpPolicy", "Pendulum-v1", fused=False, **options(), **others).learn(64)
    theirs = plain("MlpPolicy", "Pendulum-v1", **options(), **others).learn(64)
    assert differing(ours.policy.state_dict(), theirs.policy.state_dict()) == []
    cls("MlpPolicy", "Pendulum-v1", **options(), **others).learn(64)


def test_what_asks_for_neurons_names_the_module() -> None:
    with pytest.raises(ValueError, match=r"'actor.features_extractor.cell' \(GRUCell\) has parameters"):
        ContinualSAC("MlpPolicy", "Pendulum-v1", interventions=[GradientMasking()], **options())
    with pytest.raises(ValueError, match=r"'actor.features_extractor.cell' \(GRUCell\) has parameters"):
        ContinualPPO("MlpPolicy", "Pendulum-v1", interventions=[CycleReset(renew_shared=True)], **options())
    ContinualPPO("MlpPolicy", "Pendulum-v1", interventions=[CycleReset()], **options())  # a shared one is not its business


@pytest.mark.parametrize("parametrize", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_parametrized_layers_are_not_renewed_but_can_be_found(parametrize: Any) -> None:
    class Parametrized(BaseFeaturesExtractor):
        def __init__(self, space: spaces.Box) -> None:
            super().__init__(space, 6)
            self.net = nn.Sequential(parametrize(nn.Linear(3, 6)), nn.ReLU())
            self.forward = self.net.forward  # type: ignore[method-assign]

    with pytest.raises(ValueError, match=r"neurons of 'actor.features_extractor.net.0' cannot be renewed.* parametrized"):
        ContinualPPO("MlpPolicy", "Pendulum-v1", interventions=[CycleReset(renew_shared=True)], **options(Parametrized))
