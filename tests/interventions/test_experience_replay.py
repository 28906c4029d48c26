"""D_pre: which gradient step draws from it, what is in it, and that it keeps to itself."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from replay_checks import empty_memory, memory_of, replaying, rows_by_task, transitions
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tagged_tasks import SERIAL, Spy, TaggedTask, differing, parameters, random_states, tagged_sequence, tiny

from sb3_nbsp import NBSPSAC, ContinualSAC
from sb3_nbsp.interventions import ExperienceReplay, Phase
from sb3_nbsp.interventions.task_memory import FIELDS, StoredTransitions, TaskMemory

# Which buffer a gradient step draws from


@pytest.mark.parametrize(("k", "gradient_steps"), [(1, 1), (3, 1), (10, 2), (7, 3)])
def test_every_kth_step_of_its_life_draws_from_the_memory(
    monkeypatch: pytest.MonkeyPatch, k: int, gradient_steps: int
) -> None:
    drawn: list[str] = []
    sample, sample_memory = ReplayBuffer.sample, TaskMemory.sample
    monkeypatch.setattr(ReplayBuffer, "sample", lambda self, *args, **kw: drawn.append("D") or sample(self, *args, **kw))
    monkeypatch.setattr(
        TaskMemory, "sample", lambda self, *args, **kw: drawn.append("pre") or sample_memory(self, *args, **kw)
    )
    spy = Spy()
    agent = replaying(tagged_sequence(), k, spy=spy, gradient_steps=gradient_steps)
    agent.learn(90)
    agent.learn(1000, reset_num_timesteps=False)  # the count goes on
    first = spy.ends[0]["n_updates"]
    assert first == (60 - 20) * gradient_steps
    expected = ["pre" if step > first and step % k == 0 else "D" for step in range(1, len(drawn) + 1)]
    assert drawn == expected
    assert len(drawn) == agent._n_updates > 2 * first
    assert "pre" in drawn


def test_the_count_goes_on_after_loading(tmp_path: Any) -> None:
    agent = replaying(tagged_sequence(), k=10)
    agent.learn(95)
    count = agent._n_updates
    assert count % 10 != 0 and memory_of(agent) is not None
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    loaded = ContinualSAC.load(tmp_path / "model", env=tagged_sequence())
    loaded.load_replay_buffer(tmp_path / "buffer")
    asked: list[tuple[int, bool]] = []
    source = loaded.all_interventions.replay_source
    loaded.all_interventions.replay_source = lambda step: asked.append((step, source(step) is not None)) or source(step)
    loaded.learn(12, reset_num_timesteps=False)
    assert asked == [(step, step % 10 == 0) for step in range(count + 1, count + 13)]


def test_without_memory_it_is_plain_sac() -> None:
    agent = replaying(tagged_sequence(), k=1)
    agent.learn(59)
    assert agent._n_updates > 30 and memory_of(agent) is None
    agent.learn(1, reset_num_timesteps=False)
    assert memory_of(agent) is not None


# Shares


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


@pytest.mark.parametrize("clear", [True, False])
@pytest.mark.parametrize("buffer_size", [1000, 45, 90])
def test_only_transitions_of_the_phase_are_stored_under_its_task(clear: bool, buffer_size: int) -> None:
    """clear_replay_buffer=False leaves earlier phases in D: those are not the finished task's."""
    spy = Spy()
    agent = replaying(tagged_sequence(), size=10_000, spy=spy, clear_replay_buffer=clear, buffer_size=buffer_size)
    agent.learn(10_000)
    memory = memory_of(agent)
    in_d = min(buffer_size, 60)  # of each phase
    assert memory.tasks == {"red": 2 * in_d, "blue": 2 * in_d}
    for tag, rows in zip((1.0, 2.0), rows_by_task(memory).values(), strict=True):
        assert (rows[:, 0] == tag).all()
        assert len(np.unique(rows[:, 1])) == 2 * in_d  # none twice
    assert (memory.next_observations[:, 0] == memory.observations[:, 0]).all()
    np.testing.assert_allclose(memory.next_observations[:, 1] - memory.observations[:, 1], SERIAL)
    # In D itself they stay, if it is asked to keep them
    tags = set(np.unique(spy.ends[1]["buffer"].observations[: spy.ends[1]["buffer"].size(), 0, 0]))
    assert tags == ({2.0} if clear or buffer_size == 45 else {1.0, 2.0})


