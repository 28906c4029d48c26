"""Methods that are other networks: layer norms and concatenated ReLUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.envs import FakeImageEnv
from tagged_tasks import ImageTask, TaggedTask, differing, parameters, tiny
from torch import nn

from sb3_nbsp import (
    ContinualDiscreteSAC,
    ContinualPPO,
    ContinualSAC,
    CReLUDiscreteSAC,
    CReLUPPO,
    CReLUSAC,
    LayerNormDiscreteSAC,
    LayerNormPPO,
    LayerNormSAC,
    ReDoSAC,
)
from sb3_nbsp.interventions import ReDo
from sb3_nbsp.neurons import CReLU


class WithVector(gym.ObservationWrapper):
    """A dictionary of an image and a vector."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.observation_space = spaces.Dict({"image": env.observation_space, "vector": spaces.Box(0, 1, (2,), np.float32)})

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        return {"image": observation, "vector": np.ones(2, dtype=np.float32)}


def images(discrete: bool) -> gym.Env:
    return FakeImageEnv(screen_height=36, screen_width=36, n_channels=1, discrete=discrete)


def env_of(cls: type) -> Any:
    return gym.make("CartPole-v1") if issubclass(cls, ContinualDiscreteSAC) else TaggedTask(1.0)


@pytest.mark.parametrize("cls", [LayerNormSAC, LayerNormDiscreteSAC, LayerNormPPO])
def test_a_layer_norm_in_front_of_every_activation(cls: type, tmp_path: Path) -> None:
    agent = tiny(cls, env_of(cls))
    kinds = [type(each) for each in agent.policy.modules() if isinstance(each, (nn.Linear, nn.LayerNorm, nn.ReLU, nn.Tanh))]
    activation = nn.Tanh if cls is LayerNormPPO else nn.ReLU
    assert kinds.count(nn.LayerNorm) == kinds.count(activation) == (4 if cls is LayerNormPPO else 10)
    assert all(kinds[index - 1 : index + 2] == [nn.Linear, nn.LayerNorm, activation] for index in _places(kinds))
    norms = [each for each in agent.policy.modules() if isinstance(each, nn.LayerNorm)]
    agent.learn(60)
    assert all(not th.equal(norm.weight, th.ones(8)) for norm in norms) and not agent._is_by_hand()
    agent.save(tmp_path / "model")
    assert differing(parameters(cls.load(tmp_path / "model")), parameters(agent)) == []  # type: ignore[attr-defined]
    agent.policy.save(tmp_path / "policy")
    assert differing(type(agent.policy).load(tmp_path / "policy").state_dict(), agent.policy.state_dict()) == []


def _places(kinds: list[type]) -> list[int]:
    return [index for index, kind in enumerate(kinds) if kind is nn.LayerNorm]


@pytest.mark.parametrize("cls", [LayerNormSAC, LayerNormDiscreteSAC, LayerNormPPO])
@pytest.mark.parametrize("kind", ["CnnPolicy", "MultiInputPolicy"])
def test_the_linear_layer_of_a_cnn_has_a_layer_norm(cls: type, kind: str) -> None:
    """Also where the default ``net_arch`` adds no layer behind it; neurons are found, and renewed."""
    small = {} if cls is LayerNormPPO else {"buffer_size": 50}
    env = images(discrete=cls is LayerNormDiscreteSAC)
    env = env if kind == "CnnPolicy" else WithVector(env)
    reset: Any = ReDo(reset_frequency=10, reset_rate=0.3, renew_shared=True)
    agent = tiny(cls, env, policy=kind, policy_kwargs=None, batch_size=4, interventions=[reset], **small)
    extractor = agent.policy.features_extractor if cls is LayerNormPPO else agent.actor.features_extractor
    cnn = extractor if kind == "CnnPolicy" else extractor.extractors["image"]
    assert [type(each) for each in cnn.linear] == [nn.Linear, nn.LayerNorm, nn.ReLU]
    assert not any(isinstance(each, nn.LayerNorm) for each in cnn.cnn)
    agent.learn(25)
    assert not th.equal(cnn.linear[1].weight, th.ones(512))


def test_layer_norm_without_a_layer_is_an_error() -> None:
    for cls in (LayerNormSAC, LayerNormDiscreteSAC, LayerNormPPO):
        with pytest.raises(ValueError, match="layer_norm=True has no hidden layer to normalize: give some with net_arch"):
            tiny(cls, env_of(cls), policy_kwargs={"net_arch": []})


