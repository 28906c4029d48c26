"""Agents that renew neurons: inactive they are SB3's, and a saved one goes on as if nothing had been."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO, SAC
from tagged_tasks import differing

from sb3_nbsp import CBPPPO, CBPSAC, ContinualPPO, ContinualSAC, ReDoPPO, ReDoSAC
from sb3_nbsp.interventions import (
    ContinualBackprop,
    CycleReset,
    InnerDistillation,
    Intervention,
    RandomReset,
    RecoveryTraining,
    ReDo,
)
from sb3_nbsp.neurons import CReLU

SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [12, 10]}, "batch_size": 32, "seed": 3, "device": "cpu"}
ROLLOUT: dict[str, Any] = {"n_steps": 128, "n_epochs": 3, "learning_rate": 1e-3}


def ended(agent: Any, steps: int) -> dict[str, th.Tensor]:
    agent.learn(steps)
    return {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}


@pytest.mark.parametrize("cls", [CBPPPO, ReDoPPO])
def test_inactive_it_is_ppo_of_sb3(cls: type) -> None:
    options = {"reset_rate": 0.1} if cls is ReDoPPO else {}
    ours = ended(cls("MlpPolicy", "Pendulum-v1", fused=False, **SMALL, **ROLLOUT, **options), 384)
    assert differing(ours, ended(PPO("MlpPolicy", "Pendulum-v1", **SMALL, **ROLLOUT), 384)) == []


@pytest.mark.parametrize("cls", [CBPSAC, ReDoSAC])
def test_inactive_it_is_sac_of_sb3(cls: type) -> None:
    options = {"reset_rate": 0.1} if cls is ReDoSAC else {}
    ours = ended(cls("MlpPolicy", "Pendulum-v1", **SMALL, **options, fused=False), 160)
    assert differing(ours, ended(SAC("MlpPolicy", "Pendulum-v1", **SMALL), 160)) == []


def resets() -> dict[str, list[Intervention]]:
    distillation = InnerDistillation(max_distill_epochs=2)
    cbp = ContinualBackprop(0.02, 5, 0.9)
    return {
        "cbp": [cbp],
        "cbp and distillation": [cbp, distillation],
        "redo": [ReDo(128, 0.2)],
        "redo by threshold and distillation": [ReDo(128, dormant_threshold=0.9), distillation],
        "random": [RandomReset(128, 0.15)],
        "random and distillation": [RandomReset(128, 0.15), distillation],
        "recovery": [CycleReset(256, 0.2), RecoveryTraining(-500.0, 2)],
        "all": [CycleReset(256, 0.2), cbp, ReDo(128, 0.1), RandomReset(256, 0.1), distillation],
    }


@pytest.mark.parametrize(
    ("name", "env_id"),
    [*[(name, "Pendulum-v1") for name in resets()], ("cbp and distillation", "Hopper-v5"), ("all", "Hopper-v5")],
)
def test_saved_and_continued_it_is_one_run(name: str, env_id: str, tmp_path: Any) -> None:
    arch = {"net_arch": [12, 10], "activation_fn": CReLU} if "redo" in name else {"net_arch": [12, 10]}
    options = {**SMALL, **ROLLOUT, "policy_kwargs": arch}

    def make() -> Any:
        return ContinualPPO("MlpPolicy", gym.make(env_id), interventions=resets()[name], **options)

    whole = make()
    whole.learn(768)
    first = make()
    first.learn(384)
    first.save(tmp_path / "model")
    numpy_state, torch_state = np.random.get_state(), th.get_rng_state()
    env = first.get_env()
    del first
    second = ContinualPPO.load(tmp_path / "model", env=_Unseeded(env), force_reset=False)
    np.random.set_state(numpy_state)
    th.set_rng_state(torch_state)
    second.learn(384, reset_num_timesteps=False)
    assert differing(dict(whole.policy.state_dict()), dict(second.policy.state_dict())) == []
    for mine, other in zip(whole.all_interventions, second.all_interventions, strict=True):
        th.testing.assert_close(mine.state_dict(), other.state_dict(), rtol=0, atol=0)
        if isinstance(mine, (ContinualBackprop, ReDo, RandomReset)):
            assert mine._n_renewals >= 2
    moments = [[*agent.policy.optimizer.state_dict()["state"].values()] for agent in (whole, second)]
    th.testing.assert_close(moments[0], moments[1], rtol=0, atol=0)


class _Unseeded:
    """Loading seeds an environment, in the midst of an episode too; this one is to go on as it was."""

    def __new__(cls, env: Any) -> Any:
        env.seed = lambda seed=None: [None]
        return env


@pytest.mark.parametrize("name", [name for name in resets() if name != "recovery"])
def test_methods_run_on_sac(name: str) -> None:
    interventions = resets()[name]
    for each in interventions:
        if isinstance(each, InnerDistillation):
            each.distill_states = 64
    agent = ContinualSAC("MlpPolicy", "Pendulum-v1", interventions=interventions, learning_starts=50, **SMALL)
    agent.learn(300)
    counts = [
        counts for each in agent.all_interventions if hasattr(each, "reset_counts") for counts in each.reset_counts.values()
    ]
    assert sum(int(each.sum()) for each in counts) > 0
    assert all(tensor.isfinite().all() for tensor in agent.policy.state_dict().values())
