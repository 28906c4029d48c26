#!/usr/bin/env bash
# CARL 1.1.1: the mass of the cart in CARLCartPole and the gravity of CARLPendulum have no effect.
#
# Documented: CARL makes contextual tasks of Gymnasium's; the context features of CARLCartPole include `masscart` (0.1 to
# 10), those of CARLPendulum `gravity`.
# Seen: a cart of 10 kg moves exactly like one of 0.1 kg, although the context, which is part of the observation, shows the
# mass that was asked for. CARL sets attributes of Gymnasium's environment, whose dynamics read `total_mass`; that was
# computed when the environment was made. Pendulum's dynamics read `g`, another context feature, and nothing reads
# `gravity`. A study of generalization over these features measures none.
#
# Takes a minute or two and downloads some 70 MB. Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet gymnasium==0.29.1 configspace==1.2.2 omegaconf==2.3.0 pygame==2.6.1 numpy==1.26.4
# --no-deps: most of CARL's requirements are for its plots and experiments
"$folder/venv/bin/pip" install --quiet --no-deps carl-bench==1.1.1

SDL_VIDEODRIVER=dummy PYTHONWARNINGS=ignore "$folder/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import numpy as np
from carl.envs import CARLCartPole, CARLPendulum


def play(env_class, **changed):
    """Up to 100 steps of fixed actions with some context features changed: observations and rewards."""
    context = {**env_class.get_default_context(), **changed}
    env = env_class(contexts={0: context})
    observation, _ = env.reset(seed=0)
    assert all(np.isclose(observation["context"][name], value) for name, value in changed.items())
    env.action_space.seed(0)
    seen = [observation["obs"]]
    for _ in range(100):
        observation, reward, terminated, _, _ = env.step(env.action_space.sample())
        seen.append(np.append(observation["obs"], reward))
        if terminated:
            break
    return np.concatenate([np.ravel(x) for x in seen])


print(f"carl-bench {version('carl-bench')}, gymnasium {version('gymnasium')}")
same_cart = np.array_equal(play(CARLCartPole, masscart=0.1), play(CARLCartPole, masscart=10.0))
same_gravity = np.array_equal(play(CARLPendulum, gravity=1.0), play(CARLPendulum, gravity=20.0))
print("CARLCartPole, masscart 0.1 and 10: the same trajectory:", same_cart)
print("CARLPendulum, gravity 1 and 20: the same trajectory:", same_gravity)
# Features that do act, by the same way of looking
assert not np.array_equal(play(CARLCartPole, gravity=1.0), play(CARLCartPole, gravity=20.0))
assert not np.array_equal(play(CARLPendulum, g=1.0), play(CARLPendulum, g=20.0))
assert same_cart and same_gravity
print("As described: neither feature has an effect.")
EOF
