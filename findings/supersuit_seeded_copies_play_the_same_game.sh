#!/usr/bin/env bash
# SuperSuit 3.11.0: with several processes, most of the copies of a seeded environment play the same game as another one.
#
# Expected: `concat_vec_envs_v1(env, num_vec_envs, num_cpus)` makes copies of a vector environment, in so many processes. Without
# processes, `reset(seed=s)` gives them the seeds s, s + 1, s + 2, ..., as Gymnasium's vector environments do.
# Seen: with `num_cpus`, process number i gets the seed s + i, and gives its own copies s + i, s + i + 1, ... Of 32 copies on four
# processes, only 11 are different: the seeds in the middle are used by four copies each. They have the same layouts in every
# episode, not just in the first one. When a fixed policy is evaluated, 320 returns are 110, some of which count four times; the
# standard error that one computes from them is 1.8 times too small. The same seed gives 32 different ones with num_cpus=0.
#
# Takes a minute and downloads some 80 MB. Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet supersuit==3.11.0 pettingzoo==1.27.0 mpe2==1.1.1 gymnasium==1.4.0 numpy==2.2.6 pygame-ce==2.5.8

cat > "$folder/copies.py" <<'EOF'
from importlib.metadata import version

import numpy as np
import supersuit
from mpe2 import simple_spread_v3

N_COPIES, N_AGENTS, N_EPISODES, LENGTH = 32, 3, 10, 25


def nearest(observations):
    """A fixed policy: agent number i goes to landmark number i. Actions: stay, left, right, down, up."""
    observations = observations.reshape(N_COPIES, N_AGENTS, -1)
    to_landmarks = observations[:, :, 4:10].reshape(N_COPIES, N_AGENTS, 3, 2)
    way = np.stack([to_landmarks[:, i, i] for i in range(N_AGENTS)], axis=1)
    along = np.abs(way).argmax(axis=-1)
    positive = np.take_along_axis(way, along[..., None], axis=-1)[..., 0] > 0
    return (1 + 2 * along + positive).ravel()


def play(num_cpus):
    """Returns (copies x episodes) of the fixed policy, and the first observations of all agents (copies x episodes x numbers)."""
    env = supersuit.pettingzoo_env_to_vec_env_v1(simple_spread_v3.parallel_env(max_cycles=LENGTH))
    copies = supersuit.concat_vec_envs_v1(env, N_COPIES, num_cpus=num_cpus, base_class="gymnasium")
    observations, _ = copies.reset(seed=0)
    returns, starts = np.zeros((N_COPIES, N_EPISODES)), []
    for episode in range(N_EPISODES):
        starts.append(observations.reshape(N_COPIES, -1))
        for step in range(1, LENGTH + 1):
            observations, rewards, _, truncated, _ = copies.step(nearest(observations))
            returns[:, episode] += rewards.reshape(N_COPIES, N_AGENTS).mean(axis=1)
            assert np.all(truncated) == (step == LENGTH)
    copies.close()
    return returns, np.stack(starts, axis=1)


if __name__ == "__main__":
    print(*(f"{name} {version(name)}" for name in ("supersuit", "pettingzoo", "mpe2", "gymnasium", "numpy")), sep=", ")
    different = {}
    for num_cpus in (0, 4):
        returns, starts = play(num_cpus)
        per_episode = [len(np.unique(starts[:, episode], axis=0)) for episode in range(N_EPISODES)]
        _, group, size = np.unique(starts[:, 0], axis=0, return_inverse=True, return_counts=True)
        different[num_cpus] = len(size)
        print(f"num_cpus={num_cpus}: different first observations of {N_COPIES} copies, in each episode: {per_episode}")
        print(f"  copies that share a game: {sorted(size.tolist())}; different returns: {len(np.unique(returns))} of {returns.size}")
        print(f"  mean return {returns.mean():.2f}, standard error by the number of returns {returns.std(ddof=1) / returns.size**0.5:.2f}")
        assert set(per_episode) == {len(size)}
        for number in range(len(size)):  # copies of one group never part
            members = np.flatnonzero(group == number)
            assert np.array_equal(starts[members], starts[members[:1]].repeat(len(members), axis=0))
            assert np.array_equal(returns[members], returns[members[:1]].repeat(len(members), axis=0))
        if num_cpus:
            # The standard error of a mean of independent games, of which some count several times
            true = returns.std(ddof=1) * ((size / N_COPIES) ** 2).sum() ** 0.5 / N_EPISODES**0.5
            print(f"  standard error of that mean of {len(size) * N_EPISODES} different games, weighted as they are: {true:.2f}")
    assert different == {0: N_COPIES, 4: 11}
    print("As described: with processes, 21 of 32 copies are those of others.")
EOF

cd "$folder"
PYTHONWARNINGS=ignore SDL_VIDEODRIVER=dummy PYGAME_HIDE_SUPPORT_PROMPT=1 OMP_NUM_THREADS=1 "$folder/venv/bin/python" copies.py
