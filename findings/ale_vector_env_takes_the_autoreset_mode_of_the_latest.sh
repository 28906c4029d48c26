#!/usr/bin/env bash
# ale-py 0.12.1: a vector environment of Atari games says of itself the autoreset mode of the one that was created last.
#
# Documented: `AtariVectorEnv(..., autoreset_mode=...)` resets finished games in the same step or in the next one. The mode is in
# `metadata["autoreset_mode"]`; Gymnasium's vector wrappers read it there, to count episodes and to refuse what they cannot do.
# Seen: all AtariVectorEnvs write it into one dictionary, that of Gymnasium's class `VectorEnv`. With one to train (SAME_STEP) and
# one to evaluate (NEXT_STEP, the default), the first behaves as before, but says NEXT_STEP. If it is wrapped then,
# `RecordEpisodeStatistics` counts one step too few in each episode but the first. `NormalizeObservation`, which refuses
# SAME_STEP with a ValueError because it leaves the last observation of an episode as it was, now takes it: the agent sees
# normalized numbers in `obs` and bytes, 106 on average, in `final_obs`, whose value it bootstraps. Nothing warns.
#
# Takes a minute or two. Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ale-py==0.12.1 gymnasium==1.4.0 numpy==2.2.6

PYTHONWARNINGS=ignore "$folder/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import ale_py
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers.vector import NormalizeObservation, RecordEpisodeStatistics

ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
print(*(f"{name} {version(name)}" for name in ("ale-py", "gymnasium", "numpy")), sep=", ")


def same_step():
    """Games that end after 200 frames, which are 50 steps, at most."""
    return AtariVectorEnv("pong", 2, autoreset_mode=AutoresetMode.SAME_STEP, noop_max=0, max_num_frames_per_episode=200)


def lengths(envs, n=300):
    """The lengths of the first environment's episodes, as counted by the wrapper and by hand."""
    wrapped = RecordEpisodeStatistics(envs)
    wrapped.reset(seed=0)
    steps, counted, by_hand = 0, [], []
    for _ in range(n):
        _, _, terminated, truncated, infos = wrapped.step(np.zeros(2, np.int64))
        steps += 1
        if terminated[0] or truncated[0]:
            counted.append(int(infos["episode"]["l"][0]))
            by_hand.append(steps)
            steps = 0
    return counted, by_hand


alone = same_step()
print("alone, it says", alone.metadata["autoreset_mode"].name)
counted, by_hand = lengths(alone)
print(f"  lengths of its episodes: by the wrapper {counted}, by hand {by_hand}")
assert alone.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP and counted == by_hand
try:
    NormalizeObservation(same_step())
except ValueError as error:
    print("  NormalizeObservation:", error)
else:
    raise SystemExit("it is not refused")

train = same_step()
evaluation = AtariVectorEnv("breakout", 1)
print(f"beside another one, it says {train.metadata['autoreset_mode'].name}; its attribute says {train.autoreset_mode.name}")
assert train.autoreset_mode == AutoresetMode.SAME_STEP and train.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
assert train.metadata is evaluation.metadata is VectorEnv.metadata
counted, by_hand = lengths(train)
print(f"  lengths of its episodes: by the wrapper {counted}, by hand {by_hand}")
assert counted[0] == by_hand[0] and len(counted) > 3 and all(a == b - 1 for a, b in zip(counted[1:], by_hand[1:]))

normalized = NormalizeObservation(train)
normalized.reset(seed=0)
seen = []
for _ in range(300):
    observations, _, _, truncated, infos = normalized.step(np.zeros(2, np.int64))
    seen.append(float(np.abs(observations).mean()))
    if truncated[0]:
        last = infos["final_obs"][0]
print(f"  NormalizeObservation: no error; mean size of a number in obs {np.mean(seen[-100:]):.2f}, in final_obs {last.mean():.0f} ({last.dtype})")
assert last.dtype == np.uint8 and np.mean(seen[-100:]) < 5 < 20 < last.mean()
print("As described: the mode that is read is that of another environment.")
EOF
