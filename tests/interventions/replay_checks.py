"""Small agents with a memory, and made-up transitions to put into one."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer
from tagged_tasks import SERIAL, Spy, TaggedTask, tiny

from sb3_nbsp import ContinualSAC
from sb3_nbsp.interventions import ExperienceReplay
from sb3_nbsp.interventions.task_memory import StoredTransitions, TaskMemory


def replaying(
    env: Any, k: int = 10, size: int = 100, spy: Spy | None = None, replay_ent_coef: Any = "auto", **kwargs: Any
) -> Any:
    replay = ExperienceReplay(memory_size=size, replay_interval=k, replay_ent_coef=replay_ent_coef)
    interventions = [replay] if spy is None else [spy, replay]
    return tiny(ContinualSAC, env, interventions=interventions, **kwargs)


def memory_of(agent: Any) -> TaskMemory | None:
    return agent.interventions[-1].memory


def rows_by_task(memory: TaskMemory) -> dict[str, np.ndarray]:
    """Observations of each task, cut out by the numbers that the memory itself keeps."""
    ends = np.cumsum(list(memory.tasks.values()))
    return {
        task: memory.observations[end - count : end] for (task, count), end in zip(memory.tasks.items(), ends, strict=True)
    }


class Given(StoredTransitions):
    """Transitions that no replay buffer holds."""

    def __init__(self, fields: dict[str, np.ndarray]) -> None:
        self._fields = fields

    def __len__(self) -> int:
        return len(self._fields["rewards"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self._fields[name]

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return {name: array[indices] for name, array in self._fields.items()}


def transitions(tag: float, first: int, number: int) -> Given:
    """Made-up transitions that can be told apart."""
    serial = np.arange(first, first + number, dtype=np.float32)
    observations = np.stack([np.full(number, tag), serial * SERIAL, serial * 0, serial * 0], axis=1).astype(np.float32)
    fields = {
        "observations": observations,
        "next_observations": observations + np.float32([0, SERIAL, 0, 0]),
        "actions": np.stack([serial, -serial], axis=1).astype(np.float32),
        "rewards": serial * 2,
        "dones": (serial % 10 == 9).astype(np.float32),
        "timeouts": (serial % 20 == 19).astype(np.float32),
    }
    return Given(fields)


def empty_memory(capacity: int, seed: int = 0) -> TaskMemory:
    like = ReplayBuffer(10, TaggedTask.observation_space, TaggedTask.action_space, device="cpu")
    return TaskMemory(capacity, like, seed)
