#!/usr/bin/env bash
# sb3-contrib 2.9.2 with Stable-Baselines3 2.9.2: ARS goes on to the end of its steps when a callback says that training stops.
#
# Documented: a callback whose _on_step() returns False ends training, and StopTrainingOnRewardThreshold is made of that. The
# page of ARS restricts callbacks for its experimental asynchronous mode alone, in which they are called after the episodes.
# Seen: in its usual mode, too, ARS calls the callback at every step and drops the answer. StopTrainingOnRewardThreshold says
# that training stops, says so again at the next best evaluation, and training goes on. PPO, TRPO and QR-DQN end at the step at
# which they are told to. So ARS spends its budget to the end (and finishes its set of candidates: 6972 steps of 4000), and the
# agent that is left is not the one that had reached the threshold.
#
# Takes a minute; PyTorch is the larger part (200 MB on a CPU). Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet sb3-contrib==2.9.2 stable-baselines3==2.9.2 gymnasium==1.4.0

cd "$folder"
PYTHONWARNINGS=ignore "$folder/venv/bin/python" - <<'EOF'
import contextlib
import io
from importlib.metadata import version

import gymnasium as gym
import torch
from sb3_contrib import ARS, QRDQN, TRPO
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.monitor import Monitor

torch.set_num_threads(1)
print(*(f"{name} {version(name)}" for name in ("sb3-contrib", "stable-baselines3", "gymnasium", "torch")), sep=", ")
BUDGET = 4000


class StopAt500(BaseCallback):
    def _on_step(self):
        return self.num_timesteps < 500


def at_threshold():
    """Any evaluation of CartPole reaches a return of 5."""
    reached = StopTrainingOnRewardThreshold(5, verbose=1)
    env = Monitor(gym.make("CartPole-v1"))
    return EvalCallback(env, callback_on_new_best=reached, eval_freq=200, n_eval_episodes=1, verbose=0)


CALLBACKS = {
    "a callback that says stop at 500": StopAt500,
    "StopTrainingOnRewardThreshold": at_threshold,
}
for what, make_callback in CALLBACKS.items():
    for algorithm, policy in ((PPO, "MlpPolicy"), (TRPO, "MlpPolicy"), (QRDQN, "MlpPolicy"), (ARS, "LinearPolicy")):
        model = algorithm(policy, "CartPole-v1", seed=0)
        with contextlib.redirect_stdout(io.StringIO()) as output:
            model.learn(BUDGET, callback=make_callback())
        said = sum(line.startswith("Stopping training") for line in output.getvalue().splitlines())
        taken = f"{model.num_timesteps} of {BUDGET} steps"
        print(f"{what}: {algorithm.__name__} has taken {taken}; said {said} times that training stops")
        if algorithm is ARS:
            assert model.num_timesteps >= BUDGET, "it stops now"
            assert what.startswith("a callback") or said >= 1
        else:
            assert model.num_timesteps <= 500
EOF
