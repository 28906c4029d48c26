"""Weight clipping: the bounds by hand, and that all parameters keep to them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch as th
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.envs import FakeImageEnv
from tagged_tasks import TaggedTask, differing, parameters, tagged_sequence, tiny

from sb3_nbsp import ContinualSAC, PackNetSAC, WeightClippingPPO, WeightClippingSAC
from sb3_nbsp.interventions import PlasticityInjection, WeightClipping
from sb3_nbsp.interventions.base import NETWORKS


def test_by_hand() -> None:
    """256 inputs, κ = 3: 3 / √256 = 0.1875, for the bias, too. Target critics are left to averaging."""
    agent = tiny(WeightClippingSAC, TaggedTask(1.0), policy_kwargs={"net_arch": [256, 256]})
    for each in agent.policy.parameters():
        each.data.copy_(th.linspace(-1, 1, each.numel()).view_as(each))
    agent.all_interventions.find(WeightClipping).after_step("actor")
    assert agent.actor.latent_pi[2].weight.min() == -0.1875 and agent.actor.latent_pi[2].bias.max() == 0.1875
    assert agent.actor.latent_pi[0].bias.abs().max() == 1  # 3 / √4
    assert agent.critic.qf0[2].weight.max() == 1
    agent.all_interventions.find(WeightClipping).after_step("critic")
    assert agent.critic.qf0[2].weight.max() == 0.1875 and agent.critic_target.qf0[2].weight.max() == 1


def test_a_convolution_has_the_inputs_of_its_kernel() -> None:
    """32 channels of 4×4."""
    env = FakeImageEnv(screen_height=36, screen_width=36, n_channels=1)
    agent = WeightClippingPPO("CnnPolicy", env, n_steps=8, batch_size=8, device="cpu")
    convolution = agent.policy.features_extractor.cnn[2]
    convolution.weight.data.fill_(1.0)
    for network in NETWORKS:
        agent.all_interventions.find(WeightClipping).after_step(network)
    assert convolution.weight.max().item() == pytest.approx(3 / math.sqrt(32 * 4 * 4))


@pytest.mark.parametrize(("cls", "plain"), [(WeightClippingSAC, SAC), (WeightClippingPPO, PPO)])
def test_learning_keeps_to_the_bounds_and_without_them_it_is_sb3(cls: type, plain: type) -> None:
    agent = tiny(cls, TaggedTask(1.0), clip_factor=0.5).learn(100)
    layers = [each for each in agent.policy.modules() if isinstance(each, th.nn.Linear)]
    of_targets = set(agent.critic_target.modules()) if plain is SAC else set()
    bounds = [(0.5 / math.sqrt(each.in_features), each) for each in layers if each not in of_targets]
    assert all(parameter.abs().max() <= bound * (1 + 1e-6) for bound, each in bounds for parameter in each.parameters())
    free = tiny(cls, TaggedTask(1.0), clip_factor=math.inf, fused=False).learn(100)
    assert differing(parameters(free), parameters(tiny(plain, TaggedTask(1.0)).learn(100))) == []


def test_layers_that_are_injected_keep_to_them() -> None:
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[PlasticityInjection(), WeightClipping(0.01)]).learn(100)
    learning = [each for each in agent.actor.parameters() if each.requires_grad]
    assert len(learning) == 8 and max(each.abs().max().item() for each in learning) <= 0.01 / math.sqrt(4)


def test_a_wrong_factor_is_named() -> None:
    with pytest.raises(ValueError, match="clip_factor must be a number in"):
        WeightClipping(0)


def test_what_others_keep_for_earlier_tasks_is_not_clipped_later(tmp_path: Path) -> None:
    """From the first phase on it is within the bounds."""
    agent = tiny(PackNetSAC, tagged_sequence(), retrain_steps=2).learn(80)
    agent.save(tmp_path / "model")
    kept = parameters(agent)
    for factor in (0.5, 0.9):
        loaded = PackNetSAC.load(tmp_path / "model", env=tagged_sequence(), interventions=[WeightClipping(factor)])
        with pytest.raises(ValueError, match=rf"clip_factor={factor} would clip weights of the actor that PackNet keeps"):
            loaded.learn(5)
        assert differing(kept, parameters(loaded)) == []
    PackNetSAC.load(tmp_path / "model", env=tagged_sequence(), interventions=[WeightClipping(50.0)]).learn(5)
    clipped = tiny(PackNetSAC, tagged_sequence(), retrain_steps=2, interventions=[WeightClipping(0.5)])
    clipped.learn(80)
    clipped.learn(5, reset_num_timesteps=False)
