"""D_pre: a memory of transitions of finished phases, shared equally between the tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_nbsp.batches import ArrayObs, apply, concatenate, take
from sb3_nbsp.interventions.compressed_buffer import CompressedImages, pack, unpack

FIELDS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class StoredTransitions:
    """
    The transitions of a replay buffer, oldest first, without a copy of them.

    :param buffer: a replay buffer; of one that relabels what it gives (HER), these are the transitions as they were played
    :param newest: only so many of them, the newest; None for all
    """

    def __init__(self, buffer: ReplayBuffer, newest: int | None = None) -> None:
        self._buffer, self._rows = buffer, _stored_rows(buffer, newest)

    def __len__(self) -> int:
        return len(self._rows) * self._buffer.n_envs

    def take(self, indices: np.ndarray) -> dict[str, Any]:
        """
        Copy transitions.

        :param indices: which, shape (k,)
        :return: field name to an array of shape (k, ...), or to a dictionary of such
        """
        buffer, rows, envs = self._buffer, self._rows[indices // self._buffer.n_envs], indices % self._buffer.n_envs
        arrays = {name: take(_stored(buffer, name), (rows, envs)) for name in FIELDS if name != "next_observations"}
        # Where every observation is stored once, the next one is in the next row
        following = (rows + 1) % buffer.buffer_size
        once = buffer.optimize_memory_usage
        found = (buffer.observations, following) if once else (_stored(buffer, "next_observations"), rows)
        next_observations = take(found[0], (found[1], envs))
        return {name: next_observations if name == "next_observations" else arrays[name] for name in FIELDS}


def _stored(buffer: ReplayBuffer, name: str) -> ArrayObs:
    """A field as it is stored: images that are compressed stay so."""
    field: ArrayObs | CompressedImages = getattr(buffer, name)
    return field.packed if isinstance(field, CompressedImages) else field


def _stored_rows(buffer: ReplayBuffer, newest: int | None) -> np.ndarray:
    size = buffer.size() if newest is None else min(buffer.size(), newest // buffer.n_envs)
    rows = (buffer.pos - np.arange(size, 0, -1)) % buffer.buffer_size
    if buffer.optimize_memory_usage and buffer.full:
        rows = rows[rows != buffer.pos]  # its observation has been overwritten
    return rows


class MemorySamples(ReplayBufferSamples):
    """A batch of the memory; ``ent_coefs``: entropy coefficients of its transitions, shape (batch, 1), if they have any."""

    ent_coefs: th.Tensor | None = None


class TaskMemory(ReplayBuffer):
    """
    A replay buffer over all remembered transitions, whose every task has the same share of the capacity.
    Images that the agent's replay buffer holds compressed are taken over as they are.
    Sampling uses a random stream of its own. With ``gives_ent_coefs``, batches carry their tasks' entropy coefficients.

    :param capacity: transitions in all
    :param like: the agent's replay buffer, for the spaces and the device
    :param seed: seed of the memory's random stream
    """

    def __init__(self, capacity: int, like: ReplayBuffer, seed: int) -> None:
        # A replay buffer has arrays of a fixed size
        BaseBuffer.__init__(self, capacity, like.observation_space, like.action_space, device=like.device)
        self.capacity = capacity
        self.generator = np.random.default_rng(seed)
        self.tasks: dict[str, int] = {}
        self.ent_coefs: dict[str, float] = {}
        self.gives_ent_coefs = False
        self._is_compressed = isinstance(like.observations, CompressedImages)
        for name, empty in StoredTransitions(like).take(np.zeros(0, dtype=np.int64)).items():
            setattr(self, name, empty)

    def _packs(self, name: str) -> bool:
        return self._is_compressed and name in ("observations", "next_observations")

    def observed(self, name: str, rows: np.ndarray) -> ArrayObs:
        """
        :param name: "observations" or "next_observations"
        :param rows: which of them
        :return: these, shape (rows, ...)
        """
        found: Any = take(getattr(self, name), rows)
        return unpack(found, self.observation_space.shape or ()) if self._packs(name) else found

    def size(self) -> int:
        """Number of transitions remembered."""
        return len(self.rewards)

    def store(self, task: str, new: StoredTransitions, ent_coef: float | None = None) -> None:
        """
        Remember a uniform random subset of a task's transitions (Algorithm 2, line 21). A new task takes an
        equal share from the others; of a task that comes back, old and new are drawn from together.

        :param task: name of the task
        :param new: the transitions to draw from; only those that are drawn are copied
        :param ent_coef: entropy coefficient with which a phase of the task has ended: all of its transitions, old and new,
            have the smallest of these; for all tasks or for none
        """
        if len(new) == 0:
            return
        if ent_coef is not None:
            self.ent_coefs[task] = min(ent_coef, self.ent_coefs.get(task, ent_coef))
        parts = self._by_task()
        share = self.capacity // len({*parts, task})
        parts.setdefault(task, new.take(np.zeros(0, dtype=np.int64)))
        for name, part in parts.items():
            parts[name] = self._mixture(part, new, share) if name == task else self._subset(part, share)
        self._set(parts)

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """
        A batch drawn uniformly, with replacement, from all that is remembered.

        :param batch_size: number of transitions
        :param env: normalizes observations and rewards
        :return: the batch
        """
        rows = self.generator.integers(self.size(), size=batch_size)
        data = (
            self._normalize_obs(self.observed("observations", rows), env),
            self.actions[rows],
            self._normalize_obs(self.observed("next_observations", rows), env),
            # An episode that was cut off has not terminated
            (self.dones[rows] * (1 - self.timeouts[rows])).reshape(-1, 1),
            self._normalize_reward(self.rewards[rows].reshape(-1, 1), env),
        )
        batch = MemorySamples(*(apply(self.to_torch, field) for field in data))
        if self.gives_ent_coefs:
            batch.ent_coefs = self.to_torch(self._ent_coefs_of(rows)).reshape(-1, 1)
        return batch

    def _ent_coefs_of(self, rows: np.ndarray) -> np.ndarray:
        ends = np.cumsum(list(self.tasks.values()))
        values = np.array([self.ent_coefs[task] for task in self.tasks], dtype=np.float32)
        return values[np.searchsorted(ends, rows, side="right")]

    def contents(self) -> dict[str, Any]:
        """What is remembered, to be pickled: for each task the number of transitions and the entropy coefficient; the rest."""
        arrays = {name: getattr(self, name) for name in FIELDS}
        generator = self.generator.bit_generator.state
        return {"tasks": self.tasks, "ent_coefs": self.ent_coefs, "arrays": arrays, "generator": generator}

    def restore(self, contents: dict[str, Any]) -> None:
        """
        Restore :meth:`contents`. Of a memory with a larger capacity, every task keeps a uniform random subset.

        :param contents: what was remembered
        :raises ValueError: if its arrays have other shapes than the agent's spaces ask for
        """
        arrays = {name: self._as_own(name, array) for name, array in contents["arrays"].items()}
        for name in FIELDS:
            saved, own = (apply(lambda array: array.shape[1:], field) for field in (arrays[name], getattr(self, name)))
            if saved != own:
                raise ValueError(f"The saved memory holds {name} of shape {saved} but the agent's spaces ask for {own}")
        for name in FIELDS:
            setattr(self, name, arrays[name])
        self.tasks, self.ent_coefs = dict(contents["tasks"]), dict(contents.get("ent_coefs", {}))
        self.generator.bit_generator.state = contents["generator"]
        share = self.capacity // max(len(self.tasks), 1)
        if any(count > share for count in self.tasks.values()):
            self._set({name: self._subset(part, share) for name, part in self._by_task().items()})

    def _as_own(self, name: str, saved: Any) -> Any:
        """Images from an agent whose replay buffer compresses them, while this one's does not, or the other way round."""
        if self._packs(name) == (isinstance(saved, np.ndarray) and saved.dtype == object):
            return saved
        return pack(saved) if self._packs(name) else unpack(saved, self.observation_space.shape or ())

    def _set(self, parts: dict[str, dict[str, Any]]) -> None:
        tasks = {name: len(part["rewards"]) for name, part in parts.items()}
        arrays = {name: concatenate([part.pop(name) for part in parts.values()]) for name in FIELDS}
        self.tasks = tasks  # with all arrays ready, so that an interruption leaves the memory as it was
        for name, array in arrays.items():
            setattr(self, name, array)

    def _by_task(self) -> dict[str, dict[str, Any]]:
        ends = np.cumsum(list(self.tasks.values()), dtype=np.int64)
        return {
            task: {name: take(getattr(self, name), slice(end - self.tasks[task], end)) for name in FIELDS}
            for task, end in zip(self.tasks, ends, strict=True)
        }

    def _subset(self, part: dict[str, Any], size: int) -> dict[str, Any]:
        rows = self._draw(len(part["rewards"]), size)
        return {name: take(array, rows) for name, array in part.items()}

    def _mixture(self, old: dict[str, Any], new: StoredTransitions, size: int) -> dict[str, Any]:
        n_old = len(old["rewards"])
        rows = self._draw(n_old + len(new), size)
        copied = new.take(rows[rows >= n_old] - n_old)
        return {name: concatenate([take(array, rows[rows < n_old]), copied[name]]) for name, array in old.items()}

    def _draw(self, total: int, size: int) -> np.ndarray:
        """So many of ``total`` rows, in order; all if there are not more."""
        return np.arange(total) if total <= size else np.sort(self.generator.choice(total, size=size, replace=False))
