"""Agents whose phases end by a time limit around the sequence, or by the reset with which learn() begins."""

from typing import Any

import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.vec_env import DummyVecEnv
from tagged_tasks import tagged_sequence, tiny

from sb3_nbsp import ContinualPPO, ContinualSAC
from sb3_nbsp.interventions import Intervention, Phase
from sb3_nbsp.tasks import SequenceEvaluation

AGENTS = [ContinualSAC, ContinualPPO]


class Ends(Intervention):
    """Keeps the phases that have ended."""

    def __init__(self) -> None:
        self.ends: list[Phase] = []

    def on_phase_end(self, phase: Phase) -> None:
        self.ends.append(phase)


def agent(cls: type, env: Any, **kwargs: Any) -> Any:
    if cls is ContinualSAC:
        return tiny(cls, env, **kwargs)
    return cls("MlpPolicy", env, n_steps=8, batch_size=8, n_epochs=1, policy_kwargs={"net_arch": [4]}, device="cpu", **kwargs)


@pytest.mark.parametrize("cls", AGENTS)
@pytest.mark.parametrize("n_envs", [1, 2])
def test_a_time_limit_around_the_sequence(cls: type, n_envs: int) -> None:
    spy = Ends()
    # Phases of 60 steps, episodes of 10: with a limit of 8 they have 64
    env = DummyVecEnv([lambda: TimeLimit(tagged_sequence(), 8)] * n_envs)
    evaluation = SequenceEvaluation(n_eval_episodes=1, progress_bar=False)
    model = agent(cls, env, interventions=[spy])
    model.learn(2000, evaluation)
    assert [phase.task for phase in spy.ends] == ["red", "blue"] * 2
    assert evaluation.matrix is not None
    assert evaluation.matrix.phase_tasks == ["red", "blue"] * 2
    assert not np.isnan(evaluation.matrix.rows).any()
    assert model.n_finished_phases == 4
    assert model.num_timesteps in range(4 * 64 * n_envs, 4 * 64 * n_envs + 8 * n_envs + 16)


@pytest.mark.parametrize("cls", AGENTS)
@pytest.mark.parametrize("n_envs", [1, 2])
def test_calls_of_learn_that_are_shorter_than_an_episode(cls: type, n_envs: int) -> None:
    spy = Ends()
    env = DummyVecEnv([tagged_sequence] * n_envs)
    evaluation = SequenceEvaluation(n_eval_episodes=1, progress_bar=False)
    model = agent(cls, env, interventions=[spy])
    for _ in range(4 * 60 // 8 + 4):
        model.learn(8 * n_envs, evaluation)  # begins with a reset
        if model.n_finished_phases == 4:
            break
    assert [phase.task for phase in spy.ends] == ["red", "blue"] * 2
    assert evaluation.matrix is not None
    assert evaluation.matrix.phase_tasks == ["red", "blue"] * 2
    assert not np.isnan(evaluation.matrix.rows).any()
    assert model._sequence_over


def test_environments_that_a_reset_leaves_in_two_phases_come_together() -> None:
    spy = Ends()
    env = DummyVecEnv([tagged_sequence] * 2)
    model = agent(ContinualSAC, env, interventions=[spy])
    model.learn(2 * 55)
    env.env_method("set_progress", {**env.env_method("get_progress")[0], "phase_steps": 59}, indices=0)
    model.learn(2 * 2)  # its reset ends nothing: set_progress() has begun an episode
    model.learn(2 * 20)  # its reset ends the first one's phase
    assert env.get_attr("phase") == [1, 1]
    assert [phase.task for phase in spy.ends] == ["red"]
    assert model.phase.task == "blue"
    assert not model._crossed.any()
