#!/usr/bin/env bash
# ViZDoom 1.3.2 with Stable-Baselines3 2.9.2: an episode that runs out of time counts as a death.
#
# Documented: ViZDoom's Gymnasium environments have `treat_episode_timeout_as_truncation` (default True): an episode that
# reaches its time limit is treated as truncated. Gymnasium's API: `terminated` is for the end of the task itself.
# Seen: at the time limit both `terminated` and `truncated` are True (a monster that is hit: terminated only). Stable-
# Baselines3 bootstraps after `truncated and not terminated`, so it takes every time limit for a terminal state of value
# zero, with the option as well as without it. DQN's and PPO's targets are those of a task that ends there.
#
# Takes a minute or two; PyTorch is the larger part (its CPU build has 200 MB). Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.2.6
"$folder/venv/bin/pip" install --quiet stable-baselines3==2.9.2 gymnasium==1.4.0 vizdoom==1.3.2

cd "$folder"
PYTHONWARNINGS=ignore SDL_VIDEODRIVER=dummy "$folder/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv
from vizdoom import gymnasium_wrapper  # noqa: F401  registers the environments

print(f"vizdoom {version('vizdoom')}, gymnasium {version('gymnasium')}, stable-baselines3 {version('stable-baselines3')}")


def end_of_episode(env, seed, policy):
    env.reset(seed=seed)
    for step in range(1, 400):
        _, _, terminated, truncated, _ = env.step(policy())
        if terminated or truncated:
            return step, terminated, truncated


for option in (True, False):
    env = gym.make("VizdoomBasic-v1", treat_episode_timeout_as_truncation=option)
    step, terminated, truncated = end_of_episode(env, 1, lambda: 0)  # stands still until the time is up
    print(f"treat_episode_timeout_as_truncation={option}: step {step}, terminated {terminated}, truncated {truncated}")
    assert step == 300 and terminated and truncated == option

env = gym.make("VizdoomBasic-v1")
rng = np.random.default_rng(0)
step, terminated, truncated = end_of_episode(env, 0, lambda: int(rng.integers(env.action_space.n)))
print(f"the monster is hit: step {step}, terminated {terminated}, truncated {truncated}")
assert step < 300 and terminated and not truncated

vec_env = DummyVecEnv([lambda: gym.make("VizdoomBasic-v1")])
vec_env.seed(1)
vec_env.reset()
done = False
while not done:
    _, _, (done,), (info,) = vec_env.step([0])
print('what Stable-Baselines3 sees at the time limit: info["TimeLimit.truncated"] =', info["TimeLimit.truncated"])
assert not info["TimeLimit.truncated"]
print("As described: no time limit is told apart from an end.")
EOF
