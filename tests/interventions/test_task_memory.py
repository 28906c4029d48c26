"""The memory of earlier tasks: what it keeps, in equal shares, and how it is drawn."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch as th
from replay_checks import empty_memory, memory_of, replaying, rows_by_task, transitions
from stable_baselines3.common.buffers import ReplayBuffer
from tagged_tasks import SERIAL, Spy, TaggedTask, random_states, tagged_sequence, tiny

from sb3_nbsp import ContinualSAC
from sb3_nbsp.batches import concatenate
from sb3_nbsp.interventions import ExperienceReplay, Phase, task_memory
from sb3_nbsp.interventions.task_memory import FIELDS, StoredTransitions

# Shares


def test_a_memory_whose_change_is_interrupted_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = empty_memory(20)
    memory.store("red", transitions(1.0, 0, 20))
    before = copy.deepcopy(memory.contents()["arrays"])
    numbers = itertools.count(1)

    def interrupted(parts: Any) -> Any:
        if next(numbers) == len(FIELDS) + 3:  # the third array of the new memory
            raise KeyboardInterrupt
        return concatenate(parts)

    monkeypatch.setattr(task_memory, "concatenate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        memory.store("blue", transitions(2.0, 0, 20))
    assert memory.tasks == {"red": 20}
    for name, array in memory.contents()["arrays"].items():
        np.testing.assert_array_equal(array, before[name])


def test_shares_stay_equal_over_six_phases_of_two_tasks() -> None:
    shares = []

    class Look(Spy):
        def on_phase_end(self, phase: Phase) -> None:
            super().on_phase_end(phase)
            shares.append(dict(replay.memory.tasks))

    replay, spy = ExperienceReplay(memory_size=51), Look()
    agent = tiny(
        ContinualSAC,
        tagged_sequence(cycles=3),
        interventions=[replay, spy],
        gradient_steps=0,
    )
    agent.learn(10_000)
    assert agent.num_timesteps == 360
    assert shares == [{"red": 51}, *[{"red": 25, "blue": 25}] * 5]
    memory = replay.memory
    assert memory.size() == 50
    for tag, rows in zip((1.0, 2.0), rows_by_task(memory).values(), strict=True):
        assert (rows[:, 0] == tag).all()


def test_ten_tasks_have_a_tenth_each() -> None:
    agent = replaying(tagged_sequence([f"task{i}" for i in range(10)], cycles=1), size=105, gradient_steps=0)
    agent.learn(10_000)
    memory = memory_of(agent)
    assert memory.tasks == {f"task{i}": 10 for i in range(10)}
    assert Counter(memory.observations[:, 0]) == {1.0 + i: 10 for i in range(10)}
    assert memory.size() == 100 <= memory.capacity == 105


def test_a_task_with_few_transitions_keeps_all_of_them() -> None:
    memory = empty_memory(100)
    memory.store("short", transitions(1, 0, 7))
    memory.store("long", transitions(2, 0, 1000))
    assert memory.tasks == {"short": 7, "long": 50}
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(memory, name)[:7], transitions(1, 0, 7)[name])


def test_a_phase_without_transitions_takes_no_share() -> None:
    memory = empty_memory(100)
    memory.store("red", transitions(1, 0, 200))
    memory.store("blue", transitions(2, 0, 0))
    assert memory.tasks == {"red": 100}


def test_capacity_smaller_than_the_number_of_tasks() -> None:
    memory = empty_memory(2)
    for task in range(3):
        memory.store(str(task), transitions(task, 0, 5))
    assert memory.size() == 0  # and no batch can be drawn from it: see replay_source()


# What is kept


def test_kept_is_a_uniform_subset_of_whole_transitions() -> None:
    counts = np.zeros(200)
    everything = transitions(1, 0, 200)
    for seed in range(200):
        memory = empty_memory(50, seed)
        memory.store("red", everything)
        index = memory.rewards.astype(int) // 2
        assert len(set(index)) == 50  # each at most once
        counts[index] += 1
        for name in FIELDS:  # what belongs together stays together
            np.testing.assert_array_equal(getattr(memory, name), everything[name][index])
    # Each is kept with probability 1/4: 50 ± 6.1 of 200 times; the statistic has 199 degrees of freedom
    chi_square = ((counts - 50) ** 2 / (200 * 0.25 * 0.75)).sum()
    assert 199 - 4 * 20 < chi_square < 199 + 4 * 20


@pytest.mark.parametrize(("share", "kept"), [(0.5, 20), (0.01, 1), (1.0, 40)])
def test_only_the_newest_share_is_kept(share: float, kept: int) -> None:
    def serials(share: float) -> list[float]:
        replay = ExperienceReplay(newest_share=share)
        tiny(ContinualSAC, tagged_sequence(steps_per_task=40), interventions=[replay]).learn(50)
        assert replay.memory is not None
        return sorted(replay.memory.observations[:, 1])

    everything = serials(1.0)
    assert len(everything) == 40 and serials(share) == everything[-kept:]


def test_a_later_task_takes_its_share_from_a_uniform_subset_again() -> None:
    counts = np.zeros(40)
    for seed in range(200):
        memory = empty_memory(40, seed)
        memory.store("red", transitions(1, 0, 40))
        memory.store("blue", transitions(2, 0, 40))
        counts[memory.rewards[:20].astype(int) // 2] += 1
    chi_square = ((counts - 100) ** 2 / (200 * 0.5 * 0.5)).sum()
    assert 39 - 4 * 9 < chi_square < 39 + 4 * 9


def test_a_returning_task_is_drawn_from_old_and_new_together() -> None:
    old = new = 0
    for seed in range(50):
        memory = empty_memory(40, seed)
        memory.store("red", transitions(1, 0, 1000))  # 40 of them, then 20
        memory.store("blue", transitions(2, 0, 100))
        memory.store("red", transitions(1, 5000, 60))  # 20 old and 60 new ones: 20 remain
        assert memory.tasks == {"red": 20, "blue": 20}
        rows = rows_by_task(memory)
        assert (rows["red"][:, 0] == 1).all() and (rows["blue"][:, 0] == 2).all()
        assert len(np.unique(rows["red"][:, 1])) == 20
        old += int((rows["red"][:, 1] < 2000 * SERIAL).sum())
        new += int((rows["red"][:, 1] >= 5000 * SERIAL).sum())
    assert old + new == 1000
    # Hypergeometric: a quarter is old; the standard deviation of the sum is sqrt(50 · 20 · 3/16 · 60/79) = 11.9
    assert abs(old - 250) < 4 * 12


@pytest.mark.parametrize("buffer_size", [1000, 60, 61, 50])
def test_memory_optimized_buffer(buffer_size: int) -> None:
    """The same transitions as with the ordinary buffer, less the one whose observation is overwritten."""
    spy = Spy()
    agent = replaying(
        tagged_sequence(cycles=1, terminates=True),
        size=10_000,
        spy=spy,
        buffer_size=buffer_size,
        optimize_memory_usage=True,
        replay_buffer_kwargs={"handle_timeout_termination": False},
    )
    agent.learn(10_000)
    memory = memory_of(agent)
    kept = min(60, buffer_size - (buffer_size <= 60))
    assert memory.tasks == {"red": kept, "blue": kept}
    going_on = memory.dones == 0  # behind a termination the next observation plays no part
    np.testing.assert_array_equal((memory.next_observations[:, 1] - memory.observations[:, 1])[going_on], np.float32(SERIAL))
    assert (memory.next_observations[going_on, 0] == memory.observations[going_on, 0]).all()
    # The action is part of the next observation (in the environment's units: twice the buffer's)
    np.testing.assert_allclose(memory.next_observations[going_on, 3], 2 * memory.actions[going_on, 0], atol=1e-6)
    assert (~going_on).sum() == 2 * (6 if kept > 50 else 5)


@pytest.mark.parametrize("full", [False, True])
def test_stored_transitions_newest(full: bool) -> None:
    buffer = ReplayBuffer(12 if full else 100, TaggedTask.observation_space, TaggedTask.action_space, "cpu", n_envs=2)
    for t in range(10):
        observations = np.stack([np.full(4, 10 * t), np.full(4, 10 * t + 1)])
        buffer.add(observations, observations + 1, np.zeros((2, 2)), np.array([t, t]), np.zeros(2), [{}, {}])
    available = 6 if full else 10
    for newest, rows in ((None, available), (8, 4), (9, 4), (100, available), (0, 0)):
        steps = range(10 - rows, 10)
        expected = [10 * t + env for t in steps for env in (0, 1)]
        stored = StoredTransitions(buffer, newest)
        assert stored.take(np.arange(len(stored)))["observations"][:, 0].tolist() == expected
        assert stored.take(np.arange(len(stored))[::3])["observations"][:, 0].tolist() == expected[::3]


def test_sampling_is_uniform_with_its_own_random_stream() -> None:
    memory, same = empty_memory(1000, seed=5), empty_memory(1000, seed=5)
    for each in (memory, same):
        each.store("red", transitions(1, 0, 20))
        each.store("blue", transitions(2, 20, 20))
    before = random_states()
    batch = memory.sample(8000)
    assert random_states() == before
    counts = np.bincount(batch.rewards[:, 0].numpy().astype(int) // 2, minlength=40)
    chi_square = ((counts - 200) ** 2 / 200).sum()
    assert len(counts) == 40 and chi_square < 39 + 5 * 9
    np.random.seed(99)
    assert th.equal(same.sample(8000).observations, batch.observations)
    assert not th.equal(same.sample(8000).observations, batch.observations)