def test_nothing_of_the_current_phase_is_in_the_memory() -> None:
    leaks: list[float] = []

    class Look(Spy):
        def on_transition(self, rewards: Any, dones: Any, infos: list[dict[str, Any]]) -> None:
            memory = memory_of(self.agent)
            if memory is not None:
                current = spy.starts[-1]["buffer"] if spy.starts else None
                assert current is not None
                stored = {(*row[:2],) for row in memory.observations.tolist()}
                buffer = self.agent.replay_buffer
                fresh = {(*row[:2],) for row in buffer.observations[: buffer.size(), 0].tolist()}
                leaks.extend(stored & fresh)

    spy, look = Spy(), Look()
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[spy, look, ExperienceReplay(1000)], gradient_steps=0)
    agent.learn(10_000)
    assert agent.num_timesteps == 240 and leaks == []


def test_two_environments() -> None:
    env = DummyVecEnv([tagged_sequence, lambda: tagged_sequence(steps_per_task=60)])
    spy = Spy()
    agent = replaying(env, size=10_000, spy=spy)
    agent.learn(10_000)
    memory = memory_of(agent)
    assert memory.tasks == {"red": 240, "blue": 240}  # 60 steps × 2 environments × 2 phases
    expected = Counter(
        tuple(row[:3]) for end in spy.ends for row in end["buffer"].observations[: end["buffer"].pos].reshape(-1, 4).tolist()
    )
    assert Counter(tuple(row[:3]) for row in memory.observations.tolist()) == expected


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


def test_the_end_of_a_phase_copies_only_what_is_kept() -> None:
    space = spaces.Box(0, 255, (1000,), np.uint8)
    buffer = ReplayBuffer(10_000, space, TaggedTask.action_space, "cpu")
    buffer.observations[:], buffer.next_observations[:], buffer.full = 1, 2, True
    memory = TaskMemory(100, buffer, seed=0)
    tracemalloc.start()
    memory.store("red", StoredTransitions(buffer))
    memory.store("red", StoredTransitions(buffer))  # it comes back
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert memory.size() == 100 and (memory.next_observations == 2).all()
    assert peak < 2e6  # D has 20 MB


