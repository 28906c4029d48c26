"""What a hard-masked neuron does on the observations of its task stays as it is, whatever normalizes it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from tagged_tasks import differing
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from sb3_nbsp import NBSPSAC, ContinualSAC
from sb3_nbsp.interventions import GradientMasking, Intervention
from sb3_nbsp.tasks import TaskSequence

LAYERS: dict[str, Any] = {
    "batch norm": lambda: [nn.Linear(3, 12), nn.BatchNorm1d(12), nn.Tanh()],
    "batch norm over all": lambda: [nn.Linear(3, 12), nn.BatchNorm1d(12, momentum=None), nn.Tanh()],
    "one slope for all": lambda: [nn.Linear(3, 12), nn.PReLU()],
    "slopes": lambda: [nn.Linear(3, 12), nn.BatchNorm1d(12), nn.PReLU(12)],
    "weight norm": lambda: [weight_norm(nn.Linear(3, 12)), nn.Tanh()],
    "convolution": lambda: [
        nn.Unflatten(1, (1, 3)),
        nn.Conv1d(1, 12, 2),
        nn.BatchNorm1d(12),
        nn.Tanh(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
    ],
}


class Extractor(BaseFeaturesExtractor):
    def __init__(self, space: Any, layers: Any) -> None:
        super().__init__(space, 12)
        self.net = nn.Sequential(*layers())

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.net(observations)


class Shifted(gym.Env):
    """Two tasks whose observations are far apart."""

    observation_space = gym.spaces.Box(-99, 99, (3,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, shift: float) -> None:
        self._shift = shift

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._step = 0
        return np.full(3, self._shift, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._step += 1
        observation = (self.np_random.normal(size=3) + self._shift).astype(np.float32)
        success = bool(observation.sum() > 3 * self._shift)
        return observation, float(action[0] * observation[0]), False, self._step == 20, {"success": success}


class Before(Intervention):
    """What the features extractors do at the end of the first phase."""

    def on_phase_end(self, phase: Any) -> None:
        if phase.index == 0:
            self._outputs = outputs(self.agent)

    @property
    def outputs(self) -> dict[str, th.Tensor]:
        return self._outputs


def outputs(agent: Any) -> dict[str, th.Tensor]:
    """Of all neurons of the features extractors in evaluation mode, on observations of the first task."""
    observations = th.as_tensor(np.random.default_rng(0).normal(size=(64, 3)), dtype=th.float32)
    agent.policy.set_training_mode(False)
    networks = {"actor": agent.actor, "qf0": agent.critic}
    return {name: each.features_extractor(observations).detach().clone() for name, each in networks.items()}


def agent_with(layers: Any, **options: Any) -> NBSPSAC:
    makers = {"a": lambda **_: Shifted(0.0), "b": lambda **_: Shifted(5.0)}
    env = TaskSequence(makers, cycles=1, steps_per_task=80, mastery_threshold=None)
    kwargs = {"features_extractor_class": Extractor, "features_extractor_kwargs": {"layers": layers}, "net_arch": [8]}
    settings: dict[str, Any] = {"learning_starts": 30, "batch_size": 16, "learning_rate": 1e-2, "tau": 0.5, "seed": 0}
    masking = {"identification_steps": 80, "identification_data": "training", "replay": False, "skill_proportion": 0.5}
    return NBSPSAC("MlpPolicy", env, policy_kwargs=kwargs, **{**settings, **masking, **options})


@pytest.mark.parametrize("name", LAYERS)
def test_what_hard_masked_neurons_do_stays_as_it_is(name: str) -> None:
    before = Before()
    agent = agent_with(LAYERS[name], mask_type="hard", interventions=[before]).learn(160)
    skills = agent.all_interventions.find(GradientMasking).skill_neurons["a"]
    for network, output in outputs(agent).items():
        moved = (output - before.outputs[network]).abs().mean(0)
        skilled = skills[network][:12].bool()
        assert 0 < skilled.sum() < 12
        assert moved[skilled].max() < 1e-6
        assert moved[~skilled].mean() > 1e-3
    for norm, target in zip(agent.batch_norm_stats, agent.batch_norm_stats_target, strict=True):
        assert th.equal(norm, target)


def test_statistics_follow_a_soft_mask() -> None:
    """Over one gradient step they move by the mask times as far as without masks."""
    agent = agent_with(LAYERS["batch norm"], mask_alpha=0.5).learn(80)
    masking, norm = agent.all_interventions.find(GradientMasking), agent.actor.features_extractor.net[1]
    mask = masking.masks["actor.features_extractor.net.0"]
    agent.policy.set_training_mode(True)
    before = norm.running_mean.clone()
    agent.actor.features_extractor(th.randn(32, 3) + 5)
    free = norm.running_mean - before
    masking.after_step("actor")
    assert (mask < 1).any()
    th.testing.assert_close(norm.running_mean - before, mask.float() * free, rtol=1e-4, atol=1e-6)


REFUSED: dict[str, Any] = {
    "ahead of all": lambda: [nn.BatchNorm1d(3), nn.Linear(3, 12), nn.Tanh()],
    "behind the activation": lambda: [nn.Linear(3, 12), nn.Tanh(), nn.BatchNorm1d(12)],
}


@pytest.mark.parametrize("name", REFUSED)
def test_statistics_that_belong_to_no_neuron_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"\(BatchNorm1d\) is not between a layer and its activation function"):
        agent_with(REFUSED[name])


def test_a_weight_whose_rows_depend_on_each_other_is_refused() -> None:
    with pytest.raises(ValueError, match=r"net\.0' cannot be held back one by one"):
        agent_with(lambda: [spectral_norm(nn.Linear(3, 12)), nn.Tanh()])


@pytest.mark.parametrize("name", REFUSED)
def test_without_masks_a_batch_norm_may_be_anywhere(name: str) -> None:
    kwargs = {"features_extractor_class": Extractor, "features_extractor_kwargs": {"layers": REFUSED[name]}}
    options: dict[str, Any] = {"policy_kwargs": {**kwargs, "net_arch": [8]}, "learning_starts": 10, "batch_size": 8}
    plain = SAC("MlpPolicy", "Pendulum-v1", seed=0, **options).learn(14)
    agents = [ContinualSAC("MlpPolicy", "Pendulum-v1", seed=0, fused=fused, **options).learn(14) for fused in (False, True)]
    assert differing(plain.policy.state_dict(), agents[0].policy.state_dict()) == []
    for key, value in plain.policy.state_dict().items():
        th.testing.assert_close(agents[1].policy.state_dict()[key], value, rtol=1e-3, atol=1e-5)
    assert plain._n_updates == 4 and all(norm.any() for norm in agents[0].batch_norm_stats)
