"""Replay buffers and memories of compressed images, on real Atari games."""

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env

from sb3_nbsp import NBSPDiscreteSAC
from sb3_nbsp.interventions import ExperienceReplay
from sb3_nbsp.interventions.compressed_buffer import CompressedImages, CompressedReplayBuffer, pack
from sb3_nbsp.interventions.observations import training_observations
from sb3_nbsp.interventions.task_memory import FIELDS, StoredTransitions, TaskMemory

pytest.importorskip("ale_py", reason="ale-py is not installed: pip install 'sb3_nbsp[atari]'")
pytest.importorskip("zstandard", reason="zstandard is not installed: pip install 'sb3_nbsp[atari]'")
GAMES = {"tasks": ["Breakout", "Pong"], "full_action_space": True, "max_frames": 60, "noop_max": 0, "steps_per_task": 12}
SMALL = {"net_arch": [8], "features_extractor_kwargs": {"features_dim": 8}}


def fill(buffers: list[ReplayBuffer], n_steps: int, n_envs: int) -> None:
    """The same random steps of Breakout for all of them."""
    env = make_vec_env("AtariCycle-v0", n_envs, seed=0, env_kwargs={**GAMES, "steps_per_task": 10_000})
    env.action_space.seed(0)
    observations = env.reset()
    for _ in range(n_steps):
        actions = np.array([env.action_space.sample() for _ in range(n_envs)])
        following, rewards, dones, infos = env.step(actions)
        real = following.copy()
        for index, done in enumerate(dones):
            if done:
                real[index] = infos[index]["terminal_observation"]
        for buffer in buffers:
            buffer.add(observations, real, actions, rewards, dones, infos)
        observations = following


def make_buffers(size: int, n_envs: int) -> tuple[ReplayBuffer, CompressedReplayBuffer]:
    spaces = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8), gym.spaces.Discrete(18)
    return tuple(kind(size, *spaces, "cpu", n_envs=n_envs) for kind in (ReplayBuffer, CompressedReplayBuffer))  # type: ignore


def assert_same_batches(first: ReplayBuffer, second: ReplayBuffer) -> None:
    batches = []
    for buffer in (first, second):
        np.random.seed(3)
        batches.append(buffer.sample(40))
    for name in ("observations", "actions", "next_observations", "dones", "rewards"):
        ours, theirs = (getattr(batch, name) for batch in batches)
        assert ours.dtype == theirs.dtype and th.equal(ours, theirs), name


@pytest.mark.parametrize("n_envs", [1, 2])
def test_batches_are_those_of_sb3(n_envs: int) -> None:
    """Before the buffer is full, and when it has begun anew."""
    plain, compressed = make_buffers(50, n_envs)
    for n_steps in (20, 45):
        fill([plain, compressed], n_steps, n_envs)
        assert_same_batches(plain, compressed)
    assert plain.full and compressed.full
    np.testing.assert_array_equal(compressed.observations[:5, 0], plain.observations[:5, 0])
    np.testing.assert_array_equal(compressed.observations[3, 0], plain.observations[3, 0])


def test_memory_is_a_small_part_and_each_image_is_stored_once() -> None:
    plain, compressed = make_buffers(100, 1)
    fill([plain, compressed], 100, 1)
    images = compressed.observations, compressed.next_observations
    assert sum(each.nbytes for each in images) < (plain.observations.nbytes + plain.next_observations.nbytes) / 15
    different = {id(data) for each in images for data in each.packed.flat}
    n_ends = int(plain.dones.sum())
    # A next observation is the following observation, but at an episode's end
    assert len(different) <= 100 + n_ends + 1
    compressed.reset()
    assert all(data is None for each in (compressed.observations, compressed.next_observations) for data in each.packed.flat)


def test_an_image_that_was_changed_in_place_is_another() -> None:
    stored, images = CompressedImages(2, 1, (4,)), np.zeros((1, 4), np.uint8)
    for row in range(2):
        stored[row] = images
        images += 1
    assert [stored[row].max() for row in range(2)] == [0, 1]


def test_memory_is_really_free() -> None:
    """A library may hand out a small object in a large block."""
    images = np.zeros((200, 4, 84, 84), np.uint8)
    images[:, 0, 0, 0] = np.arange(200)
    with traced() as allocated:
        packed = pack(images)
        now, _ = allocated()
    assert now < packed.nbytes + 200 * 200 < images.nbytes / 100


def test_the_end_of_a_phase_copies_no_image() -> None:
    """Neither as they are nor compressed, whether the task is new or comes back."""
    compressed = make_buffers(300, 1)[1]
    memory = TaskMemory(150, compressed, seed=0)
    for task in ("a", "b", "a"):
        fill([compressed], 300, 1)
        with traced() as allocated:
            memory.store(task, StoredTransitions(compressed))
            _, peak = allocated()
        # Pointers, actions and rewards. Half of D is kept, whose images would take as much compressed
        assert peak < compressed.observations.nbytes / 4, task
        compressed.reset()