@pytest.mark.parametrize("memory_size", [10, 100, 1000])
def test_a_loaded_memory_has_the_size_that_it_is_loaded_with(memory_size: int, tmp_path: Path) -> None:
    agent = tiny(NBSPSAC, tagged_sequence(cycles=1), masking=False, memory_size=100)
    agent.learn(10_000)
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    loaded = NBSPSAC.load(tmp_path / "model", memory_size=memory_size)
    loaded.load_replay_buffer(tmp_path / "buffer")
    saved, memory = (each.all_interventions.find(ExperienceReplay).memory for each in (agent, loaded))
    assert memory.tasks == {task: min(memory_size // 2, 50) for task in ("red", "blue")}
    before, rows = rows_by_task(saved), rows_by_task(memory)
    for task in before:
        assert {tuple(row) for row in rows[task]} <= {tuple(row) for row in before[task]}
    if memory_size >= 100:
        assert th.equal(memory.sample(64).observations, saved.sample(64).observations)


# Sampling


def test_a_timeout_is_no_termination() -> None:
    memory = empty_memory(100)
    part = transitions(1, 0, 40)
    memory.store("red", part)
    batch = memory.sample(500)
    serial = batch.rewards[:, 0].numpy() / 2
    expected = ((serial % 10 == 9) & (serial % 20 != 19)).astype(np.float32)
    assert set(expected) == {0.0, 1.0}
    np.testing.assert_array_equal(batch.dones[:, 0].numpy(), expected)
    assert batch.dones.shape == batch.rewards.shape == (500, 1)
    assert batch.actions.shape == (500, 2) and batch.observations.shape == (500, 4)
    assert batch.discounts is None
    np.testing.assert_array_equal(batch.actions[:, 0].numpy(), serial)
    np.testing.assert_array_equal(batch.next_observations.numpy() - batch.observations.numpy(), [[0, SERIAL, 0, 0]] * 500)


@pytest.mark.parametrize("terminates", [True, False])
def test_ends_of_real_episodes(terminates: bool) -> None:
    agent = replaying(tagged_sequence(cycles=1, terminates=terminates))
    agent.learn(10_000)
    memory = memory_of(agent)
    assert memory.dones.sum() >= 6 and memory.timeouts.sum() == (0 if terminates else memory.dones.sum())
    assert (memory.sample(1000).dones.sum() > 0) == terminates


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


def test_the_memory_leaves_the_random_streams_of_training_alone() -> None:
    """Up to the first step that draws from it, a run with a memory is the run without."""
    end = 60 + 20 + 10  # 40 updates in the first phase, 10 in the second: step 51 would be the first

    def run(steps: int, interventions: list[Any]) -> tuple[Any, tuple[bytes, bytes]]:
        agent = tiny(ContinualSAC, tagged_sequence(), interventions=interventions)
        agent.learn(steps)
        return parameters(agent), random_states()

    replay = ExperienceReplay(memory_size=100, replay_interval=51)
    with_memory, without = run(end, [replay]), run(end, [])
    assert replay.agent._n_updates == 50 and replay.memory.size() > 0
    assert with_memory[1] == without[1] and differing(with_memory[0], without[0]) == []
    with_memory, without = run(end + 1, [ExperienceReplay(memory_size=100, replay_interval=50)]), run(end + 1, [])
    assert differing(with_memory[0], without[0]) != []


def test_normalization_is_applied() -> None:
    env = VecNormalize(DummyVecEnv([tagged_sequence]))
    agent = replaying(env, size=30)
    agent.learn(110)
    memory = memory_of(agent)
    assert (memory.observations[:, 0] == 1.0).all()  # kept as the environment gave them
    rewards = memory.rewards.copy()
    env.obs_rms.mean, env.obs_rms.var = np.array([0.5, 0, 0, 0]), np.array([4.0, 1, 1, 1])
    env.ret_rms.var = np.array(25.0)
    memory.generator = np.random.default_rng(3)
    batch = memory.sample(50, env=env)
    memory.generator = np.random.default_rng(3)
    rows = memory.generator.integers(30, size=50)
    np.testing.assert_allclose(batch.observations[:, 0].numpy(), (1.0 - 0.5) / 2, rtol=1e-5)
    np.testing.assert_allclose(batch.next_observations[:, 0].numpy(), (1.0 - 0.5) / 2, rtol=1e-5)
    np.testing.assert_allclose(batch.rewards[:, 0].numpy(), rewards[rows] / 5, rtol=1e-5)
    assert batch.rewards.dtype == th.float32 and batch.observations.dtype == th.float32


def test_training_passes_the_normalizer(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    sample = TaskMemory.sample
    monkeypatch.setattr(TaskMemory, "sample", lambda self, size, env=None: seen.append((size, env)) or sample(self, size, env))
    env = VecNormalize(DummyVecEnv([tagged_sequence]))
    agent = replaying(env, k=1)
    agent.learn(100)
    assert seen == [(16, env)] * 20


# Other options of NBSPSAC


def test_nbsp_sac_passes_its_options_on() -> None:
    agent = tiny(NBSPSAC, tagged_sequence(), masking=False, memory_size=33, replay_interval=4, replay_ent_coef="current")
    (replay,) = agent.all_interventions._all
    assert isinstance(replay, ExperienceReplay)
    assert (replay.memory_size, replay.replay_interval, replay.replay_ent_coef) == (33, 4, "current")
    assert tiny(NBSPSAC, tagged_sequence(), masking=False, replay=False).all_interventions._all == []
