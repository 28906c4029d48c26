#!/usr/bin/env bash
# NS-Gym 1.0.12 on MuJoCo: a floor that is made slippery changes nothing, to the last bit.
#
# Documented: NS-Gym makes Gymnasium's tasks non-stationary by changing their parameters over time; `floor_friction` is one
# of the parameters it offers for Hopper-v5 and HalfCheetah-v5.
# Seen: a floor whose friction goes from 1.0 to 0.1 (Hopper) or from 0.4 to 0.1 (HalfCheetah) gives the same observations as
# the unchanged floor, bit for bit, while NS-Gym reports the change in every step. MuJoCo takes the larger friction of the
# two geoms that touch, and the robot's own is no smaller than the floor's (Hopper's foot: 2.0). Only values above it count.
#
# Takes a minute or two and downloads some 40 MB. Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet gymnasium==1.4.0 mujoco==3.3.0 imageio packaging numpy==2.2.6 scipy pyyaml
# --no-deps: NS-Gym's other requirements (PyTorch, Stable-Baselines3, TensorBoard) are for its own agents
"$folder/venv/bin/pip" install --quiet --no-deps ns-gym==1.0.12

"$folder/venv/bin/python" - <<'EOF'
import warnings
from importlib.metadata import version

import gymnasium as gym
import numpy as np
from ns_gym.schedulers import ContinuousScheduler
from ns_gym.update_functions import IncrementUpdate
from ns_gym.wrappers import MujocoWrapper

warnings.filterwarnings("ignore")


def play(env_id, change):
    """300 random steps; the floor's friction changes by ``change`` at the first one."""
    once = IncrementUpdate(ContinuousScheduler(start=0, end=0), k=change)
    env = MujocoWrapper(gym.make(env_id), {"floor_friction": once}, change_notification=True)
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (300, *env.action_space.shape))
    observations, friction, told = [], None, 0
    for action in actions:
        observation, _, terminated, _, _ = env.step(action)
        observations.append(observation["state"])
        told += observation["env_change"]["floor_friction"]
        friction = friction or float(env.unwrapped.model.geom("floor").friction[0])
        if terminated:
            break
    return np.array(observations), friction, told


print(f"ns_gym {version('ns_gym')}, mujoco {version('mujoco')}, gymnasium {version('gymnasium')}")
for env_id, lower in (("Hopper-v5", -0.9), ("HalfCheetah-v5", -0.3)):
    unchanged, normal, _ = play(env_id, 0.0)
    slippery, low, told = play(env_id, lower)
    rough, high, _ = play(env_id, 3.0)
    n = min(len(unchanged), len(rough))
    difference = np.abs(unchanged[:n] - rough[:n]).max()
    print(f"{env_id}: floor friction {normal:.1f} -> {low:.1f}, announced {told} time(s): observations differ by",
          np.abs(unchanged - slippery).max(), f"in {len(unchanged)} steps; with {high:.1f} by {difference:.3g}")
    assert told and low < normal
    assert np.array_equal(unchanged, slippery)
    assert difference > 0.01
print("As described: a lower friction of the floor has no effect.")
EOF
