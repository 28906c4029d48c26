#!/usr/bin/env bash
# SBX 0.28.0 with Stable-Baselines3 2.9.2: DQN, TD3, DDPG and CrossQ keep the first value of a schedule of the learning rate.
#
# Documented: SBX's agents are those of Stable-Baselines3 in JAX; `learning_rate` is a number or a schedule, a function of the
# progress that remains. To a user who asks how the rate can fall while an agent learns, SBX's maintainer names the page of
# Stable-Baselines3 on schedules (issue 79 of SBX).
# Seen: SAC, TQC and PPO follow the schedule and log it. DQN, TD3, DDPG and CrossQ take the same schedule without a word, ask
# for its value once, and learn with that to the end. A rate that is to fall to nothing, so that an agent settles or is frozen,
# never falls. Stable-Baselines3's own DQN, TD3 and DDPG follow it. The only trace is that the log has no learning rate.
# SAC and TQC did not follow schedules either until pull request 72 of SBX (2025), which names PPO, SAC and TQC only.
#
# Takes a few minutes; PyTorch and JAX are the larger part (200 and 100 MB on a CPU). Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet sbx-rl==0.28.0 stable-baselines3==2.9.2 gymnasium==1.4.0 jax==0.10.2 flax==0.12.8 optax==0.2.8

cd "$folder"
JAX_PLATFORMS=cpu PYTHONWARNINGS=ignore "$folder/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import jax
import numpy as np
import sbx
import stable_baselines3
import torch
from stable_baselines3.common.callbacks import BaseCallback

torch.set_num_threads(1)
print(*(f"{name} {version(name)}" for name in ("sbx-rl", "stable-baselines3", "jax", "torch")), sep=", ")


def schedule(progress_remaining):
    return 1e-3 if progress_remaining > 0.5 else 0.0


def weights(model):
    """Of the network that acts: the actor, or the Q-network of DQN."""
    policy = model.policy
    for name in ("actor_state", "qf_state"):  # SBX
        if hasattr(policy, name):
            return [np.array(each) for each in jax.tree.leaves(getattr(policy, name).params)]
    network = policy.q_net if hasattr(policy, "q_net") else getattr(policy, "actor", policy)
    return [each.detach().numpy().copy() for each in network.parameters()]


class BeforeHalf(BaseCallback):
    def _on_step(self):
        if self.num_timesteps == 250:  # the next update is at 256 of 512 steps, and its rate is 0
            self.weights = weights(self.model)
        return True


def largest_change(before, after):
    return max(float(np.abs(new - old).max()) for old, new in zip(before, after, strict=True))


off_policy = {"learning_starts": 64, "train_freq": 64, "gradient_steps": 3, "batch_size": 16, "buffer_size": 512}
on_policy = {"n_steps": 64, "batch_size": 64, "n_epochs": 2}
for library, names in (
    (stable_baselines3, ("SAC", "PPO", "DQN", "TD3", "DDPG")),
    (sbx, ("SAC", "TQC", "PPO", "DQN", "TD3", "DDPG", "CrossQ")),
):
    for name in names:
        model = getattr(library, name)(
            "MlpPolicy",
            "CartPole-v1" if name == "DQN" else "Pendulum-v1",
            learning_rate=schedule,
            policy_kwargs={"net_arch": [16, 16]},
            seed=0,
            **(on_policy if name == "PPO" else off_policy),
        )
        start, half = weights(model), BeforeHalf()
        model.learn(512, callback=half)
        first, second = largest_change(start, half.weights), largest_change(half.weights, weights(model))
        rates = [key for key in model.logger.name_to_value if "learning_rate" in key]
        print(
            f"{library.__name__} {name}: the weights move by up to {first:.4f} at a rate of 1e-3, by {second:.4f} "
            f"at a rate of 0; rates in the log: {', '.join(rates) or 'none'}",
            flush=True,
        )
        ignored = library is sbx and name in ("DQN", "TD3", "DDPG", "CrossQ")
        assert first > 1e-3 and (second > 1e-3 if ignored else second == 0) and (not rates) == ignored
print("As described: DQN, TD3, DDPG and CrossQ of SBX keep the first value of the schedule.")
EOF
