"""Without an extra: what needs it says which. (tools/extras.py tries each in an environment of its own.)"""

import importlib
import sys

import gymnasium as gym
import pytest


@pytest.mark.parametrize(
    "module, missing, extra",
    [
        ("sb3_nbsp.benchmark", "filelock", "benchmark"),
        ("sb3_nbsp.benchmark.style", "seaborn", "benchmark"),
        ("sb3_nbsp.diagnostics.figure", "matplotlib", "plots"),
        ("sb3_nbsp.zoo.algos", "yaml", "zoo"),
        ("sb3_nbsp.zoo.registration", "optuna", "zoo"),
        ("sb3_nbsp.zoo.manager", "rl_zoo3.exp_manager", "zoo"),
    ],
)
def test_a_module_names_the_extra_that_it_needs(module, missing, extra, monkeypatch):
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match=rf"needs {missing}.*pip install 'sb3_nbsp\[{extra}\]'") as raised:
        importlib.import_module(module)
    assert raised.value.name == missing


@pytest.mark.parametrize(
    "env_id, missing, extra",
    [
        ("MW-WindowOpen-WindowClose-v0", "metaworld", "metaworld"),
        ("CycleFriction-Hopper-v5", "gymnasium.envs.mujoco.hopper_v5", "mujoco"),
    ],
)
def test_an_environment_names_the_extra_that_it_needs(env_id, missing, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"pip install 'sb3_nbsp\[{extra}\]'"):
        gym.make(env_id)
