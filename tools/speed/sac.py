"""A SAC gradient step: stock SB3, SBX, ContinualSAC, NBSPSAC, and the arithmetic alone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger

from sb3_nbsp import NBSPSAC, ContinualSAC
from sb3_nbsp.fast.captured_step import WARM_UP
from sb3_nbsp.fast.matmul_precision import MatmulPrecision
from sb3_nbsp.interventions import Interventions, Phase
from sb3_nbsp.interventions.base import Network
from tools.speed import arithmetic
from tools.speed.turns import Row, take_turns

BATCH = 256
# What a step should be faster than stock SB3 by, by the sizes of the hidden layers
GOALS: dict[tuple[int, ...], float] = {(256, 256): 1.5, (768, 768, 768): 1.25}
MEDIUM_GOALS: dict[tuple[int, ...], float] = {(256, 256): 2.1, (768, 768, 768): 2.4}
# And than SBX
MEDIUM_SBX_GOALS: dict[tuple[int, ...], float] = {(256, 256): 1.2, (768, 768, 768): 1.8}
CUDA_GOALS: dict[tuple[int, ...], float] = {(768, 768, 768): 5.0}
MASK_GOAL = 0.02
MEDIUM_MASK_GOAL = 0.05
MEMORY_GOAL = 1.02
TASKS = (1, 50)


class MetaWorldSizedEnv(gym.Env):
    """Spaces of the size of Meta-World's; it is never stepped."""

    observation_space = spaces.Box(-np.inf, np.inf, (39,), np.float32)
    action_space = spaces.Box(-1, 1, (4,), np.float32)


def make(cls: type[Any], net_arch: Sequence[int], device: str = "cpu", **kwargs: Any) -> Any:
    """
    An agent whose replay buffer holds random transitions.

    :param cls: its class, SB3's SAC or one with the same arguments
    :param net_arch: sizes of the hidden layers
    :param device: where it learns
    :param kwargs: further arguments
    :return: the agent, which can train
    """
    policy_kwargs = {"net_arch": list(net_arch)}
    model = cls("MlpPolicy", MetaWorldSizedEnv(), buffer_size=10_000, policy_kwargs=policy_kwargs, device=device, **kwargs)
    model.set_logger(Logger(None, []))
    buffer = model.replay_buffer
    rng = np.random.default_rng(0)
    for name in ("observations", "next_observations", "actions", "rewards"):
        array = getattr(buffer, name)
        array[:] = rng.standard_normal(array.shape)
    buffer.full = True
    return model


def end_phases(model: NBSPSAC, tasks: int, steps: int = 10_000) -> None:
    """
    Let phases end whose steps succeeded at random, so that masks and memory are in place.

    :param model: the agent
    :param tasks: number of distinct tasks
    :param steps: of each phase that are known to the identification
    """
    hooks: Interventions = model.all_interventions
    successes = np.random.default_rng(0).random((tasks, steps)) < 0.5
    assert model.replay_buffer is not None
    model.phase_steps = model.replay_buffer.size()
    for task in range(tasks):
        for success in successes[task]:
            hooks.on_transition(np.zeros(1), np.zeros(1, dtype=bool), [{"success": float(success)}])
        hooks.on_phase_end(Phase(task, f"task {task}"))


def with_masks(net_arch: Sequence[int], tasks: int, precision: MatmulPrecision = "highest") -> NBSPSAC:
    """
    :param net_arch: sizes of the hidden layers
    :param tasks: number of tasks whose skill neurons are protected: random ones, so that they differ from task to task
    :param precision: of the matrix products
    :return: an agent that trains with masks and memory
    """
    model: NBSPSAC = make(NBSPSAC, net_arch, identification="random", min_active_share=0, matmul_precision=precision)
    end_phases(model, tasks, steps=1)
    return model


class TimedInterventions(Interventions):
    """Interventions that know how long the optimizers' steps and the choice of the batches took."""

    seconds = 0.0

    def step(self, optimizer: th.optim.Optimizer, networks: Sequence[Network]) -> None:
        """See :class:`Interventions`."""
        start = time.perf_counter()
        super().step(optimizer, networks)
        self.seconds += time.perf_counter() - start

    def replay_source(self, gradient_step: int) -> ReplayBuffer | None:
        """See :class:`Interventions`."""
        start = time.perf_counter()
        source = super().replay_source(gradient_step)
        self.seconds += time.perf_counter() - start
        return source


def cost_of_interventions(model: NBSPSAC, rounds: int, steps: int) -> np.ndarray:
    """
    What masks and memory add to a gradient step. The same agent trains with and without them in turns; compared is the time
    of the optimizers' steps and of the choice of the buffer, as they run in the midst of a gradient step. The rest of
    it would only add its noise; a batch from the memory takes the place of another one.

    :param model: an agent with masks
    :param rounds: number of turns
    :param steps: gradient steps per turn
    :return: share of a step without them, shape (rounds,)
    """
    own = model.all_interventions
    variants = {"with": TimedInterventions([*own]), "without": TimedInterventions()}
    spent: dict[str, list[float]] = {name: [] for name in variants}

    def train(name: str) -> None:
        model.all_interventions = variants[name]
        model.all_interventions.seconds = 0.0
        model.train(gradient_steps=steps, batch_size=BATCH)
        spent[name].append(model.all_interventions.seconds)

    times = take_turns({name: partial(train, name) for name in variants}, rounds, "masks and replay")
    model.all_interventions = own
    more = np.array(spent["with"]) - np.array(spent["without"])
    return more[1:] / times["without"]  # the first turn warms up


