#!/usr/bin/env bash
# sb3-extra-buffers 0.5.0: with its defaults, the compressed replay buffer cuts float observations to bytes, in silence.
#
# Documented: "Replay buffers that store compressed observations", in place of Stable-Baselines3's `ReplayBuffer`, which
# they extend; its methods of compression (run lengths by default) are lossless.
# Seen: without `dtypes=` the elements are `uint8`, whatever the observation space. An agent on Pendulum then learns from
# observations such as (0, 0, 255) where the environment said (0.65, 0.76, -1.2): no error, no warning, samples of the right
# shape and type. With `dtypes=dict(elem_type=np.float32, ...)` the same buffer returns what was stored.
#
# Takes a minute or two; PyTorch is the larger part (its CPU build has 200 MB). Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.2.6
"$folder/venv/bin/pip" install --quiet stable-baselines3==2.9.2 gymnasium==1.4.0 sb3-extra-buffers==0.5.0

"$folder/venv/bin/python" - <<'EOF'
import warnings
from importlib.metadata import version

import gymnasium as gym
import numpy as np
import torch
from sb3_extra_buffers.compressed import CompressedReplayBuffer
from stable_baselines3 import SAC

torch.set_num_threads(1)
print(f"sb3-extra-buffers {version('sb3-extra-buffers')}, stable-baselines3 {version('stable-baselines3')}")


def stored(**buffer_options):
    """What SAC meets in 100 steps of Pendulum and what its buffer gives back, with the warnings on the way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        env = gym.make("Pendulum-v1")
        options = {"replay_buffer_class": CompressedReplayBuffer, "replay_buffer_kwargs": buffer_options}
        met = []
        model = SAC("MlpPolicy", env, learning_starts=1000, buffer_size=100, seed=0, **options)
        model.learn(100, callback=lambda variables, _: met.append(variables["self"]._last_obs[0].copy()) or True)
        returned = model.replay_buffer._get_samples(np.arange(100), env=None).observations.cpu().numpy()
    about_this = [str(w.message) for w in caught if "dtype" in str(w.message) or "uint8" in str(w.message)]
    return np.array(met), returned, about_this


met, returned, warned = stored()
print("met:              ", met[0])
print("returned:         ", returned[0], returned.dtype, "- warnings about it:", len(warned))
print("all values that the buffer returns:", np.unique(returned))
met2, right, _ = stored(dtypes={"elem_type": np.float32, "runs_type": np.uint16})
print("with float32 said:", right[0])
assert not warned
assert np.array_equal(met2, right)
assert met.shape == returned.shape and np.abs(met - returned).max() > 1
assert np.array_equal(returned, np.rint(returned))
print("As described: only whole numbers come back.")
EOF
