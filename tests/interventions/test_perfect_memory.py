"""Perfect memory: nothing is forgotten."""

from __future__ import annotations

import pytest
from stable_baselines3 import SAC
from tagged_tasks import TaggedTask, differing, parameters, tagged_sequence, tiny

from sb3_nbsp import PerfectMemorySAC


def test_all_transitions_of_all_tasks_stay() -> None:
    agent = tiny(PerfectMemorySAC, tagged_sequence(), buffer_size=50)
    agent.learn(240)
    buffer = agent.replay_buffer
    assert (buffer.buffer_size, buffer.pos) == (240, 0) and buffer.full
    played = [observation.tolist() for tag in (1.0, 2.0) for observation, *_ in TaggedTask.played[tag]]
    assert sorted(map(list, buffer.observations[:, 0].tolist())) == sorted(played)
    assert len(played) == 240


def test_a_memory_that_would_forget_is_refused() -> None:
    agent = tiny(PerfectMemorySAC, tagged_sequence())
    agent.learn(50)
    with pytest.raises(ValueError, match="buffer_size=1000 forgets: this call of learn\\(\\) ends at step 1051"):
        agent.learn(1001, reset_num_timesteps=False)


def test_without_phases_it_is_sb3() -> None:
    agents = [tiny(PerfectMemorySAC, TaggedTask(1.0), fused=False).learn(60), tiny(SAC, TaggedTask(1.0)).learn(60)]
    assert differing(*map(parameters, agents)) == []
