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


def steps_left(env: VecEnv, progress: dict[str, Any] | None = None) -> int:
    """
    How many steps a sequence has left if no task is mastered. Every phase may take up to an episode more, as it ends with one.

    :param env: the environments, of task sequences
    :param progress: of one of them (:meth:`~sb3_nbsp.tasks.sequence.TaskSequence.get_progress`); None for where they are
    :return: steps of all environments together
    """
    if progress is None:
        progress = env.env_method("get_progress", indices=0)[0]
    names = ("n_phases", "steps_per_task", "last_phase_steps")
    n_phases, steps, last_steps = (env.get_attr(name, indices=0)[0] for name in names)
    phases = [steps] * (n_phases - 1) + [last_steps or steps]
    left = [max(0, phases[progress["phase"]] - progress["phase_steps"]), *phases[progress["phase"] + 1 :]]
    return sum(left) * env.num_envs
