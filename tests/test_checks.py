from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sb3_nbsp import NBSPSAC, P3O, PlasticityCallback
from sb3_nbsp.checks import check_option, check_range, whole
from sb3_nbsp.interventions import CycleReset, GradientMasking
from sb3_nbsp.tasks import SequenceCheckpoint


@pytest.mark.parametrize("value", [3, 3.0, np.int32(3), np.float32(3), 1e4])
def test_a_whole_number_may_be_a_float(value: Any) -> None:
    found = whole("x", value, 1)
    assert found == value and type(found) is int


@pytest.mark.parametrize("value", [0, 2.5, True, "3", None, float("nan"), float("inf"), np.float64(1.5)])
def test_what_is_not_whole_is_an_error(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^x must be a whole number of at least 1, not "):
        whole("x", value, 1)
    with pytest.raises(ValueError, match=r"^x must be a whole number from 1 to 9, not "):
        whole("x", value, 1, 9)


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), np.int64(1)])
def test_check_range_accepts(value: Any) -> None:
    check_range("x", value, 0, 1)


@pytest.mark.parametrize("value", [-1e-9, 1.1, float("nan"), float("inf"), "0.5", None, True, [0.5], 1j])
def test_check_range_refuses(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^x must be a number in \[0, 1\], not "):
        check_range("x", value, 0, 1)


def test_check_range_of_an_open_interval() -> None:
    with pytest.raises(ValueError, match=r"^x must be a number in \(0, 1\], not 0$"):
        check_range("x", 0, 0, 1, low_open=True)


def test_an_unbounded_range_has_no_infinity_unless_it_means_something() -> None:
    for value in (float("inf"), float("-inf")):
        with pytest.raises(ValueError, match=r"^x must be a number in \[-inf, inf\), not "):
            check_range("x", value, -np.inf)
        check_range("x", value, -np.inf, infinite=True)
    with pytest.raises(ValueError, match=r"^x must be a number in \[0, inf\], not nan"):
        check_range("x", float("nan"), 0, infinite=True)


def test_check_option() -> None:
    check_option("x", "a", ("a", "b"))
    with pytest.raises(ValueError, match=r"^x must be one of 'a', 'b', not 'c'$"):
        check_option("x", "c", ("a", "b"))


def test_options_that_count_take_whole_floats() -> None:
    short = {"env_ids": ["Pendulum-v1"], "env_kwargs": {"max_episode_steps": 50}}
    env = gym.make("GymCycle-v0", cycles=2.0, steps_per_task=1e2, mastery_window=1e1, **short)
    sizes: dict[str, Any] = {"learning_starts": 10, "batch_size": 8, "policy_kwargs": {"net_arch": [8]}, "device": "cpu"}
    counts = {"identification_steps": 1e2, "memory_size": 1e1, "replay_interval": 2.0, "probe_episodes": 1e0}
    model = NBSPSAC("MlpPolicy", env, identification="activation", **counts, **sizes)
    model.learn(110, PlasticityCallback(record_freq=1e2, n_states=1e1, n_gradient_states=4.0))
    assert model.phase.index == 1 and model.all_interventions.find(GradientMasking).skill_neurons.keys() == {"Pendulum-v1"}
    rollouts: dict[str, Any] = {"n_steps": 20, "batch_size": 10, "n_epochs": 1, "device": "cpu"}
    P3O("MlpPolicy", "Pendulum-v1", reset_frequency=2e1, max_distill_epochs=1e0, **rollouts).learn(20)
    assert type(CycleReset(reset_frequency=1e3).reset_frequency) is int
    assert SequenceCheckpoint(1e3, "somewhere").save_freq == 1000
