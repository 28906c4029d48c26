"""Policies built from modules that are not known: they learn as in SB3; what asks for their neurons names the module."""

from __future__ import annotations

from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from tagged_tasks import differing
from torch import nn

from sb3_nbsp import CBPPPO, NBSPSAC, P3O, ContinualPPO, ContinualSAC, ReDoPPO, ReDoSAC
from sb3_nbsp.interventions import CycleReset, GradientMasking
from sb3_nbsp.interventions.networks import networks_of


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


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("norm", [nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_the_target_of_a_spectrally_normalized_critic_is_normalized_too(norm: Any, fused: bool) -> None:
    class Normalized(BaseFeaturesExtractor):
        def __init__(self, space: spaces.Box) -> None:
            super().__init__(space, 6)
            self.net = nn.Sequential(norm(nn.Linear(3, 6)), nn.ReLU())

        def forward(self, observations: th.Tensor) -> th.Tensor:
            return self.net(observations)

    agent = ContinualSAC("MlpPolicy", "Pendulum-v1", learning_rate=0.05, tau=1.0, fused=fused, **options(Normalized))
    agent.learn(150)
    critic, target, batch = agent.critic, agent.critic_target, th.randn(64, 3)
    critic.set_training_mode(False)
    assert differing(critic.state_dict(), target.state_dict()) == []
    actions = th.zeros(64, 1)
    th.testing.assert_close(target(batch, actions), critic(batch, actions))


class Residual(BaseFeaturesExtractor):
    def __init__(self, space: spaces.Box, skip: bool = True, in_order: bool = True) -> None:
        super().__init__(space, 6)
        parts = {"first": nn.Sequential(nn.Linear(3, 6), nn.Tanh()), "second": nn.Sequential(nn.Linear(6, 6), nn.Tanh())}
        for name in parts if in_order else reversed(parts):
            self.add_module(name, parts[name])
        self.skip = skip

    def forward(self, observations: th.Tensor) -> th.Tensor:
        first = self.first(observations)
        return self.second(first) + first if self.skip else self.second(first)


AGENTS: dict[type, dict[str, Any]] = {
    NBSPSAC: {"mask_side": "both"},
    ReDoSAC: {"policy_kwargs": {"share_features_extractor": False}},
    P3O: {"renew_shared": True},
    CBPPPO: {"policy_kwargs": {"share_features_extractor": False}},
}


def of_residual(cls: type, **extractor: bool) -> dict[str, Any]:
    kwargs = options(Residual)
    kwargs["policy_kwargs"] |= {**AGENTS[cls].get("policy_kwargs", {}), "features_extractor_kwargs": extractor}
    return {**AGENTS[cls], **kwargs}


@pytest.mark.parametrize("cls", [NBSPSAC, ReDoSAC, CBPPPO])
def test_outgoing_weights_past_a_residual_connection_are_an_error_before_anything_is_learned(cls: Any) -> None:
    with pytest.raises(ValueError, match=r"does not read what 'actor.features_extractor.second.1' returns and nothing else"):
        cls("MlpPolicy", "Pendulum-v1", **of_residual(cls))


@pytest.mark.parametrize("cls", [NBSPSAC, P3O])
def test_incoming_weights_ahead_of_a_residual_connection_are_known(cls: Any) -> None:
    agent = cls("MlpPolicy", "Pendulum-v1", **{**of_residual(cls), **({"mask_side": "incoming"} if cls is NBSPSAC else {})})
    method = next(iter(agent.all_interventions))
    layers = (method.networks[0] if cls is NBSPSAC else method.network).layers
    extractor = agent.policy.actor.features_extractor if cls is NBSPSAC else agent.policy.features_extractor
    assert [layer.linear for layer in layers[:2]] == [extractor.first[0], extractor.second[0]]


@pytest.mark.parametrize("cls", AGENTS)
def test_layers_that_are_defined_in_another_order_are_found_in_that_of_the_forward_pass(cls: Any) -> None:
    agent = cls("MlpPolicy", "Pendulum-v1", **of_residual(cls, skip=False, in_order=False))
    method = next(iter(agent.all_interventions))
    first, second, third = (method.networks[0] if cls is NBSPSAC else method.network).layers
    assert [layer.name for layer in (first, second)] == [f"actor.features_extractor.{each}.0" for each in ("first", "second")]
    assert first.consumers == [second.linear]
    assert second.consumers[0] is third.linear
    assert len(second.consumers) == 1 + (cls is P3O)
    if cls is NBSPSAC:
        critic = method.networks[1].layers
        assert (critic[1].n_other_inputs, critic[1].consumers) == (1, [agent.critic.q_networks[0][0]])


class Skipping(ActorCriticPolicy):
    """Its action also depends on the features ahead of its hidden layers."""

    def _build_mlp_extractor(self) -> None:
        super()._build_mlp_extractor()
        body = self.mlp_extractor
        body.forward_actor = lambda features: body.policy_net(features) + features  # type: ignore[method-assign]


def test_a_policy_that_passes_its_layers_by_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"'the output layer' does not read what 'actor.policy_net.1' returns"):
        ReDoPPO(Skipping, "Pendulum-v1", policy_kwargs={"net_arch": [3]}, n_steps=32, batch_size=16)


def test_to_look_at_a_network_leaves_no_trace() -> None:
    """Modes, statistics of batch norms, random streams."""

    class Noisy(BaseFeaturesExtractor):
        def __init__(self, space: spaces.Box) -> None:
            super().__init__(space, 6)
            self.net = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh())

        def forward(self, observations: th.Tensor) -> th.Tensor:
            return self.net(observations + 0 * th.randn_like(observations))

    agent = ContinualSAC("MlpPolicy", "Pendulum-v1", **options(Noisy))
    agent.policy.set_training_mode(True)
    agent.critic.train(False)
    modes = [module.training for module in agent.policy.modules()]
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    state = th.get_rng_state()
    assert len(networks_of(agent)) == 3
    assert th.equal(th.get_rng_state(), state)
    assert [module.training for module in agent.policy.modules()] == modes
    assert differing(agent.policy.state_dict(), before) == []
