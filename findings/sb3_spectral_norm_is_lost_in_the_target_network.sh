#!/usr/bin/env bash
# Stable-Baselines3 2.9.2 with PyTorch's spectral_norm: the target network is not normalized, and Q-learning diverges.
#
# Documented: `torch.nn.utils.parametrizations.spectral_norm` keeps the largest singular value of a layer's weight at 1;
# Stable-Baselines3 takes any module as a feature extractor, and DQN's target network is a copy of its Q-network
# (`tau=1.0`), renewed every `target_update_interval` steps.
# Seen: the copy has the weights, not the two vectors by which spectral_norm estimates the singular value (buffers of the
# layer: of those, only BatchNorm's are copied). The target network stays in evaluation mode, in which PyTorch never
# renews them, so they remain those of the first weights. With equal weights, the copy's layer has a norm of 10 instead
# of 1, and its values are six times the original's. As these are the original's targets, its values grow: on CartPole,
# where no return exceeds 100 (gamma 0.99), they pass 2000 in 5000 steps. With the buffers copied as well, they stay at 38.
#
# Takes a minute or two; PyTorch is the larger part (its CPU build has 200 MB). Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.2.6
"$folder/venv/bin/pip" install --quiet stable-baselines3==2.9.2 gymnasium==1.4.0

cd "$folder"
PYTHONWARNINGS=ignore "$folder/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import numpy as np
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

torch.set_num_threads(1)
print(f"stable-baselines3 {version('stable-baselines3')}, torch {version('torch')}")


class Normalized(BaseFeaturesExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, features_dim=64)
        self.layers = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), spectral_norm(nn.Linear(64, 64)), nn.ReLU())

    def forward(self, observations):
        return self.layers(observations)


class CopyBuffers(BaseCallback):
    """What one would expect of a copy."""

    def _on_step(self):
        for own, copy in zip(self.model.q_net.buffers(), self.model.q_net_target.buffers(), strict=True):
            copy.copy_(own)
        return True


def norm(network):
    return torch.linalg.matrix_norm(network.features_extractor.layers[2].weight, 2).item()


observations = torch.as_tensor(np.random.default_rng(0).normal(size=(256, 4)), dtype=torch.float32)
values = {}
for name, callback in (("as it is", None), ("buffers copied as well", CopyBuffers())):
    model = DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"features_extractor_class": Normalized, "net_arch": []}, seed=0,
                learning_rate=1e-3, train_freq=1, target_update_interval=100)
    model.learn(5001, callback=callback)  # the last copy is that of step 5000
    model.q_net.set_training_mode(False)
    own, copy = model.q_net, model.q_net_target
    with torch.no_grad():
        values[name] = own(observations).abs().mean().item(), copy(observations).abs().mean().item()
        print(f"{name}: mean |Q| {values[name][0]:.1f}, of the target network {values[name][1]:.1f}; "
              f"the layer's norm {norm(own):.3f}, in the target network {norm(copy):.3f}")
    if callback is None:
        assert abs(norm(own) - 1) < 0.1 and norm(copy) > 2
        copy.load_state_dict({**own.state_dict(), **dict(copy.named_buffers())})
        with torch.no_grad():
            ratio = (copy(observations).abs().mean() / own(observations).abs().mean()).item()
        print(f"with exactly the same weights: target network / network = {ratio:.2f}")
        assert ratio > 2
assert values["as it is"][0] > 1000 and max(values["buffers copied as well"]) < 150
print("As described: the target network is another function of the same weights, and the values diverge.")
EOF
