"""Forward passes of a policy that serve to see what it does with its modules, and change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from torch import nn

from sb3_nbsp.batches import ArrayObs
from sb3_nbsp.neurons.forward_pass import Run

N_OBSERVATIONS = 8


def trial_pass(policy: BasePolicy, forward: Callable[[Any], object]) -> Run:
    """
    :param policy: any
    :param forward: runs a part of it on a batch of observations as buffers hold them
    :return: runs this on a few observations, in evaluation mode and without gradients. Modes and random streams stay as
        they are
    """
    observations = policy.obs_to_tensor(_observations(policy.observation_space))[0]

    def run() -> None:
        devices = [policy.device] if policy.device.type == "cuda" else []
        with evaluating(policy), th.no_grad(), th.random.fork_rng(devices):
            forward(observations)

    return run


def _observations(space: spaces.Space) -> ArrayObs:
    """Observations of a space, as different as they can be at a moderate size, shape (observations, ...)."""
    if isinstance(space, spaces.Dict):
        return {name: _observations(part) for name, part in space.items()}  # type: ignore[misc]
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        middle = np.clip(np.zeros(space.shape), space.low, space.high)
        low, high = np.maximum(space.low, middle - 1), np.minimum(space.high, middle + 1)
        return np.random.default_rng(0).uniform(low, high, (N_OBSERVATIONS, *space.shape)).astype(space.dtype)
    space = deepcopy(space)
    space.seed(0)
    return np.stack([space.sample() for _ in range(N_OBSERVATIONS)])


@contextmanager
def evaluating(policy: nn.Module) -> Iterator[None]:
    """
    Evaluation mode inside the block; afterwards each module is in the mode in which it was.

    :param policy: any module
    """
    modes = [(module, module.training) for module in policy.modules()]
    policy.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
