"""Perfect memory: nothing is forgotten."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv
from tagged_tasks import TaggedTask, differing, parameters, tagged_sequence, tiny

from sb3_nbsp import PerfectMemorySAC
from sb3_nbsp.interventions.task_memory import StoredTransitions


def test_all_transitions_of_all_tasks_stay() -> None:
    agent = tiny(PerfectMemorySAC, tagged_sequence(), buffer_size=50)
    agent.learn(240)
    buffer = agent.replay_buffer
    assert (buffer.buffer_size, buffer.pos) == (240, 0) and buffer.full
    played = [observation.tolist() for tag in (1.0, 2.0) for observation, *_ in TaggedTask.played[tag]]
    assert sorted(map(list, buffer.observations[:, 0].tolist())) == sorted(played)
    assert len(played) == 240


def test_it_is_told_when_its_memory_is_to_be_emptied(tmp_path: Path) -> None:
    agent = tiny(PerfectMemorySAC, tagged_sequence())
    agent.save(tmp_path / "model")
    makers = [
        partial(tiny, PerfectMemorySAC, tagged_sequence(), clear_replay_buffer=True),
        partial(PerfectMemorySAC.load, tmp_path / "model", clear_replay_buffer=True),
    ]
    for make in makers:
        with pytest.raises(ValueError, match="clear_replay_buffer=True empties D, in which PerfectMemorySAC keeps"):
            make()
    assert PerfectMemorySAC.load(tmp_path / "model", clear_replay_buffer=False).clear_replay_buffer is False


def test_a_memory_that_would_forget_is_refused() -> None:
    agent = tiny(PerfectMemorySAC, tagged_sequence())
    agent.learn(50)
    for reset in (False, True):  # with True, the steps are counted anew, but D holds those of before
        with pytest.raises(
            ValueError, match=r"buffer_size=1000 forgets: D holds 50 transitions, .* adds 951; begin with .*=1001"
        ):
            agent.learn(951, reset_num_timesteps=reset)


def test_training_ends_with_a_whole_rollout() -> None:
    agent = tiny(PerfectMemorySAC, DummyVecEnv([tagged_sequence] * 3), buffer_size=50, train_freq=4)
    agent.learn(100)
    assert agent.num_timesteps == 108 and len(StoredTransitions(agent.replay_buffer)) == 108
    assert agent.replay_buffer.pos == 0  # nothing has been overwritten


def test_episodes_that_go_on_are_told() -> None:
    agent = tiny(PerfectMemorySAC, tagged_sequence(), buffer_size=50, train_freq=(1, "episode"))
    with pytest.warns(UserWarning, match="PerfectMemory forgets: an episode goes on beyond the steps of learn"):
        agent.learn(105)


def test_without_phases_it_is_sb3() -> None:
    agents = [tiny(PerfectMemorySAC, TaggedTask(1.0), fused=False).learn(60), tiny(SAC, TaggedTask(1.0)).learn(60)]
    assert differing(*map(parameters, agents)) == []
