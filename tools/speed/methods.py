"""A gradient step of each method on SAC, in its second phase, when it has something to keep, against one of vanilla SAC."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from sb3_nbsp import ContinualSAC
from sb3_nbsp.interventions import Phase
from sb3_nbsp.zoo.algos import TABLE
from tools.speed.sac import BATCH, make
from tools.speed.turns import Row, take_turns

VANILLA = "continual_sac"
METHODS = [name for name, entry in TABLE.items() if issubclass(entry.cls, ContinualSAC) and name != VANILLA]
# The end of a phase is not measured: it is made short, and goes without steps of an environment
SHORT_PHASE_END: dict[str, dict[str, Any]] = {
    "nbsp_sac": {"identification": "random", "min_active_share": 0},
    "packnet_sac": {"n_tasks": 2, "retrain_steps": 1},
    "cotasp_sac": {"distill_steps": 1},
}


def in_second_phase(name: str, net_arch: Sequence[int]) -> ContinualSAC:
    """
    :param name: the zoo's name of a method on SAC
    :param net_arch: sizes of the hidden layers
    :return: an agent that has left a task behind, and trains on random transitions
    """
    model: ContinualSAC = make(
        TABLE[name].cls, net_arch, seed=0, learning_starts=0, clear_replay_buffer=False, **SHORT_PHASE_END.get(name, {})
    )
    model._start_phase(Phase(0, "first"))
    assert model.replay_buffer is not None
    model.phase_steps = model.replay_buffer.size()
    model.train(gradient_steps=1, batch_size=BATCH)
    model.start_phase("second")
    model.phase_steps = 1  # the warm-up is over
    return model


def measure(net_arch: Sequence[int], rounds: int, steps: int) -> list[Row]:
    """
    Measure on the CPU.

    :param net_arch: sizes of the hidden layers
    :param rounds: number of turns
    :param steps: gradient steps per turn
    :return: a line for each method
    """
    size = "×".join(map(str, net_arch))
    models = {name: in_second_phase(name, net_arch) for name in (VANILLA, *METHODS)}
    turns = {name: partial(model.train, gradient_steps=steps, batch_size=BATCH) for name, model in models.items()}
    times = take_turns(turns, rounds, f"methods, {size}")
    return [
        Row(f"Gradient step, {size}: {TABLE[name].title}", times[name] / times[VANILLA], "× vanilla SAC") for name in METHODS
    ]
