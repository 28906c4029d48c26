"""
What a renewal of neurons may change, worked out neuron by neuron from the definitions, for the tests of all methods that
renew neurons. Nothing in here uses the package's own view of layers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from tagged_tasks import ImageTask, TaggedTask
from torch import nn
from torch.nn import functional as F

from sb3_nbsp import ContinualPPO, ContinualSAC
from sb3_nbsp.interventions import Intervention
from sb3_nbsp.neurons import CReLU

Parameters = dict[str, th.Tensor]


class SmallCnn(BaseFeaturesExtractor):
    """Two convolutions, with several positions in front of the flatten: 36 × 36 → 9 × 9 → 4 × 4."""

    def __init__(self, observation_space: Any, features_dim: int = 5) -> None:
        super().__init__(observation_space, features_dim)
        convolutions = [nn.Conv2d(1, 3, 4, 4), nn.ReLU(), nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten()]
        self.net = nn.Sequential(*convolutions, nn.Linear(4 * 16, features_dim), nn.ReLU())

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.net(observations)


@dataclass
class SlowLayer:
    """Names in the policy of a hidden layer and of those that read it."""

    name: str
    readers: list[str]
    n_neurons: int
    features: int = 1  # per neuron
    stride: int = 0  # of a convolution; 0 for a linear layer


@dataclass
class Case:
    """An agent, and what its actor is made of."""

    cls: type
    env: Callable[[], Any]
    layers: list[SlowLayer]
    function: Callable[[th.Tensor], th.Tensor]
    policy_kwargs: dict[str, Any] = field(default_factory=dict)
    policy: str = "MlpPolicy"
    reset_options: dict[str, Any] = field(default_factory=dict)

    def agent(self, interventions: list[Intervention], **kwargs: Any) -> Any:
        options: dict[str, Any] = {"batch_size": 16, "learning_rate": 3e-3, "seed": 0, "device": "cpu"}
        if issubclass(self.cls, ContinualPPO):
            options.update(n_steps=64, n_epochs=2)
        else:
            options.update(learning_starts=20, buffer_size=1000)
        arguments = {"policy_kwargs": copy.deepcopy(self.policy_kwargs), "interventions": interventions}
        return self.cls(self.policy, self.env(), **{**options, **arguments, **kwargs})

    def features(self, parameters: Parameters, observations: th.Tensor) -> list[th.Tensor]:
        """Outputs of all layers' activation functions."""
        signal = observations.float() / (255 if observations.dim() == 4 else 1)
        outputs = []
        for layer in self.layers:
            weight, bias = parameters[f"{layer.name}.weight"], parameters[f"{layer.name}.bias"]
            if layer.stride:
                signal = F.conv2d(signal, weight, bias, layer.stride)
            else:
                signal = signal.flatten(1)
                columns = [
                    sum(weight[j, i] * signal[:, i] for i in range(weight.shape[1])) + bias[j] for j in range(len(weight))
                ]
                signal = th.stack(columns, 1)
            signal = self.function(signal)
            outputs.append(signal)
        return outputs


def crelu(x: th.Tensor) -> th.Tensor:
    return th.cat([x.clamp(min=0), (-x).clamp(min=0)], 1)


def _mlp(cls: type, activation: type[nn.Module], function: Any) -> Case:
    features = 2 if activation is CReLU else 1
    if cls is ContinualPPO:
        net, heads, arch = "mlp_extractor.policy_net", ["action_net"], {"pi": [7, 6], "vf": [5]}
    else:
        net, heads, arch = "actor.latent_pi", ["actor.mu", "actor.log_std"], {"pi": [7, 6], "qf": [5]}
    layers = [SlowLayer(f"{net}.0", [f"{net}.2"], 7, features), SlowLayer(f"{net}.2", heads, 6, features)]
    return Case(cls, lambda: TaggedTask(1.0), layers, function, {"net_arch": arch, "activation_fn": activation})


_NET = "features_extractor.net"
CASES = {
    "ppo-tanh": _mlp(ContinualPPO, nn.Tanh, th.tanh),
    "ppo-relu": _mlp(ContinualPPO, nn.ReLU, th.relu),
    "ppo-crelu": _mlp(ContinualPPO, CReLU, crelu),
    "sac-relu": _mlp(ContinualSAC, nn.ReLU, th.relu),
    "sac-crelu": _mlp(ContinualSAC, CReLU, crelu),
    "ppo-conv": Case(
        ContinualPPO,
        ImageTask,
        [
            SlowLayer(f"{_NET}.0", [f"{_NET}.2"], 3, stride=4),
            SlowLayer(f"{_NET}.2", [f"{_NET}.5"], 4, stride=2),
            SlowLayer(f"{_NET}.5", ["action_net", "value_net"], 5),
        ],
        th.relu,
        {"features_extractor_class": SmallCnn, "net_arch": []},
        "CnnPolicy",
        {"renew_shared": True},
    ),
}


