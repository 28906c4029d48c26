"""The last rollout may go past the total, but no schedule goes below 0."""

from __future__ import annotations

from typing import Any

import pytest
from stable_baselines3 import PPO, SAC

from sb3_nbsp import P3O, ContinualSAC

SMALL: dict[str, dict[str, Any]] = {
    "on-policy": {"n_steps": 64, "batch_size": 32, "n_epochs": 1, "clip_range": lambda left: 0.2 * left},
    "off-policy": {"train_freq": 64, "learning_starts": 10, "batch_size": 8, "buffer_size": 200},
}


@pytest.mark.parametrize(("ours", "theirs", "kind"), [(P3O, PPO, "on-policy"), (ContinualSAC, SAC, "off-policy")])
def test_schedules_end_at_zero(ours: type[Any], theirs: type[Any], kind: str) -> None:
    ends = []
    for cls in (theirs, ours):
        agent = cls("MlpPolicy", "Pendulum-v1", learning_rate=lambda left: 1e-3 * left, **SMALL[kind]).learn(100)
        assert agent.num_timesteps == 128
        rate = (agent.policy if kind == "on-policy" else agent.actor).optimizer.param_groups[0]["lr"]
        ends.append((agent._current_progress_remaining, rate))
    assert ends[0] == pytest.approx((-0.28, -0.28e-3))  # what the agents of this package differ in
    assert ends[1] == (0.0, 0.0)


def test_the_schedule_of_the_critics_ends_at_zero() -> None:
    seen: list[float] = []

    def schedule(left: float) -> float:
        seen.append(left)
        return 1e-3 * left

    ContinualSAC("MlpPolicy", "Pendulum-v1", qf_learning_rate=schedule, **SMALL["off-policy"]).learn(100)
    assert min(seen) == 0.0
