"""The networks of an agent: which neurons they have, who reads them, what moves them."""

from __future__ import annotations

from typing import Any

import pytest
import torch as th
from stable_baselines3 import PPO, SAC
from tagged_tasks import ImageTask
from torch import nn

from sb3_nbsp.interventions.networks import ActorNetwork, actor_of, networks_of


def make(cls: Any, env: Any = "Pendulum-v1", policy: str = "MlpPolicy", **policy_kwargs: Any) -> Any:
    kwargs = {"buffer_size": 100} if cls is SAC else {"n_steps": 8, "batch_size": 8}
    return cls(policy, env, device="cpu", seed=0, policy_kwargs={"net_arch": [6, 5], **policy_kwargs}, **kwargs)


def described(networks: list[Any]) -> list[tuple[str, str, list[tuple[str, int]]]]:
    return [(net.name, net.role, [(layer.name, layer.n_neurons) for layer in net.layers]) for net in networks]


def test_of_sac() -> None:
    model = make(SAC)
    networks = networks_of(model)
    assert described(networks) == [
        ("actor", "actor", [("actor.latent_pi.0", 6), ("actor.latent_pi.2", 5)]),
        ("qf0", "critic", [("critic.qf0.0", 6), ("critic.qf0.2", 5)]),
        ("qf1", "critic", [("critic.qf1.0", 6), ("critic.qf1.2", 5)]),
    ]
    actor, *critics = networks
    assert actor.optimizer is model.actor.optimizer and all(each.optimizer is model.critic.optimizer for each in critics)
    assert {*map(id, actor.own)} == {*map(id, model.actor.parameters())}
    assert {*map(id, [*critics[0].own, *critics[1].own])} == {*map(id, model.critic.parameters())}


def test_of_ppo() -> None:
    model = make(PPO)
    actor, critic = networks_of(model)
    assert described([actor, critic]) == [
        ("actor", "actor", [("actor.policy_net.0", 6), ("actor.policy_net.2", 5)]),
        ("critic", "critic", [("critic.value_net.0", 6), ("critic.value_net.2", 5)]),
    ]
    assert actor.optimizer is critic.optimizer is model.policy.optimizer
    assert {*map(id, [*actor.own, *critic.own])} == {*map(id, model.policy.parameters())}
    assert not {*map(id, actor.own)} & {*map(id, critic.own)}
    assert critic.initializer == actor.initializer
    assert [each.out_features for each in critic.layers[-1].consumers] == [1]  # type: ignore[union-attr]
    observations = th.randn(4, 3)
    assert th.equal(critic.forward(observations, th.zeros(4, 1)), model.policy.predict_values(observations))  # type: ignore[arg-type]


def test_the_layers_of_an_extractor_are_of_both_or_of_neither() -> None:
    model = make(PPO, ImageTask(1.0), "CnnPolicy")
    actor, critic = networks_of(model)
    convolutions = [("cnn.0", 32), ("cnn.2", 64), ("cnn.4", 64), ("linear.0", 512)]
    for net, name in ((actor, "actor"), (critic, "critic")):
        expected = [(f"{name}.features_extractor.{layer}", width) for layer, width in convolutions]
        assert [(layer.name, layer.n_neurons) for layer in net.layers[:4]] == expected
        readers = {id(each) for each in net.layers[3].consumers}
        assert readers == {id(model.policy.mlp_extractor.policy_net[0]), id(model.policy.mlp_extractor.value_net[0])}
    assert [len(net.layers) for net in networks_of(model, shared=False)] == [2, 2]
    own = make(PPO, ImageTask(1.0), "CnnPolicy", share_features_extractor=False)
    actor, critic = networks_of(own, shared=False)
    assert [len(net.layers) for net in (actor, critic)] == [6, 6]
    assert {id(each) for each in critic.layers[3].consumers} == {id(own.policy.mlp_extractor.value_net[0])}
    assert {*map(id, own.policy.vf_features_extractor.parameters())} <= {*map(id, critic.own)}


def test_the_actor_alone_does_not_look_at_the_critic() -> None:
    class Odd(nn.Module):
        def forward(self, values: th.Tensor) -> th.Tensor:
            return values.cumsum(1)

    model = make(PPO)
    model.policy.mlp_extractor.value_net.append(Odd())
    assert isinstance(actor_of(model), ActorNetwork)
    with pytest.raises(ValueError, match="Odd"):
        networks_of(model)


def test_frozen_parameters_are_its_own_but_not_to_be_trained() -> None:
    (actor, *_) = networks_of(make(SAC))
    actor.own[0].requires_grad_(False)
    assert len(actor.parameters) == len(actor.own) - 1
