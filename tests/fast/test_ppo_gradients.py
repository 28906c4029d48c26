"""PPO's gradients by hand are those of autograd; what they cannot do is left to autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from tagged_tasks import ImageTask
from test_equals_sb3_ppo import SMALL, BinaryTask
from torch import nn

from sb3_nbsp import CBPPPO, P3O, ContinualPPO, CyclePPO, ReDoPPO
from sb3_nbsp.algorithms.autograd_ppo import AutogradPPOGradients, PPOObjective
from sb3_nbsp.fast.mlp_actor_critic import MlpActorCritic, is_mlp_actor_critic
from sb3_nbsp.fast.ppo_gradients import MlpPPOGradients
from sb3_nbsp.interventions import Intervention, Interventions, RecoveryTraining
from sb3_nbsp.neurons import CReLU

BATCH = 32
ACTIONS: dict[str, spaces.Space] = {"continuous": spaces.Box(-1, 1, (2,)), "discrete": spaces.Discrete(4)}


def agent_for(actions: str = "continuous", cls: type[ContinualPPO] = ContinualPPO, **kwargs: Any) -> ContinualPPO:
    return cls(**{"policy": "MlpPolicy", "env": BinaryTask(ACTIONS[actions]), **SMALL, **kwargs})


def batch_for(policy: ActorCriticPolicy, seed: int = 0) -> RolloutBufferSamples:
    """Random observations and actions, which the policy has been a little more or less likely to take."""
    rng = np.random.default_rng(seed)
    observations = th.as_tensor(rng.standard_normal((BATCH, 3)).astype(np.float32))
    with th.no_grad():
        actions = policy(observations)[0].float().reshape(BATCH, -1)
        found = policy.evaluate_actions(observations, actions.flatten() if actions.shape[1] == 1 else actions)
    change = th.as_tensor(rng.uniform(-0.3, 0.3, (4, BATCH)))
    old_values, old_log_prob, advantages = found[0].flatten() + change[0], found[1] + change[1], 3 * change[2]
    return RolloutBufferSamples(observations, actions, old_values, old_log_prob, advantages, 3 * change[3])


@th.no_grad()
def make_outputs_vary(policy: ActorCriticPolicy) -> None:
    """SB3's initial action layer is nearly zero."""
    policy.action_net.weight.mul_(100)
    if hasattr(policy, "log_std"):
        policy.log_std.copy_(th.tensor([-0.4, 0.3]))


OBJECTIVES: dict[str, PPOObjective] = {
    "default": PPOObjective(0.2, None, 0.0, 0.5, True),
    "entropy": PPOObjective(0.2, None, 0.3, 0.7, True),
    "clipped values": PPOObjective(0.1, 0.1, 0.01, 0.5, False),
    "no critic": PPOObjective(0.05, None, 0.1, 0.0, True),
}


