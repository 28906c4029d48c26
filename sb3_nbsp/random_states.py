"""The states of the random generators that an agent draws from, so that a resumed run draws what an unbroken one would."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_nbsp.files import atomic_path


def random_states(agent: BaseAlgorithm) -> dict[str, Any]:
    """
    :param agent: draws from the global generators of Python, NumPy and PyTorch, and from its action space's own
    :return: their states: tensors, numbers, strings, lists and dictionaries only
    """
    version, numbers, gauss = random.getstate()
    _, keys, position, has_gauss, cached_gauss = np.random.get_state(legacy=True)
    states: dict[str, Any] = {
        "python": [version, list(numbers), gauss],
        "numpy": [np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached_gauss)],
        "torch": th.get_rng_state(),
        "action_space": agent.action_space.np_random.bit_generator.state,
    }
    if agent.device.type == "cuda":
        states["cuda"] = th.cuda.get_rng_state(agent.device)
    return states


def restore_random_states(agent: BaseAlgorithm, states: dict[str, Any]) -> None:
    """
    Put the generators where they were.

    :param agent: see :func:`random_states`
    :param states: what :func:`random_states` returned
    """
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    keys, position, has_gauss, cached_gauss = states["numpy"]
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, cached_gauss))
    th.set_rng_state(states["torch"].cpu())
    agent.action_space.np_random.bit_generator.state = states["action_space"]
    if "cuda" in states and agent.device.type == "cuda":
        th.cuda.set_rng_state(states["cuda"].cpu(), agent.device)


@contextmanager
def drawing_from(seed: int, device: th.device) -> Iterator[None]:
    """
    PyTorch's generators begin with a seed inside the block, and are afterwards where they were.

    :param seed: of the processor's generator, and of the device's
    :param device: on which numbers may be drawn as well
    """
    with th.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        th.manual_seed(seed)
        yield


def save_random_states(agent: BaseAlgorithm, path: str | os.PathLike[str]) -> None:
    """
    Write the generators' states of an agent into a file of their own; the zips of this package's agents hold theirs.

    :param agent: see :func:`random_states`
    :param path: the file
    """
    with atomic_path(path) as temporary:
        th.save(random_states(agent), temporary)


def load_random_states(path: str | os.PathLike[str]) -> dict[str, Any]:
    """
    :param path: what :func:`save_random_states` has written
    :return: the states, for :func:`restore_random_states`
    """
    states: dict[str, Any] = th.load(path, map_location="cpu", weights_only=True)
    return states
