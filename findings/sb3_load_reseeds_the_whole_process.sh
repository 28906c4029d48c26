#!/usr/bin/env bash
# Stable-Baselines3 2.9.2: loading a model sets the random numbers of the whole process back to the model's first ones.
#
# Documented: `load()` loads a model from a zip file; `seed` is a parameter of the constructor.
# Seen: `load()` seeds Python's, NumPy's and PyTorch's global generators with the seed that is stored in the file, whatever
# the program has seeded itself. So (1) an agent that continues after loading explores with the random numbers of its
# beginning again; (2) a program that loads another model now and then while it trains, such as an opponent in self-play
# or the best model for an evaluation, gets the same "random" numbers after each load. A model saved without a seed does
# not do this.
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
import random
from importlib.metadata import version

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO

torch.set_num_threads(1)
print(f"stable-baselines3 {version('stable-baselines3')}, torch {version('torch')}")


class Recorder(gym.Env):
    """Observations never change, so an agent that does not learn differs from step to step by its noise only."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-10, 10, (1,), np.float32)

    def __init__(self):
        self.actions = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.actions.append(float(action[0]))
        return np.zeros(1, np.float32), 0.0, False, False, {}


first, second = Recorder(), Recorder()
model = PPO("MlpPolicy", first, seed=1, n_steps=64, learning_rate=0.0)
model.learn(64)
model.save("model")
loaded = PPO.load("model", env=second)
loaded.learn(64, reset_num_timesteps=False)
print("explored in the first 64 steps:      ", [round(action, 3) for action in first.actions[:4]], "...")
print("explored in the 64 steps after load: ", [round(action, 3) for action in second.actions[:4]], "...")
assert first.actions == second.actions

drawn = []
for seed in (10, 20, 30):
    random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
    PPO.load("model")
    drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
print("random, numpy, torch after seeding with 10, 20, 30 and loading:", len(set(drawn)), "different draw(s)")
assert len(set(drawn)) == 1
print("As described: load() reseeds the process with the file's seed.")
EOF