def of_both(agent: ContinualPPO, objective: PPOObjective, batch: RolloutBufferSamples) -> list[tuple[dict[str, Any], ...]]:
    """Losses and gradients by hand, and those of autograd."""
    results = []
    by_hand = MlpPPOGradients(MlpActorCritic(agent.policy), objective)
    for gradients in (by_hand, AutogradPPOGradients(agent.policy, objective, Interventions())):
        losses = gradients.losses(batch)
        assert not any(loss.requires_grad for loss in losses.values())
        agent.policy.optimizer.zero_grad()
        gradients.backward()
        found = {name: parameter.grad for name, parameter in agent.policy.named_parameters()}
        assert None not in found.values()
        results.append((losses, {name: grad.clone() for name, grad in found.items() if grad is not None}))
    return results


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("activation_fn", [nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("net_arch", [[], [7], [8, 7, 6], {"pi": [9], "vf": [6, 7]}, {"pi": [], "vf": [5]}])
def test_gradients_are_those_of_autograd(net_arch: Any, activation_fn: type[nn.Module], actions: str, objective: str) -> None:
    agent = agent_for(actions, policy_kwargs={"net_arch": net_arch, "activation_fn": activation_fn})
    make_outputs_vary(agent.policy)
    batch = batch_for(agent.policy)
    (our_losses, our_grads), (their_losses, their_grads) = of_both(agent, OBJECTIVES[objective], batch)
    assert our_losses.keys() == their_losses.keys()
    assert 0 < their_losses["clip_fraction"] < 1
    for name, loss in their_losses.items():
        assert our_losses[name].item() == pytest.approx(loss.item(), rel=1e-6 if name == "clip_fraction" else 1e-10), name
    for name, grad in their_grads.items():
        assert (grad.abs().max() > 0) == (objective != "no critic" or "value" not in name), name
        assert (our_grads[name] - grad).abs().max() <= 1e-10 * grad.abs().max(), name


@pytest.mark.parametrize("actions", ACTIONS)
def test_single_precision(actions: str) -> None:
    agent = agent_for(actions)
    make_outputs_vary(agent.policy)
    (_, ours), (_, theirs) = of_both(
        agent, OBJECTIVES["entropy"], RolloutBufferSamples(*(each.float() for each in batch_for(agent.policy)))
    )
    for name, grad in theirs.items():
        assert ours[name].dtype == th.float32
        assert (ours[name] - grad).abs().max() <= 1e-5 * grad.abs().max(), name


@pytest.mark.parametrize("actions", ACTIONS)
def test_same_draws(actions: str) -> None:
    agent = agent_for(actions)
    make_outputs_vary(agent.policy)
    observations = th.randn(20, 3)
    networks, drawn = MlpActorCritic(agent.policy), []

    def act(some: th.Tensor) -> th.Tensor:
        return networks.distribution.sample(networks.actor.outputs(networks.inputs(some)))

    with th.no_grad():
        for each in (act, lambda some: agent.policy(some)[0]):
            th.manual_seed(3)
            drawn.append((th.cat([each(some) for some in observations.split([1] * 10 + [10])]), th.get_rng_state()))
    assert th.equal(drawn[0][0], drawn[1][0])
    assert th.equal(drawn[0][1], drawn[1][1])


class Harmless(Intervention):
    def before_step(self, network: Any) -> None:
        pass


class Penalty(Intervention):
    def penalty(self, network: Any) -> th.Tensor | None:
        return None


class OwnDefaults(ActorCriticPolicy):
    """Its forward pass is SB3's."""


class OwnPolicy(ActorCriticPolicy):
    def evaluate_actions(self, *args: Any) -> Any:
        return super().evaluate_actions(*args)


class OwnExtractor(FlattenExtractor):
    pass


def share_a_layer(agent: Any) -> None:
    agent.policy.mlp_extractor.value_net[2] = agent.policy.mlp_extractor.policy_net[2]


def own_method(agent: Any) -> None:
    agent.policy.evaluate_actions = agent.policy.evaluate_actions


def weight_norm(agent: Any) -> None:
    nn.utils.parametrizations.weight_norm(agent.policy.action_net)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "shared layer": share_a_layer,
    "layer norm": lambda agent: agent.policy.mlp_extractor.policy_net.append(nn.LayerNorm(64)),
    "own action layer": lambda agent: setattr(agent.policy, "action_net", nn.Sequential(agent.policy.action_net)),
    "frozen": lambda agent: agent.policy.log_std.requires_grad_(False),
    "forward hook": lambda agent: agent.policy.mlp_extractor.policy_net[1].register_forward_hook(lambda *_: None),
    "hook of the critic": lambda agent: agent.policy.value_net.register_forward_pre_hook(lambda *_: None),
    "backward hook": lambda agent: agent.policy.register_full_backward_hook(lambda *_: None),
    "hook of a parameter": lambda agent: agent.policy.action_net.weight.register_hook(lambda grad: 2 * grad),
    "own method": own_method,
    "own penalty": lambda agent: setattr(agent.all_interventions._all[0], "penalty", lambda network: None),
    "mixed precision": lambda agent: agent.policy.value_net.double(),
    "half precision": lambda agent: agent.policy.bfloat16(),
    "weight norm": weight_norm,
    "own draws": lambda agent: setattr(agent.policy.action_dist, "sample", agent.policy.action_dist.mode),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_networks_are_left_to_autograd(name: str) -> None:
    agent = agent_for(interventions=[Harmless()])
    assert isinstance(agent._make_gradients(), MlpPPOGradients)
    CHANGES[name](agent)
    assert isinstance(agent._make_gradients(), AutogradPPOGradients)
    assert is_mlp_actor_critic(agent.policy) == (name == "own penalty")


class Numbered(BinaryTask):
    observation_space = spaces.Discrete(4)  # type: ignore[assignment]

    def reset(self, **kwargs: Any) -> Any:
        return 1, super().reset(**kwargs)[1]

    def step(self, action: Any) -> Any:
        return 2, *super().step(action)[1:]


def arch(**kwargs: Any) -> dict[str, Any]:
    return {"policy_kwargs": {"net_arch": [8, 8], **kwargs}}


OPTIONS: dict[str, tuple[dict[str, Any], type]] = {
    "default": ({}, MlpPPOGradients),
    "P3O": ({"cls": P3O}, MlpPPOGradients),
    "cycle": ({"cls": CyclePPO}, MlpPPOGradients),
    "ReDo": ({"cls": ReDoPPO, "reset_rate": 0.1}, MlpPPOGradients),
    "SB3's own class of policy": ({"policy": ActorCriticPolicy}, MlpPPOGradients),
    "ReLU, extractors apart": (arch(activation_fn=nn.ReLU, share_features_extractor=False), MlpPPOGradients),
    "discrete": ({"actions": "discrete"}, MlpPPOGradients),
    "recovery training": ({"interventions": [RecoveryTraining()]}, MlpPPOGradients),
    "not fused": ({"fused": False}, AutogradPPOGradients),
    "CBP watches activations": ({"cls": CBPPPO}, AutogradPPOGradients),
    "penalty": ({"interventions": [Harmless(), Penalty()]}, AutogradPPOGradients),
    "subclass with SB3's forward pass": ({"policy": OwnDefaults}, MlpPPOGradients),
    "own policy": ({"policy": OwnPolicy}, AutogradPPOGradients),
    "gSDE": ({"use_sde": True}, AutogradPPOGradients),
    "CReLU": (arch(activation_fn=CReLU), AutogradPPOGradients),
    "numbers": ({"env": Numbered(ACTIONS["discrete"])}, AutogradPPOGradients),
    "own extractor": (arch(features_extractor_class=OwnExtractor), AutogradPPOGradients),
    "multi-binary": ({"env": BinaryTask(spaces.MultiBinary(3))}, AutogradPPOGradients),
    "images": (
        {"policy": "CnnPolicy", "env": ImageTask(), **arch(features_extractor_kwargs={"features_dim": 4})},
        AutogradPPOGradients,
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_way_follows_the_options(name: str) -> None:
    kwargs, expected = OPTIONS[name]
    agent = agent_for(**kwargs)
    assert type(agent._make_gradients()) is expected
    before = [parameter.detach().clone() for parameter in agent.policy.parameters()]
    agent.learn(32)
    assert any((old != new).any() for old, new in zip(before, agent.policy.parameters(), strict=True))
