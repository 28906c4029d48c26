"""Where a phase of a task sequence ends, seen from a vectorized environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

# In the info of the last step of an episode that another of several parallel environments has cut off by ending the phase
CUT_OFF = "cut_off"


def ended_phases(env: VecEnv, dones: np.ndarray, infos: Sequence[dict[str, Any]]) -> list[bool]:
    """
    Which of the environments have ended a phase with their last step. A sequence says so itself (``info["boundary"]``) where
    it ends the episode. Where something around it does, such as a time limit, it learns of that by the reset that
    follows, whose info is already the next phase's.

    :param env: the environments, of task sequences
    :param dones: what they returned for the last step, one per environment
    :param infos: likewise
    :return: one per environment
    """
    resets = env.unwrapped.reset_infos
    return [
        info["boundary"] or bool(done and any(reset[name] != info[name] for name in ("phase", "sequence_over")))
        for done, info, reset in zip(dones, infos, resets, strict=True)
    ]


def is_over(env: VecEnv, dones: np.ndarray, infos: Sequence[dict[str, Any]]) -> bool:
    """
    Whether the sequences of all environments are over; see :func:`ended_phases`.

    :param env: the environments, of task sequences
    :param dones: what they returned for the last step, one per environment
    :param infos: likewise
    :return: whether the last phase of all has ended
    """
    resets = env.unwrapped.reset_infos
    return all(
        info["sequence_over"] or (done and reset["sequence_over"])
        for done, info, reset in zip(dones, infos, resets, strict=True)
    )
