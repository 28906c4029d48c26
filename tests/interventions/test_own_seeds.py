"""Random numbers of interventions, beside those of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stable_baselines3 import SAC
from tagged_tasks import TaggedTask, random_states, tiny

from sb3_nbsp import ContinualPPO, ContinualSAC
from sb3_nbsp.interventions import Phase
from sb3_nbsp.interventions.own_seeds import own_seed


def test_own_seeds_differ() -> None:
    agents = [tiny(SAC, TaggedTask(1.0), seed=seed) for seed in (None, None, 0, 1)]
    seeds = [own_seed(agent, Phase(phase, "red"), purpose) for agent in agents for phase in (0, 1) for purpose in (0, 1)]
    assert len(set(seeds)) == 16
    for agent, first in zip(agents, seeds[::4], strict=True):
        assert own_seed(agent, Phase(0, "blue"), 0) == first
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize("cls", [ContinualSAC, ContinualPPO])
def test_an_agent_without_a_seed_draws_one_and_keeps_it(tmp_path: Path, cls: Any) -> None:
    def make(seed: int | None = None) -> Any:
        return cls("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, seed=seed, device="cpu")

    before = random_states()
    agents = [make(), make()]
    drawn = [own_seed(agent, 3, 1) for agent in agents]
    # Of the global random streams, PyTorch's initialized the networks; NumPy's was left alone
    assert random_states()[0] == before[0]
    assert drawn[0] != drawn[1]
    agents[0].save(tmp_path / "model")
    assert own_seed(cls.load(tmp_path / "model"), 3, 1) == drawn[0]  # its resets go on as they would have
    assert own_seed(cls.load(tmp_path / "model", seed=4), 3, 1) == own_seed(make(4), 3, 1)
