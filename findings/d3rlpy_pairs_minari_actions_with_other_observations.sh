#!/usr/bin/env bash
# d3rlpy 2.8.1 reading a Minari 0.5.4 dataset: every action is next to the observation of another moment.
#
# Documented: Minari's episodes have one observation more than actions, the last one being that after the last action;
# d3rlpy's `get_minari()` returns such a dataset as d3rlpy's replay buffer.
# Seen: `get_minari()` puts the observations of all episodes into one array and their actions into another, with the extra
# observations, and cuts both at the same places. The first episode is right. Each further one begins one observation
# later: in episode number k they are k steps late, and once k exceeds the length of an episode, all of them are those of
# earlier episodes. Rewards and actions are where they belong; the lengths agree, and nothing warns. An agent that is
# trained offline on it learns from transitions that never happened.
#
# Takes a minute or two; PyTorch is the larger part (its CPU build has 200 MB). Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.2.6
"$folder/venv/bin/pip" install --quiet d3rlpy==2.8.1 minari==0.5.4 h5py==3.16.0 pillow gymnasium==1.0.0  # that of d3rlpy

cd "$folder"
export MINARI_DATASETS_PATH="$folder/datasets" PYTHONWARNINGS=ignore
"$folder/venv/bin/python" - 2>stderr <<'EOF' || { cat stderr; exit 1; }
from importlib.metadata import version

import gymnasium as gym
import minari
import numpy as np
import structlog
from d3rlpy.dataset import MDPDataset
from d3rlpy.datasets import get_minari
from minari.data_collector.episode_buffer import EpisodeBuffer

structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # d3rlpy's notes on shapes
print(f"d3rlpy {version('d3rlpy')}, minari {version('minari')}, gymnasium {version('gymnasium')}")

env = gym.make("CartPole-v1")
env.action_space.seed(0)
episodes = []
for number in range(60):
    observation, _ = env.reset(seed=number)
    observations, actions, rewards, terminations, truncations = [observation], [], [], [], []
    while not (actions and (terminations[-1] or truncations[-1])):
        actions.append(env.action_space.sample())
        observation, reward, terminated, truncated, _ = env.step(actions[-1])
        observations.append(observation)
        rewards.append(reward)
        terminations.append(bool(terminated))
        truncations.append(bool(truncated))
    episodes.append(EpisodeBuffer(id=number, observations=np.array(observations), actions=np.array(actions),
                                  rewards=rewards, terminations=terminations, truncations=truncations))
dataset = minari.create_dataset_from_buffers("cartpole/random-v0", episodes, env=env, ref_min_score=0, ref_max_score=500)
read, _ = get_minari("cartpole/random-v0")

right = []
for number, (theirs, ours) in enumerate(zip(read.episodes, dataset, strict=True)):
    assert np.array_equal(theirs.actions.ravel(), ours.actions) and np.array_equal(theirs.rewards.ravel(), ours.rewards)
    right.append(int((theirs.observations == ours.observations[:-1]).all(axis=1).sum()))
    where = [k for k, own in enumerate(dataset) if (theirs.observations[0] == own.observations).all(axis=1).any()]
    if number in (0, 1, 2, 3, 30, 59):
        print(f"episode {number:2}: {right[-1]:2} of {len(ours.actions)} actions have their observation; "
              f"the first one comes from episode {where[0]}")
print(f"all: {sum(right)} of {sum(len(each.actions) for each in dataset)} actions")
assert right[0] == len(dataset[0].actions) and not any(right[1:])

flat = np.concatenate([each.observations for each in dataset])
for number, theirs in enumerate(read.episodes):
    start = sum(len(each.actions) for each in list(dataset)[:number])
    assert np.array_equal(theirs.observations, flat[start : start + len(theirs.observations)])

correct = MDPDataset(*(np.concatenate(arrays) for arrays in zip(*(
    (each.observations[:-1], each.actions, each.rewards, each.terminations) for each in dataset))))
assert all(np.array_equal(a.observations, b.observations[:-1]) for a, b in zip(correct.episodes, dataset, strict=True))
print("MDPDataset with each episode's last observation left out: all actions have theirs")
print("As described: get_minari() shifts the observations by one more step with each episode.")
EOF
