#!/usr/bin/env bash
# HighwayEnv 1.12.1 with the HER of Stable-Baselines3 2.9.2: in four of five transitions, a crash costs nothing.
#
# Documented: `parking-v0` is a goal environment, meant for Stable-Baselines3's hindsight experience replay (HER); its
# `GoalEnv` says that `compute_reward(achieved_goal, desired_goal, info)` always returns the reward of the step. The
# configuration has `collision_reward`, -5, and a crash ends the episode.
# Seen: `step()` adds the -5 after it has called `compute_reward()`, which neither knows of the crash nor looks into `info`
# (where `crashed` is). The two are equal at every step but a crash. HER takes the rewards of the goals it puts in from
# `compute_reward()`; for the last step of an episode, such a goal is the place that was reached. So with the default of
# four such transitions for each one that was played, four of five crashes in a batch have the reward 0, the highest that
# there is, and end the episode: no behaviour has a higher value. So it is with `copy_info_dict=True`, as below. Nothing warns,
# and the returns that are logged have the -5.
#
# Takes a minute or two; PyTorch is the larger part (its CPU build has 200 MB). Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.2.6
"$folder/venv/bin/pip" install --quiet stable-baselines3==2.9.2 gymnasium==1.4.0 highway-env==1.12.1

cd "$folder"
PYGAME_HIDE_SUPPORT_PROMPT=1 "$folder/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import gymnasium as gym
import highway_env  # noqa: F401  registers the environments
import torch
from stable_baselines3 import SAC, HerReplayBuffer

torch.set_num_threads(1)
print(f"highway-env {version('highway-env')}, gymnasium {version('gymnasium')}, stable-baselines3 {version('stable-baselines3')}")

env = gym.make("parking-v0")
env.action_space.seed(0)
env.reset(seed=0)
equal, crashes = 0, []
for _ in range(2000):
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    computed = env.unwrapped.compute_reward(observation["achieved_goal"], observation["desired_goal"], info)
    if reward == computed:
        equal += 1
        assert not info["crashed"]
    else:
        assert info["crashed"] and terminated and abs(reward - computed + 5) < 1e-6
        crashes.append((reward, computed))
    if terminated or truncated:
        env.reset()
print(f"random actions: at {equal} steps, reward and compute_reward() are equal; at the {len(crashes)} crashes they are not, "
      f"the first one has {crashes[0][0]:.2f} and {crashes[0][1]:.2f}")
assert crashes and equal + len(crashes) == 2000

model = SAC("MultiInputPolicy", "parking-v0", replay_buffer_class=HerReplayBuffer, learning_starts=600, seed=0,
            replay_buffer_kwargs={"copy_info_dict": True})
model.learn(600)  # random actions only
batch = model.replay_buffer.sample(20_000)
rewards, crashed = batch.rewards.flatten(), batch.dones.flatten() == 1
free = crashed & (rewards > -5)
assert (rewards[crashed & ~free] < -5).all() and rewards[free].abs().max() < 1e-6 and (rewards[~crashed] > -5).all()
share = (free.sum() / crashed.sum()).item()
print(f"a batch of HER: {int(crashed.sum())} transitions are crashes, {share:.0%} of them without the penalty; mean reward "
      f"{rewards[crashed & ~free].mean():.2f} with, {rewards[free].abs().mean():.2f} without, {rewards[~crashed].mean():.2f} of other steps")
assert 0.7 < share < 0.9 and rewards.max() <= 0
print("As described: to HER, four of five crashes have the highest reward that there is.")
EOF