@pytest.mark.parametrize("cls", [CReLUSAC, CReLUDiscreteSAC, CReLUPPO])
def test_crelu_on_the_cnn_of_dictionary_observations(cls: type) -> None:
    small = {} if cls is CReLUPPO else {"buffer_size": 50}
    env = WithVector(images(discrete=cls is CReLUDiscreteSAC))
    agent = tiny(cls, env, policy="MultiInputPolicy", policy_kwargs={"net_arch": [8]}, batch_size=4, **small)
    extractor = agent.policy.features_extractor if cls is CReLUPPO else agent.actor.features_extractor
    assert not any(isinstance(each, nn.ReLU) for each in extractor.modules())
    assert extractor.features_dim == 2 * 256 + 2  # CombinedExtractor's CNN has 256 units
    agent.learn(25)


def test_layer_norm_by_hand() -> None:
    """Pre-activations (1, 3) have mean 2 and variance 1: (-1, 1), and after the ReLU (0, 1)."""
    agent = tiny(LayerNormSAC, TaggedTask(1.0), policy_kwargs={"net_arch": [2]})
    layer = agent.actor.latent_pi[0]
    layer.weight.data.zero_()
    layer.bias.data.copy_(th.tensor([1.0, 3.0]))
    th.testing.assert_close(agent.actor.latent_pi(th.ones(1, 4)), th.tensor([[0.0, 1.0]]), rtol=0, atol=1e-5)


def test_off_it_is_sb3_and_neurons_are_found_with_it() -> None:
    for cls, plain in ((ContinualSAC, SAC), (ContinualPPO, PPO)):
        off = tiny(cls, TaggedTask(1.0), policy_kwargs={"net_arch": [8, 8], "layer_norm": False}, fused=False).learn(60)
        assert differing(parameters(off), parameters(tiny(plain, TaggedTask(1.0)).learn(60))) == []
    with pytest.raises(ValueError, match=r"layer_norm must be one of True, False, not 1\.5"):
        tiny(ContinualSAC, TaggedTask(1.0), policy_kwargs={"layer_norm": 1.5})
    normed = {"net_arch": [8, 8], "layer_norm": True}
    tiny(ReDoSAC, TaggedTask(1.0), policy_kwargs=normed, reset_frequency=30, reset_rate=0.3).learn(60)


@pytest.mark.parametrize("cls", [CReLUSAC, CReLUDiscreteSAC, CReLUPPO])
def test_crelu_on_an_mlp(cls: type) -> None:
    agent = tiny(cls, env_of(cls))
    body = agent.policy.mlp_extractor.policy_net if cls is CReLUPPO else agent.actor.latent_pi
    assert [type(each) for each in body] == [nn.Linear, CReLU] * 2
    assert (body[2].in_features, body[2].out_features) == (16, 8)  # doubled; net_arch=[4, 4] is as wide as a ReLU's
    agent.learn(60)
    with pytest.raises(ValueError, match=r"policy_kwargs: activation_fn of CReLU.* is .*CReLU.*, not .*Tanh"):
        tiny(cls, env_of(cls), policy_kwargs={"activation_fn": nn.Tanh})


@pytest.mark.parametrize("cls", [CReLUSAC, CReLUPPO])
def test_crelu_on_a_cnn(cls: type, tmp_path: Path) -> None:
    """Convolutions of 1 → 32 → 64 → 64 channels read twice as many, and 512 neurons have 1024 features."""
    small = {"buffer_size": 50} if cls is CReLUSAC else {}
    agent = tiny(cls, ImageTask(), policy="CnnPolicy", policy_kwargs={"net_arch": [8]}, batch_size=4, **small)
    extractor = agent.policy.features_extractor if cls is CReLUPPO else agent.actor.features_extractor
    assert [each.in_channels for each in extractor.cnn if isinstance(each, nn.Conv2d)] == [1, 64, 128]
    assert not any(isinstance(each, nn.ReLU) for each in extractor.modules())
    assert extractor.linear[0].in_features == 2 * 64 and extractor.features_dim == 1024
    agent.learn(25)
    observation = ImageTask().reset(seed=0)[0]
    agent.save(tmp_path / "model")
    loaded = cls.load(tmp_path / "model")  # type: ignore[attr-defined]
    assert (loaded.predict(observation, deterministic=True)[0] == agent.predict(observation, deterministic=True)[0]).all()
