#!/usr/bin/env bash
# Gymnasium 1.4.0: vector NormalizeReward scales the same rewards otherwise in the other autoreset mode.
#
# Documented: `wrappers.vector.NormalizeReward` divides rewards by the standard deviation of their discounted sum. The
# autoreset mode of a vector environment says when it resets a finished episode: NEXT_STEP (the default) or SAME_STEP.
# Seen: in NEXT_STEP, an episode that is truncated passes its sum on to the next one, which adds to it; in SAME_STEP, each
# begins at zero. Ten steps with reward 1 can sum up to 9.6; NEXT_STEP takes the sums to be 96 on average, and its rewards
# are five times smaller. On Pendulum with 50 steps, NEXT_STEP divides by 99 and SAME_STEP by 84, the standard deviation of
# the sums within episodes.
#
# Takes less than a minute and downloads some 20 MB. Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet gymnasium==1.4.0 numpy==2.2.6

cd "$folder"
PYTHONWARNINGS=ignore "$folder/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import NormalizeReward

print(f"gymnasium {version('gymnasium')}, numpy {version('numpy')}")


class Ones(gym.Env):
    """Ten steps with reward 1."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(1, np.float32), 1.0, False, self.steps == 10, {}


def play(make, length, mode, steps):
    """The wrapper's mean and deviation of the discounted sums; those within episodes; the last reward and its normalization."""
    envs = SyncVectorEnv([make] * 4, autoreset_mode=mode)
    normalized = NormalizeReward(envs, gamma=0.99)
    normalized.reset(seed=0)
    normalized.action_space.seed(0)
    sums, within, number = np.zeros(4), [], 0
    for _ in range(steps):
        _, scaled, _, truncated, _ = normalized.step(normalized.action_space.sample())
        if number == length:  # the step after an episode resets in NEXT_STEP, and has no reward
            number, sums = 0, np.zeros(4)
            if mode == AutoresetMode.NEXT_STEP:
                continue
        number += 1
        reward = scaled * np.sqrt(normalized.return_rms.var + normalized.epsilon)
        sums = 0.99 * sums + reward
        within.append(sums)
        assert truncated.all() == (number == length)
    return float(normalized.return_rms.mean), float(np.sqrt(normalized.return_rms.var)), np.mean(within), np.std(within)


tasks = {
    "reward 1, 10 steps": (Ones, 10, 3000),
    "Pendulum-v1, 50 steps": (lambda: gym.make("Pendulum-v1", max_episode_steps=50), 50, 5000),
}
found = {}
for task, (make, length, steps) in tasks.items():
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        mean, deviation, true_mean, true_deviation = found[task, mode.name] = play(make, length, mode, steps)
        print(f"{task}, {mode.name}: sums of {mean:.2f} +- {deviation:.2f}, within episodes {true_mean:.2f} +- {true_deviation:.2f}")
for task in tasks:
    next_step, same_step = found[task, "NEXT_STEP"], found[task, "SAME_STEP"]
    assert abs(same_step[1] / same_step[3] - 1) < 0.02 and abs(next_step[3] / same_step[3] - 1) < 0.1
    assert next_step[1] > 1.1 * same_step[1] and abs(next_step[0]) > 1.5 * abs(same_step[0])
assert found["reward 1, 10 steps", "NEXT_STEP"][1] > 4 * found["reward 1, 10 steps", "SAME_STEP"][1]
print("As described: the same rewards, divided by another number.")
EOF
