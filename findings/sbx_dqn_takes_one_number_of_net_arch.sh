#!/usr/bin/env bash
# SBX 0.28.0: the network of its DQN has two layers, as wide as the first number of `net_arch`, whatever the others say.
#
# Documented: SBX's agents are those of Stable-Baselines3 in JAX; `net_arch` in `policy_kwargs` is the list of the widths of the
# hidden layers, as it is for Stable-Baselines3's DQN and SBX's SAC.
# Seen: DQN of SBX takes `net_arch=[256, 64, 16]` for two layers of 256, and `[64]` as well as `[64, 512]` for two layers of 64,
# without a word; there is no way to have one hidden layer or three. Who compares DQN of both libraries at one `net_arch`, or
# asks what width and depth do to an agent (shares of dead neurons, say), compares other networks than were asked for.
#
# Takes a few minutes; PyTorch and JAX are the larger part (200 and 100 MB on a CPU). Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet sbx-rl==0.28.0 stable-baselines3==2.9.2 gymnasium==1.4.0 jax==0.10.2 flax==0.12.8 optax==0.2.8

JAX_PLATFORMS=cpu PYTHONWARNINGS=ignore "$folder/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import sbx
import stable_baselines3

print(*(f"{name} {version(name)}" for name in ("sbx-rl", "stable-baselines3", "jax", "torch")), sep=", ")


def widths_in_sbx(layers):
    """Of the hidden layers; the last layer of the network is its output."""
    return [layers[name]["kernel"].shape[1] for name in sorted(layers)][:-1]


for asked in ([256, 64, 16], [64], [64, 512]):
    kwargs = {"policy_kwargs": {"net_arch": asked}}
    weights = stable_baselines3.DQN("MlpPolicy", "CartPole-v1", **kwargs).get_parameters()["policy"]
    in_sb3 = [each.shape[0] for name, each in weights.items() if name.startswith("q_net.") and name.endswith("weight")][:-1]
    dqn = widths_in_sbx(sbx.DQN("MlpPolicy", "CartPole-v1", **kwargs).policy.qf_state.params["params"])
    actor = sbx.SAC("MlpPolicy", "Pendulum-v1", **kwargs).policy.actor_state.params["params"]
    sac = widths_in_sbx(actor)[:-1]  # two outputs: mean and standard deviation
    print(f"net_arch={asked}: stable_baselines3 DQN {in_sb3}, sbx SAC {sac}, sbx DQN {dqn}")
    assert in_sb3 == sac == asked and dqn == [asked[0], asked[0]]
print("As described: the DQN has two layers of one width.")
EOF
