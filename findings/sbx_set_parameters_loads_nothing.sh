#!/usr/bin/env bash
# SBX 0.28.0 with Stable-Baselines3 2.9.2: `set_parameters()` loads nothing and does not say so.
#
# Documented: SBX's agents are those of Stable-Baselines3 in JAX, and inherit `set_parameters()`: it takes the parameters of
# a saved agent, or a dictionary such as `get_parameters()` returns, and by default (`exact_match=True`) it raises an error
# if anything is missing.
# Seen: all seven agents of SBX keep their own network, without a word, whether they are given the file of an agent of their
# kind, or what its `get_parameters()` returns, which is empty. An agent that is to start from another one's network, in
# another task or as an opponent, starts from a random one. The file does hold the network: `load()` finds it.
# Stable-Baselines3's own agents take over both, and refuse an empty dictionary.
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

import numpy as np
import sbx
import stable_baselines3

print(*(f"{name} {version(name)}" for name in ("sbx-rl", "stable-baselines3", "jax", "torch")), sep=", ")


def tried(library, name):
    """Whether an agent acts as another one after it has been given the other's parameters, in three ways."""
    cls, env = getattr(library, name), "CartPole-v1" if name == "DQN" else "Pendulum-v1"
    first = cls("MlpPolicy", env, seed=1)
    observations = np.random.default_rng(0).uniform(-1, 1, (200, *first.observation_space.shape)).astype(np.float32)

    def actions(agent):
        return agent.predict(observations, deterministic=True)[0]

    from_file, from_agent = cls("MlpPolicy", env, seed=2), cls("MlpPolicy", env, seed=2)
    expected, untouched = actions(first), actions(from_file)
    assert not np.array_equal(untouched, expected)
    first.save("first")
    from_file.set_parameters("first")
    from_agent.set_parameters(first.get_parameters())
    found = [actions(from_file), actions(from_agent), actions(cls.load("first"))]
    assert all(np.array_equal(each, expected) or np.array_equal(each, untouched) for each in found)
    return [np.array_equal(each, expected) for each in found], len(first.get_parameters())


for library, names, expected in (
    (stable_baselines3, ("SAC", "TD3", "DDPG", "PPO", "DQN"), [True, True, True]),
    (sbx, ("SAC", "TD3", "DDPG", "TQC", "CrossQ", "PPO", "DQN"), [False, False, True]),
):
    for name in names:
        found, n_parameters = tried(library, name)
        words = ["like the first" if same else "as before" for same in found]
        print(
            f"{library.__name__} {name}: {n_parameters} groups of parameters; a second agent acts, after set_parameters(file), "
            f"{words[0]}; after set_parameters(first.get_parameters()), {words[1]}; load(file): {words[2]}"
        )
        assert found == expected and (n_parameters == 0) == (library is sbx)

try:
    stable_baselines3.SAC("MlpPolicy", "Pendulum-v1").set_parameters({})
except ValueError as error:
    print("stable_baselines3, an empty dictionary:", str(error)[:60], "...")
else:
    raise SystemExit("Stable-Baselines3 takes an empty dictionary")
sbx.SAC("MlpPolicy", "Pendulum-v1").set_parameters({})
print("sbx, an empty dictionary: no error")
print("As described: set_parameters() loads nothing and does not say so.")
EOF
