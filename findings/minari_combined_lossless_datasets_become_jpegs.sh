#!/usr/bin/env bash
# Minari 0.5.4: datasets that were stored without loss are JPEGs once they are combined, and no episode has its seed any more.
#
# Documented: `DataCollector(jpeg_encoding=False)` is "to store raw arrays (lossless but larger)". Each reset is recorded with its
# seed, which is drawn if none is given, "for reproducibility", and its options; both are in the episode's metadata, as is what an
# `EpisodeMetadataCallback` adds. `combine_datasets()` makes one dataset of several, `add_to_dataset()` appends to one.
# Seen: `combine_datasets()` stores images as JPEG, whatever its datasets do. Of three that are lossless, each pixel's value is
# that of the environment; in the combined one nearly half of the values differ, by up to 139 of 255, and not one observation is one
# that the environment gives. Seeds, options and the callback's entries are gone, and with them the task that each episode was
# collected for. `add_to_dataset()` keeps the pixels, and loses seed, options and the callback's entries of what it appends. No
# warning.
# (That a filtered dataset is combined with all of its episodes is known: pull request 350 of Minari.)
#
# Takes a few minutes and downloads some 200 MB, as the collector needs JAX. Python 3.11 or 3.12. Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet minari==0.5.4 h5py==3.16.0 pillow==13.0.0 minigrid==3.2.0 gymnasium==1.4.0 numpy==2.4.6 pygame-ce==2.5.8 jax==0.10.2

cd "$folder"
mkdir datasets
export MINARI_DATASETS_PATH="$folder/datasets" PYTHONWARNINGS=ignore PYGAME_HIDE_SUPPORT_PROMPT=1 SDL_VIDEODRIVER=dummy
"$folder/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import gymnasium as gym
import minari
import minigrid  # registers its environments
import numpy as np
from minari import DataCollector, EpisodeMetadataCallback
from minigrid.wrappers import ImgObsWrapper, RGBImgObsWrapper

print(*(f"{name} {version(name)}" for name in ("minari", "minigrid", "gymnasium", "h5py", "pillow", "numpy")), sep=", ")

lost = ("seed", "options", "undiscounted")


class Returns(EpisodeMetadataCallback):
    def __call__(self, episode):
        return {**super().__call__(episode), "undiscounted": float(np.sum(episode["rewards"]))}


def collect(task, kept):
    """Four episodes with random actions; `kept` gets the observations as the environment gave them."""
    env = ImgObsWrapper(RGBImgObsWrapper(gym.make("MiniGrid-Empty-Random-6x6-v0", max_steps=20)))
    collector = DataCollector(env, jpeg_encoding=False, episode_metadata_callback=Returns)
    collector.action_space.seed(task)
    for episode in range(4):
        observation, _ = collector.reset(seed=100 * task + episode, options={"task": task})
        observations, ended = [observation], False
        while not ended:
            observation, _, terminated, truncated, _ = collector.step(collector.action_space.sample())
            observations.append(observation)
            ended = terminated or truncated
        kept.append(np.array(observations))
    return collector


def metadata(dataset):
    return list(dataset.storage.get_episode_metadata(dataset.episode_indices))


def report(name, dataset, kept):
    same = [np.mean(read.observations == given) for read, given in zip(dataset, kept, strict=True)]
    possible = {image.tobytes() for given in kept for image in given}
    images = [image for read in dataset for image in read.observations]
    found = sum(image.tobytes() in possible for image in images)
    worst = max(np.abs(read.observations.astype(int) - given).max() for read, given in zip(dataset, kept, strict=True))
    print(f"{name}: jpeg_encoding={dataset.storage.jpeg_encoding}, {100 * np.mean(same):.1f} % of the values are right, the worst is "
          f"off by {worst}; {found} of {len(images)} observations are the environment's")
    print("  (seed, options, undiscounted) of the episodes:", *(
        tuple(None if entry.get(key) is None else str(entry[key]).replace("np.int64(", "").replace(")", "") for key in lost)
        for entry in metadata(dataset)))
    return np.mean(same), found, len(images)


kept, datasets = [], []
for task in range(3):
    of_task = []
    collector = collect(task, of_task)
    datasets.append(collector.create_dataset(f"grid/task{task}-v0"))
    right, found, number = report(f"task {task}", datasets[-1], of_task)
    assert right == 1 and found == number and [entry["seed"] for entry in metadata(datasets[-1])] == [100 * task + i for i in range(4)]
    assert all(int(entry["options"]["task"]) == task and "undiscounted" in entry for entry in metadata(datasets[-1]))
    kept += of_task

combined = minari.combine_datasets(datasets, "grid/combined-v0")
right, found, number = report("combined", combined, kept)
assert right < 0.6 and found == 0 and combined.storage.jpeg_encoding
assert not any(key in entry for entry in metadata(combined) for key in lost)

more = []
collect(3, more).add_to_dataset(datasets[0])
right, found, number = report("task 0 with four more", datasets[0], kept[:4] + more)
assert right == 1 and found == number
assert not any(key in entry for entry in metadata(datasets[0])[4:] for key in lost)
print("As described: JPEGs, and no seeds.")
EOF
