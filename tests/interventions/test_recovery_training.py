"""Training for longer after a reset."""

from __future__ import annotations

from typing import Any

import pytest
from reset_checks import CASES
from tagged_tasks import RecordingLogger

from sb3_nbsp import ContinualPPO, ContinualSAC, CyclePPO
from sb3_nbsp.interventions import CycleReset, RandomReset, RecoveryTraining

TASK = CASES["ppo-tanh"]  # episodes of ten steps


def epochs_per_update(agent: Any, updates: int) -> list[int]:
    """Epochs of each update of 64 steps."""
    found = []
    for update in range(updates):
        before = agent._n_updates
        agent.learn(64, reset_num_timesteps=update == 0 and agent.num_timesteps == 0)
        found.append(agent._n_updates - before)
    return found


@pytest.mark.parametrize("reset", [CycleReset(128, 0.3), RandomReset(128, 0.3)])
def test_until_the_threshold(reset: Any) -> None:
    recovery = RecoveryTraining(-1e6, recovery_epochs=5)  # any episode is good enough
    agent = TASK.agent([reset, recovery])
    # Resets behind the 2nd and the 4th update: the update behind each is longer in any case
    assert epochs_per_update(agent, 5) == [2, 2, 7, 2, 7]
    recovery.reward_threshold = 1e6
    recovery.max_recovery_updates = 3
    # The 6th is still not good enough for the new threshold; behind it and the 8th come the next resets
    assert epochs_per_update(agent, 4) == [7, 7, 7, 7]
    reset.reset_frequency = 10**6
    agent.all_interventions.find(type(reset))._periods = 0
    assert epochs_per_update(agent, 4) == [7, 7, 2, 2]
    assert recovery.epochs == 40


def test_without_a_reset_nothing_happens() -> None:
    agent = TASK.agent([RecoveryTraining(1e6)])
    assert epochs_per_update(agent, 2) == [2, 2]


def test_only_episodes_since_the_renewal_count() -> None:
    recovery = RecoveryTraining(50.0, recovery_epochs=3)
    agent = TASK.agent([recovery])
    agent.learn(64)
    good, bad = {"r": 1000.0}, {"r": 40.0}
    agent.ep_info_buffer.clear()
    agent.ep_info_buffer.extend([good, good])
    recovery.after_renewal([])
    assert recovery.extra_epochs() == 3  # the first update in any case
    assert recovery.extra_epochs() == 3  # no episode yet
    agent.ep_info_buffer.append(bad)
    assert recovery.extra_epochs() == 3
    agent.ep_info_buffer.append({"r": 60.0})  # a mean of 50: equality is enough
    assert recovery.extra_epochs() == 0
    agent.ep_info_buffer.append(bad)
    assert recovery.extra_epochs() == 0  # once recovered, it stays so until the next renewal
    recovery.after_renewal([])
    agent.ep_info_buffer.extend([{"r": 60.0} for _ in range(100)])  # the last one before is no longer there
    assert recovery.extra_epochs() == 3
    assert recovery.extra_epochs() == 0


def test_records_and_state(tmp_path: Any) -> None:
    recovery = RecoveryTraining(1e6, 4, 6)
    agent = TASK.agent([CycleReset(64, 0.3), recovery])
    logger = RecordingLogger()
    agent.set_logger(logger)
    agent.learn(192)
    assert logger.values("recovery/epochs") == [0, 4, 8]
    agent.all_interventions.find(CycleReset).reset_frequency = 10**6
    agent.learn(64, reset_num_timesteps=False)
    agent.save(tmp_path / "model")
    loaded = ContinualPPO.load(tmp_path / "model", env=TASK.env())
    other = loaded.all_interventions.find(RecoveryTraining)
    assert other.state_dict() == recovery.state_dict() == {"updates_left": 5, "epochs": 12, "episodes_since": 6}
    assert [episode["r"] for episode in other._episodes_since()] == [episode["r"] for episode in recovery._episodes_since()]


def test_off_policy_agents_are_refused() -> None:
    with pytest.raises(ValueError, match="RecoveryTraining needs an on-policy agent, not a ContinualSAC"):
        ContinualSAC("MlpPolicy", TASK.env(), interventions=[RecoveryTraining()])


def test_the_papers_alternative_to_distillation() -> None:
    case = {"reset_frequency": 64, "reset_rate": 0.3, "n_steps": 64, "batch_size": 16, "n_epochs": 1, "seed": 0}
    agent = CyclePPO("MlpPolicy", TASK.env(), interventions=[RecoveryTraining(1e6, 2)], **case)
    agent.learn(128)
    assert agent._n_updates == 1 + 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("reward_threshold", value) for value in ("100", None, float("nan"))],
        *[("recovery_epochs", value) for value in (0, 1.5, None)],
        *[("max_recovery_updates", value) for value in (0, 1.5, None)],
    ],
)
def test_bad_options(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        RecoveryTraining(**{name: value})
