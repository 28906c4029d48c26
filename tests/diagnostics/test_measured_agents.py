"""Which agents can be measured while they learn, and which are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from callback_checks import callback, ppo, rows, steps
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_nbsp import P3O, diagnostics
from sb3_nbsp.diagnostics.measure import MEASURES
from sb3_nbsp.interventions.observations import training_observations
from sb3_nbsp.interventions.own_seeds import own_seed


def test_a_policy_that_cannot_be_measured_is_an_error_before_training():
    contrib = pytest.importorskip("sb3_contrib")
    model = contrib.ARS("LinearPolicy", "CartPole-v1", device="cpu")
    with pytest.raises(ValueError, match=r"policy must be an ActorCriticPolicy, or one of .*, not a ARSLinearPolicy"):
        model.learn(100, callback(None))
    assert model.num_timesteps == 0


class Keep(BaseCallback):
    """Keeps what the policy has seen, and ends training at step ``stop``."""

    def __init__(self, stop: int) -> None:
        super().__init__()
        self.stop, self.seen = stop, []

    def _on_step(self) -> bool:
        self.seen.append(self.locals["obs_tensor"].numpy().copy())
        return self.num_timesteps < self.stop


@pytest.mark.parametrize("algo", [PPO, P3O])
@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.filterwarnings("ignore:CycleReset renews no neuron")
def test_a_rollout_that_was_stopped_is_measured_as_far_as_it_went(algo, n_envs, tmp_path):
    model, keep = ppo(algo, make_vec_env("Pendulum-v1", n_envs, seed=0)), Keep(stop=131 * n_envs)
    model.learn(400, [keep, callback(tmp_path, 1_000, n_states=1_000)])
    states = np.concatenate(keep.seen[100:130])  # the 131st step was not stored
    assert training_observations(model, 1, seed=0).numpy() == pytest.approx(states)
    expected = diagnostics(model, states, n_gradient_states=8, seed=own_seed(model, 131 * n_envs, purpose=401)).scalars()
    assert {name: float(rows(tmp_path)[-1][name]) for name in MEASURES} == pytest.approx(expected, rel=1e-5)


def test_a_rollout_that_was_stopped_at_its_first_step_is_not_measured(tmp_path):
    model = ppo()
    model.learn(400, [Keep(stop=101), callback(tmp_path, 50)])
    assert steps(tmp_path) == [0, 100]
    with pytest.raises(ValueError, match="buffer of this PPO is empty"):
        training_observations(model, 10, seed=0)


def test_policies_with_memory_are_refused_before_training():
    model = RecurrentPPO("MlpLstmPolicy", "Pendulum-v1", n_steps=64, batch_size=32)
    with pytest.raises(ValueError, match="RecurrentActorCriticPolicy also needs lstm_states, episode_starts"):
        model.learn(64, callback(None))
    assert model.num_timesteps == 0


def compile_in_place(policy: Any) -> None:
    policy.mlp_extractor.policy_net.compile(backend="eager")


def compile_network(policy: Any) -> None:
    policy.mlp_extractor.policy_net = th.compile(policy.mlp_extractor.policy_net, backend="eager")


@pytest.mark.parametrize("how", ["policy", compile_in_place, compile_network], ids=["the policy", "in place", "a network"])
def test_compiled_policies_are_measured_like_others(how, tmp_path):
    found = []
    for compiled in (False, True):
        model = ppo()
        if compiled and how == "policy":
            model.policy = th.compile(model.policy, backend="eager")
        elif compiled:
            how(model.policy)
        model.learn(200, callback(tmp_path / str(compiled), 100))
        found.append([float(row[name]) for row in rows(tmp_path / str(compiled)) for name in MEASURES])
    assert found[1] == pytest.approx(found[0], rel=1e-3) and len(found[0]) == 3 * len(MEASURES)
