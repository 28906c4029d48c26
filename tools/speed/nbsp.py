"""What NBSP needs at the end of a task: time for the identification, room for the memory."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Sequence

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_nbsp import NBSPSAC
from sb3_nbsp.interventions import GradientMasking, Phase
from sb3_nbsp.interventions.task_memory import FIELDS, StoredTransitions, TaskMemory
from tools.speed.sac import MetaWorldSizedEnv, end_phases, make
from tools.speed.turns import Row

STEPS = 10_000
IDENTIFICATION_GOAL = 0.5
TRANSITIONS = 100_000
MEMORY_GOAL = 1.05


def identification(net_arch: Sequence[int], rounds: int) -> Row:
    """
    Time to find the skill neurons of actor and critics, on stored steps.

    :param net_arch: sizes of the hidden layers
    :param rounds: how often
    :return: seconds
    """
    model: NBSPSAC = make(NBSPSAC, net_arch, replay=False, identification_steps=STEPS, identification_data="training")
    masking = model.all_interventions.find(GradientMasking)
    seconds = []
    on_phase_end = masking.on_phase_end

    def timed(phase: Phase) -> None:
        start = time.perf_counter()
        on_phase_end(phase)
        seconds.append(time.perf_counter() - start)

    masking.on_phase_end = timed  # type: ignore[method-assign]
    end_phases(model, rounds, STEPS)
    size = "×".join(map(str, net_arch))
    return Row(f"Identification on {STEPS} steps, {size}", np.array(seconds), "s", IDENTIFICATION_GOAL, at_least=False)


def memory(transitions: int = TRANSITIONS) -> Row:
    """
    What the memory of earlier tasks takes, over the bytes of what it holds.

    :param transitions: how many it holds
    :return: the ratio
    """
    env = MetaWorldSizedEnv()
    buffer = ReplayBuffer(transitions, env.observation_space, env.action_space, device="cpu")
    buffer.full = True
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    held = TaskMemory(transitions, buffer, seed=0)
    for task in range(4):
        held.store(str(task), StoredTransitions(buffer))
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    fields = sum(getattr(held, name).nbytes for name in FIELDS)
    what = f"Memory of {transitions} transitions"
    return Row(what, np.array([taken / fields]), "× its fields", MEMORY_GOAL, at_least=False)
