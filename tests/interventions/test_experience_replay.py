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
from sb3_nbsp.interventions import ExperienceReplay
from sb3_nbsp.interventions.task_memory import StoredTransitions, TaskMemory

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