def measure(net_arch: Sequence[int], rounds: int, steps: int) -> list[Row]:
    """
    Measure on the CPU.

    :param net_arch: sizes of the hidden layers
    :param rounds: number of turns
    :param steps: gradient steps per turn
    :return: lines of the table
    """
    size = "×".join(map(str, net_arch))
    models = {
        "SB3": make(SAC, net_arch),
        "ours": make(ContinualSAC, net_arch),
        "medium": make(ContinualSAC, net_arch, matmul_precision="medium"),
    }
    if find_spec("sbx"):
        from sbx import SAC as SBXSAC  # type: ignore[import-not-found, unused-ignore]

        models["SBX"] = make(SBXSAC, net_arch)
    tasks: dict[str, Callable[[], object]] = {
        name: partial(model.train, gradient_steps=steps, batch_size=BATCH) for name, model in models.items()
    }
    shapes = arithmetic.sac_products(net_arch, batch=BATCH)
    tasks["arithmetic"] = partial(_repeat, arithmetic.runner(shapes), steps)
    tasks["arithmetic, medium"] = partial(_repeat, arithmetic.runner(shapes, "medium"), steps)
    times = take_turns(tasks, rounds, f"SAC, {size}")

    step = f"SAC step, {size}"
    rows = [
        Row(f"{step}: SB3", 1000 * times["SB3"] / steps, "ms"),
        Row(f"{step}: ContinualSAC", times["SB3"] / times["ours"], "× SB3", GOALS.get(tuple(net_arch))),
        Row(f"{step}: its matrix products alone", times["arithmetic"] / times["ours"], "%"),
        Row(f'{step}: ContinualSAC, "medium"', times["SB3"] / times["medium"], "× SB3", MEDIUM_GOALS.get(tuple(net_arch))),
        Row(f"{step}: its matrix products alone", times["arithmetic, medium"] / times["medium"], "%"),
    ]
    if "SBX" in times:
        rows.append(Row(f"{step}: SBX", times["SB3"] / times["SBX"], "× SB3"))
        goal = 1.0 if len(net_arch) == 3 else None
        rows.append(Row(f"{step}: ContinualSAC", times["SBX"] / times["ours"], "× SBX", goal))
        goal = MEDIUM_SBX_GOALS.get(tuple(net_arch))
        rows.append(Row(f'{step}: ContinualSAC, "medium"', times["SBX"] / times["medium"], "× SBX", goal))
    goals: dict[MatmulPrecision, float] = {"highest": MASK_GOAL, "medium": MEDIUM_MASK_GOAL}
    for precision, goal in goals.items():
        for number in TASKS:
            shares = cost_of_interventions(with_masks(net_arch, number, precision), rounds, steps)
            what = f"{step}: masks and replay after {number} task{'s' * (number > 1)}"
            rows.append(Row(what if precision == "highest" else f'{what}, "medium"', shares, "%", goal, at_least=False))
    return rows


def _repeat(task: Callable[[], None], times: int) -> None:
    for _ in range(times):
        task()


def peak_memory(net_arch: Sequence[int]) -> Row:
    """
    The most memory that a process takes with ``matmul_precision="medium"``, over that with "highest".

    :param net_arch: sizes of the hidden layers
    :return: the ratio
    """
    peaks = []
    for precision in ("medium", "highest"):
        code = f"from tools.speed.sac import *; model = make(ContinualSAC, {list(net_arch)}, matmul_precision={precision!r})\n"
        code += f"model.train(20, {BATCH}); import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        peaks.append(float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout))
    size = "×".join(map(str, net_arch))
    what = f'Peak memory, {size}, "medium"'
    return Row(what, np.array([peaks[0] / peaks[1]]), '× "highest"', MEMORY_GOAL, at_least=False)


def measure_on_cuda(net_arch: Sequence[int], rounds: int, steps: int) -> list[Row]:
    """
    Measure on the current CUDA device, where a step is one CUDA graph.

    :param net_arch: sizes of the hidden layers
    :param rounds: number of turns
    :param steps: gradient steps per turn
    :return: lines of the table
    """
    models = {"SB3": make(SAC, net_arch, "cuda"), "ours": make(ContinualSAC, net_arch, "cuda", cuda_graph=True)}
    steps = max(steps, WARM_UP + 1)

    def train(model: SAC) -> None:
        model.train(gradient_steps=steps, batch_size=BATCH)
        th.cuda.synchronize()

    size = "×".join(map(str, net_arch))
    times = take_turns({name: partial(train, model) for name, model in models.items()}, rounds, f"SAC on CUDA, {size}")
    goal = CUDA_GOALS.get(tuple(net_arch))
    return [
        Row(f"SAC step on CUDA, {size}: SB3", 1000 * times["SB3"] / steps, "ms"),
        Row(f"SAC step on CUDA, {size}: ContinualSAC", times["SB3"] / times["ours"], "× SB3", goal),
    ]