def mean_of_feature(output: th.Tensor, feature: int, magnitude: bool) -> float:
    values = output[:, feature].double().flatten().tolist()
    return float(np.mean([abs(value) for value in values] if magnitude else values))


def owned_features(layer: SlowLayer, neuron: int) -> list[int]:
    return [neuron + k * layer.n_neurons for k in range(layer.features)]


def columns_of(layer: SlowLayer, feature: int, weight: th.Tensor) -> list[int]:
    """Columns of a reader's weight that multiply a feature; several behind a flatten."""
    positions = weight.shape[1] // (layer.features * layer.n_neurons)
    return list(range(feature * positions, (feature + 1) * positions))


@dataclass
class Picture:
    """Parameters and moments of an agent."""

    parameters: Parameters
    moments: dict[str, dict[str, th.Tensor]]

    @classmethod
    def take(cls, agent: Any) -> Picture:
        named = dict(agent.policy.named_parameters())
        own = [agent.policy] if isinstance(agent, ContinualPPO) else [agent.actor, agent.critic]
        optimizers = [each.optimizer for each in own]
        moments = {}
        for name, parameter in named.items():
            for state in [optimizer.state.get(parameter, {}) for optimizer in optimizers]:
                if state:
                    moments[name] = {key: state[key].clone() for key in ("exp_avg", "exp_avg_sq")}
        return cls({name: parameter.detach().clone() for name, parameter in named.items()}, moments)


def check_renewal(
    before: Picture,
    after: Picture,
    layers: list[SlowLayer],
    chosen: list[list[int]],
    cuts: bool,
    means: list[dict[int, float]] | None = None,
) -> None:
    """
    The renewal changed what it should, and nothing else.

    :param chosen: neurons of each layer
    :param cuts: outgoing weights become zero
    :param means: for each layer the mean of every feature of a chosen neuron, which moves into the readers' biases
    """
    expected, moved = copy.deepcopy(before), set()
    for index, layer in enumerate(layers):
        for neuron in chosen[index]:
            _draw_anew(layer, neuron, expected, before, after)
        for neuron in chosen[index] if cuts else []:
            for reader in layer.readers:
                if means is not None:
                    moved.add(f"{reader}.bias")
                _cut(layer, neuron, reader, expected, None if means is None else means[index])
    for name, tensor in expected.parameters.items():
        if name in moved:
            th.testing.assert_close(after.parameters[name], tensor, rtol=1e-4, atol=1e-6)
        else:
            assert th.equal(after.parameters[name], tensor), name
    for name, state in expected.moments.items():
        for key, moment in state.items():
            assert th.equal(after.moments[name][key], moment), (name, key)


def _draw_anew(layer: SlowLayer, neuron: int, expected: Picture, before: Picture, after: Picture) -> None:
    for part in ("weight", "bias"):
        name = f"{layer.name}.{part}"
        fresh = after.parameters[name][neuron]
        assert part == "bias" or not th.equal(fresh, before.parameters[name][neuron])
        expected.parameters[name][neuron] = fresh  # random: taken as it is
        for moment in expected.moments[name].values():
            moment[neuron] = 0


def _cut(layer: SlowLayer, neuron: int, reader: str, expected: Picture, means: dict[int, float] | None) -> None:
    weight, bias = expected.parameters[f"{reader}.weight"], expected.parameters[f"{reader}.bias"]
    for feature in owned_features(layer, neuron):
        for column in columns_of(layer, feature, weight):
            for unit in range(len(weight)) if means is not None else []:
                bias[unit] += weight[unit, column].sum() * means[feature]
            weight[:, column] = 0
            for moment in expected.moments[f"{reader}.weight"].values():
                moment[:, column] = 0


class Probe(Intervention):
    """Takes pictures around the steps of a network and calls of train()."""

    def __init__(self, network: str = "actor") -> None:
        self.network = network
        self._pictures: dict[str, list[Picture]] = {}

    def _take(self, when: str) -> None:
        self._pictures.setdefault(when, []).append(Picture.take(self.agent))

    @property
    def pictures(self) -> dict[str, list[Picture]]:
        return self._pictures

    def before_step(self, network: Any) -> None:
        if network == self.network:
            self._take("before step")

    def after_step(self, network: Any) -> None:
        if network == self.network:
            self._take("after step")

    def after_train(self) -> None:
        self._take("after train")


def record_batches(monkeypatch: Any) -> list[th.Tensor]:
    """The observations of all minibatches from now on."""
    batches: list[th.Tensor] = []

    def recorded(method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            samples = method(*args, **kwargs)
            batches.append(samples.observations.clone())
            return samples

        return call

    monkeypatch.setattr(RolloutBuffer, "_get_samples", recorded(RolloutBuffer._get_samples))
    monkeypatch.setattr(ReplayBuffer, "sample", recorded(ReplayBuffer.sample))
    return batches


def chosen_between(before: dict[str, th.Tensor], after: dict[str, th.Tensor]) -> list[list[int]]:
    """Which neurons' counts of resets have risen."""
    return [th.nonzero(after[name] - before[name]).flatten().tolist() for name in before]
