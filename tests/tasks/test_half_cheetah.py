"""HalfCheetah in two directions: what is rewarded, what is a success, and that the observation tells the direction."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_checker import check_env

from sb3_nbsp import NBSPSAC
from sb3_nbsp.tasks import TaskSequence
from sb3_nbsp.tasks.half_cheetah import half_cheetah_directions
from sb3_nbsp.tasks.registration import is_sequence

pytest.importorskip("mujoco")
ENV_ID = "HalfCheetah-Directions-v0"


def push(env: gym.Env, velocity: float, steps: int) -> list[dict[str, Any]]:
    """What the environment says when something pulls the cheetah along."""
    infos = []
    for _ in range(steps):
        env.unwrapped._env().unwrapped.data.qvel[0] = velocity  # type: ignore[attr-defined]
        infos.append(env.step(np.zeros(6, dtype=np.float32)))
    return infos


def test_the_sequence() -> None:
    env = gym.make(ENV_ID)
    sequence = env.unwrapped
    assert isinstance(sequence, TaskSequence) and is_sequence(ENV_ID)
    assert (sequence.tasks, sequence.n_phases, sequence.steps_per_task) == (["forwards", "backwards"], 4, 40_000)
    assert sequence.mastery_threshold is None
    check_env(half_cheetah_directions(), warn=False)


@pytest.mark.parametrize(("phase", "sign"), [(0, 1.0), (1, -1.0)])
def test_each_task_wants_its_direction(phase: int, sign: float) -> None:
    env = gym.make(ENV_ID, horizon=40, distance=2.0, steps_per_task=40)
    env.reset(seed=3)
    for _ in range(phase * 40):
        env.step(env.action_space.sample())
    observation, info = env.reset()
    assert info["task"] == ["forwards", "backwards"][phase]
    assert observation[-1] == sign and observation in env.observation_space and observation.shape == (18,)
    right = push(env, 5.0 * sign, 15)
    assert all(reward > 0 for _, reward, *_ in right) and right[-1][0][-1] == sign
    successes = [step[-1]["success"] for step in right]
    assert successes[0] == 0.0 and successes[-1] == 1.0 and sorted(successes) == successes
    first = successes.index(1.0)  # 2 metres from where it began, in about 2 / (5 * 0.05) steps
    assert 6 <= first <= 12
    env.reset()
    wrong = push(env, -5.0 * sign, 15)
    assert all(reward < 0 for _, reward, *_ in wrong) and not any(step[-1]["success"] for step in wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["sideways"]}, "tasks: .'sideways'. are not among"),
        ({"horizon": 0}, "horizon must be"),
        ({"distance": 0.0}, "distance must be"),
        ({"distance": np.nan}, "distance must be"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gym.make(ENV_ID, **options)


def test_an_agent_goes_through_its_phases() -> None:
    env = gym.make(ENV_ID, horizon=20, distance=0.01, steps_per_task=60)
    policy_kwargs = {"net_arch": [16]}
    model = NBSPSAC(
        "MlpPolicy", env, learning_starts=30, identification_steps=200, policy_kwargs=policy_kwargs, seed=1, device="cpu"
    )
    model.learn(130)
    assert model.phase.task == "forwards" and model.phase.index == 2
