#!/usr/bin/env bash
# POPGym 1.0.7: the first observation of `VelocityOnlyCartPole` is the position and the angle.
#
# Documented: the environment takes the position of the cart and the angle of the pole out of the observation, so that it
# can only be solved with memory.
# Seen: `step()` returns the two velocities, `reset()` the position and the angle, in the same two places. Nothing tells
# them apart: all four begin between -0.05 and 0.05. What was to be hidden can be kept from there: a policy that adds up
# the velocities, starting from the first observation, has position and angle within 0.001 for the whole episode. From the
# velocities alone it is off by up to 0.05, about a quarter of the angle at which the pole counts as fallen. And a policy
# that takes the first observation for velocities, as all others are, is wrong. The same in all three difficulties.
#
# Takes a minute or two and downloads some 20 MB. Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet popgym==1.0.7 gymnasium==1.4.0 numpy==2.2.6

PYTHONWARNINGS=ignore "$folder/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import numpy as np
from popgym.envs import velocity_only_cartpole

print(f"popgym {version('popgym')}, gymnasium {version('gymnasium')}")
POSITIONS, VELOCITIES = [0, 2], [1, 3]  # in the state of CartPole

for difficulty in ("Easy", "Medium", "Hard"):
    env = getattr(velocity_only_cartpole, f"VelocityOnlyCartPole{difficulty}")()
    errors = {"the first observation": 0.0, "zero": 0.0}
    steps = 0
    for seed in range(50):
        observation, _ = env.reset(seed=seed)
        state = np.array(env.unwrapped.state, dtype=np.float32)
        assert np.array_equal(observation, state[POSITIONS]) and not np.array_equal(observation, state[VELOCITIES])
        assert np.abs(state).max() <= 0.05
        positions = {"the first observation": observation, "zero": np.zeros(2)}
        velocity, over = np.zeros(2), False
        while not over:
            # A controller of velocities and of the positions that are reckoned from them
            (x, angle), (speed, rotation) = positions["the first observation"], velocity
            action = int(0.05 * x + 0.2 * speed + 2 * angle + 0.5 * rotation > 0)
            positions = {start: position + env.unwrapped.tau * velocity for start, position in positions.items()}
            velocity, _, terminated, truncated, _ = env.step(action)
            state = np.array(env.unwrapped.state, dtype=np.float32)
            assert np.array_equal(velocity, state[VELOCITIES])
            for start, position in positions.items():
                errors[start] = max(errors[start], float(np.abs(position - state[POSITIONS]).max()))
            steps += 1
            over = terminated or truncated
    print(f"{difficulty}: 50 of 50 first observations are position and angle, {steps} of {steps} others are velocities; largest error "
          "of positions reckoned from " + ", ".join(f"{start}: {error:.4f}" for start, error in errors.items()))
    assert steps == 50 * env.max_episode_length  # all episodes end at their time limit
    assert errors["the first observation"] < 0.00101 and errors["zero"] > 0.04
print(f"the pole counts as fallen at an angle of {env.unwrapped.theta_threshold_radians:.4f}")
print("As described: the first observation is what the environment is to hide.")
EOF