@contextmanager
def traced() -> Iterator[Callable[[], tuple[int, int]]]:
    """Bytes that are allocated inside the block: now, and at most."""
    tracemalloc.start()
    try:
        yield tracemalloc.get_traced_memory
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("space", [gym.spaces.Box(0, 1, (4, 84, 84), np.float32), gym.spaces.Discrete(3)])
def test_only_bytes_are_compressed(space: gym.Space) -> None:
    with pytest.raises(ValueError, match=r"images of bytes .* but the observation space is"):
        CompressedReplayBuffer(10, space, gym.spaces.Discrete(2))
    with pytest.raises(ValueError, match="optimize_memory_usage must be False"):
        CompressedReplayBuffer(
            10, gym.spaces.Box(0, 255, (4, 8, 8), np.uint8), gym.spaces.Discrete(2), optimize_memory_usage=True
        )


def test_without_zstandard_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from sb3_nbsp.interventions import compressed_buffer

    compressed_buffer._zstandard.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs zstandard: pip install 'sb3_nbsp\[atari\]'"):
        CompressedReplayBuffer(10, gym.spaces.Box(0, 255, (4, 8, 8), np.uint8), gym.spaces.Discrete(2))


@pytest.mark.parametrize("n_envs", [1, 2])
def test_the_memory_takes_compressed_images_over_as_they_are(n_envs: int) -> None:
    buffers = make_buffers(40, n_envs)
    fill(list(buffers), 30, n_envs)
    memories = [TaskMemory(20, buffer, seed=0) for buffer in buffers]
    for memory, buffer in zip(memories, buffers, strict=True):
        memory.store("a", StoredTransitions(buffer))
        memory.store("b", StoredTransitions(buffer, 12))
        memory.store("a", StoredTransitions(buffer))
    plain, compressed = memories
    assert plain.tasks == compressed.tasks == {"a": 10, "b": 10}
    own = {id(data) for data in buffers[1].observations.packed.flat}
    assert {id(data) for data in compressed.observations} <= own
    assert_same_batches(plain, compressed)
    # Files of either kind load into both
    for source in memories:
        for target_like in buffers:
            target = TaskMemory(20, target_like, seed=1)
            target.restore(source.contents())
            for name in FIELDS[:2]:
                np.testing.assert_array_equal(target.observed(name, np.arange(20)), getattr(plain, name))


def learn_dqn(buffer: type[ReplayBuffer]) -> DQN:
    env = make_vec_env("AtariCycle-v0", env_kwargs=GAMES, seed=1)
    model = DQN(
        "CnnPolicy",
        env,
        replay_buffer_class=buffer,
        buffer_size=30,
        learning_starts=20,
        batch_size=4,
        target_update_interval=8,
        policy_kwargs=SMALL,
        seed=1,
        device="cpu",
    )
    return model.learn(40)


def test_a_run_of_dqn_is_that_of_sb3_saved_and_loaded_too(tmp_path) -> None:
    plain, compressed = learn_dqn(ReplayBuffer), learn_dqn(CompressedReplayBuffer)
    for name, values in plain.policy.state_dict().items():
        assert th.equal(values, compressed.policy.state_dict()[name]), name
    compressed.save_replay_buffer(tmp_path / "buffer")
    assert (tmp_path / "buffer.pkl").stat().st_size < plain.replay_buffer.observations.nbytes / 4  # type: ignore[union-attr]
    compressed.load_replay_buffer(tmp_path / "buffer")
    assert plain.replay_buffer is not None and isinstance(compressed.replay_buffer, CompressedReplayBuffer)
    assert_same_batches(plain.replay_buffer, compressed.replay_buffer)
    assert th.equal(training_observations(plain, 9, seed=0), training_observations(compressed, 9, seed=0))


def make_nbsp(buffer: type[ReplayBuffer], n_envs: int = 1) -> NBSPDiscreteSAC:
    env = make_vec_env("AtariCycle-v0", n_envs, env_kwargs=GAMES, seed=1)
    return NBSPDiscreteSAC(
        "CnnPolicy",
        env,
        replay_buffer_class=buffer,
        buffer_size=40,
        learning_starts=6,
        batch_size=4,
        memory_size=20,
        replay_interval=2,
        identification_steps=8,
        policy_kwargs=SMALL,
        seed=1,
        device="cpu",
    )


@pytest.mark.filterwarnings("ignore:Skill neurons are identified on", "ignore:No skill neurons are identified")
@pytest.mark.parametrize("n_envs", [1, 2])
def test_a_run_of_nbsp_is_the_same_with_compressed_images(n_envs: int, tmp_path) -> None:
    """Through a boundary: D_pre, fresh identification, batches of both; and it is saved and resumed."""
    plain, compressed = (make_nbsp(buffer, n_envs).learn(20 * n_envs) for buffer in (ReplayBuffer, CompressedReplayBuffer))
    assert plain.n_finished_phases == compressed.n_finished_phases >= 1
    for name, values in plain.policy.state_dict().items():
        assert th.equal(values, compressed.policy.state_dict()[name]), name
    compressed.save(tmp_path / "model")
    compressed.save_replay_buffer(tmp_path / "buffer")
    loaded = NBSPDiscreteSAC.load(tmp_path / "model", env=compressed.env, device="cpu")
    loaded.load_replay_buffer(tmp_path / "buffer")
    memories = [model.all_interventions.find(ExperienceReplay).memory for model in (plain, loaded)]
    assert memories[0] is not None and memories[1] is not None
    assert isinstance(loaded.replay_buffer, CompressedReplayBuffer)
    assert isinstance(loaded.replay_buffer.observations, CompressedImages)
    assert memories[1].observations.dtype == object
    assert_same_batches(*memories)
    loaded.learn(4, reset_num_timesteps=False)
