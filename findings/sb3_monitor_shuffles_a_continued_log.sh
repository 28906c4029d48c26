#!/usr/bin/env bash
# Stable-Baselines3 2.9.2: the learning curve of a run that was stopped and continued is shuffled when its log is read.
#
# Documented: `Monitor(env, filename, override_existing=False)` appends to the file of an earlier run; `load_results(folder)`
# reads the episodes of a folder's files, for learning curves and for the documentation's `SaveOnBestTrainingRewardCallback`.
# Seen: the file has the episodes in the order in which they were played; `load_results` returns those of both sessions in
# turn. The times in the file count from the start of a session, but the date they count from is in the header, which only the
# first session writes. `load_results` adds that date to all times and sorts by them. So the curve goes up and down where the
# agent only went up, and "the last 100 episodes", by whose mean that callback chooses a model, are half of the first session's.
# A file for each session in the same folder is read in the right order. Nothing warns.
#
# Takes a minute or two; PyTorch is the larger part (its CPU build has 200 MB). Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.2.6
"$folder/venv/bin/pip" install --quiet stable-baselines3==2.9.2 gymnasium==1.4.0 pandas==2.3.3

cat > "$folder/session.py" <<'PYTHON'
"""A session of a run: 100 episodes of three steps. The return of an episode is its number in the run, so it always grows."""
import sys
import time

import gymnasium as gym
from stable_baselines3.common.monitor import Monitor

session = int(sys.argv[1])


class Growing(gym.Env):
    observation_space = action_space = gym.spaces.Discrete(2)
    number = 100 * (session - 1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.number, self.steps = self.number + 1, 0
        return 0, {}

    def step(self, action):
        time.sleep(0.01)
        self.steps += 1
        return 0, self.number / 3, self.steps == 3, False, {}


env = Monitor(Growing(), "appended/run", override_existing=session == 1)
env = Monitor(env, f"separate/{session}")  # the same episodes, in a file of this session
for _ in range(100):
    env.reset()
    while not env.step(0)[2]:
        pass
env.close()
PYTHON

cd "$folder"
"$folder/venv/bin/python" session.py 1
"$folder/venv/bin/python" session.py 2

"$folder/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import numpy as np
import pandas
from stable_baselines3.common.monitor import load_results

print(f"stable-baselines3 {version('stable-baselines3')}, pandas {pandas.__version__}")
file = pandas.read_csv("appended/run.monitor.csv", comment="#")["r"].round().to_numpy()
appended, separate = (load_results(name)["r"].round().to_numpy() for name in ("appended", "separate"))
for name, numbers in {"lines of the file": file, "load_results, one file": appended, "load_results, a file each": separate}.items():
    print(f"{name}: episodes {', '.join(f'{number:.0f}' for number in numbers[:8])} ...; the last 100 have a mean return of "
          f"{numbers[-100:].mean():.1f}")
assert np.array_equal(file, np.arange(1, 201)) and np.array_equal(separate, file)
assert np.array_equal(np.sort(appended), file)
assert int(np.flatnonzero(appended > 100)[0]) < 50 and appended[-100:].mean() < 145
print("As described: the appended log is read in another order than it was written.")
EOF
