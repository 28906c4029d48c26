"""Dictionary observations: every method does what it does on the same numbers as one vector; D_pre and HER on goals."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from discrete_tasks import pole
from discrete_tasks import tiny as tiny_discrete
from gymnasium import spaces
from gymnasium.wrappers import TransformObservation
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv, SimpleMultiObsEnv
from tagged_tasks import TaggedTask, parameters, tagged_sequence, tiny

from sb3_nbsp import (
    ANCLSAC,
    CBPPPO,
    CBPSAC,
    EWCSAC,
    NBSPSAC,
    NPCSAC,
    P3O,
    SBPSAC,
    ClonExSAC,
    ContinualSAC,
    CoTASPSAC,
    NBSPDiscreteSAC,
    PackNetDiscreteSAC,
    PackNetSAC,
    PerfectMemorySAC,
    ReDoPPO,
)
from sb3_nbsp.diagnostics import PlasticityCallback, diagnostics
from sb3_nbsp.interventions import ExperienceReplay
from sb3_nbsp.tasks import SequenceEvaluation, TaskSequence

METHODS: dict[Any, dict[str, Any]] = {
    NBSPSAC: {"replay_interval": 2, "skill_proportion": 0.5},
    SBPSAC: {"reset_frequency": 12, "reset_rate": 0.5, "max_distill_epochs": 2, "distill_states": 20},
    CBPSAC: {"replacement_rate": 0.1, "maturity_threshold": 2},
    EWCSAC: {"ewc_critic_coef": 1.0, "fisher_states": 16},
    ANCLSAC: {"fisher_states": 16, "aux_fisher_states": 8, "aux_fisher_interval": 3},
    ClonExSAC: {"clone_critic_coef": 1.0, "clone_batch_size": 8, "best_return_exploration": True},
    NPCSAC: {"npc_clock": "phases"},
    PackNetSAC: {"retrain_steps": 3},
    CoTASPSAC: {"lasso_weight": 1e-5, "distill_steps": 3, "weight_steps": 4, "code_steps": 2},
    P3O: {"reset_frequency": 20, "reset_rate": 0.5, "max_distill_epochs": 2},
    CBPPPO: {"replacement_rate": 0.1, "maturity_threshold": 2},
    ReDoPPO: {"reset_frequency": 20, "reset_rate": 0.5},
    NBSPDiscreteSAC: {"identification_data": "training", "identification": "causal", "replay_interval": 2},
    PackNetDiscreteSAC: {"retrain_steps": 3},
}


def as_dictionary(env: gym.Env) -> gym.Env:
    return TransformObservation(env, lambda observation: {"all": observation}, spaces.Dict({"all": env.observation_space}))


def task(is_discrete: bool, is_dictionary: bool, position: int, render_mode: str | None = None) -> gym.Env:
    env = pole(10 + position) if is_discrete else TaggedTask(1.0 + position)
    return as_dictionary(env) if is_dictionary else env


def trained(cls: Any, is_dictionary: bool) -> Any:
    is_discrete = "Discrete" in cls.__name__
    makers = {name: partial(task, is_discrete, is_dictionary, i) for i, name in enumerate(("red", "blue"))}
    env = TaskSequence(makers, cycles=1, steps_per_task=40, mastery_threshold=None)
    policy = "MultiInputPolicy" if is_dictionary else "MlpPolicy"
    agent = (tiny_discrete if is_discrete else tiny)(cls, env, policy=policy, fused=False, **METHODS[cls])
    return agent.learn(1000)


@pytest.mark.parametrize("cls", METHODS)
def test_a_dictionary_of_one_vector_is_that_vector(cls: Any) -> None:
    plain, dictionary = (trained(cls, is_dictionary) for is_dictionary in (False, True))
    assert plain.n_finished_phases == dictionary.n_finished_phases == 2
    # The distillation of PPO is by hand on vectors, which rounds otherwise
    tolerance = {"rtol": 1e-3, "atol": 1e-5} if cls is P3O else {"rtol": 0, "atol": 0}
    of_plain, of_dictionary = parameters(plain), parameters(dictionary)
    th.testing.assert_close(of_dictionary, of_plain, **tolerance)
    states = np.random.default_rng(0).normal(size=(20, *plain.observation_space.shape)).astype(np.float32)
    assert diagnostics(dictionary, {"all": states}).scalars() == pytest.approx(diagnostics(plain, states).scalars(), rel=1e-2)


def test_states_for_diagnostics() -> None:
    agent = tiny(ContinualSAC, as_dictionary(TaggedTask(1.0)), policy="MultiInputPolicy")
    states = np.zeros((3, 4), np.float32)
    for wrong, message in (
        (states, r"a dictionary with the keys \['all'\], not a tensor"),
        ({"other": states}, r"keys \['all'\], not .* \['other'\]"),
        ({"all": states[:, :2]}, r"shape \(states, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            diagnostics(agent, wrong)
    with pytest.raises(ValueError, match="a tensor or an array, not a dictionary"):
        diagnostics(tiny(ContinualSAC, TaggedTask(1.0)), {"all": states})
    two = tiny(ContinualSAC, SimpleMultiObsEnv(discrete_actions=False), policy="MultiInputPolicy")
    with pytest.raises(ValueError, match="the same number of states"):
        diagnostics(two, {"vec": np.zeros((3, 5)), "img": np.zeros((2, 1, 64, 64), np.uint8)})


# D_pre, and hindsight experience replay


def flips(cycles: int = 1) -> TaskSequence:
    makers = {f"{steps} steps": lambda render_mode=None, n=steps: BitFlippingEnv(4, True, max_steps=n) for steps in (8, 10)}
    return TaskSequence(makers, cycles=cycles, steps_per_task=40, mastery_threshold=None)


HINDSIGHT = {"replay_buffer_class": HerReplayBuffer, "policy": "MultiInputPolicy"}


def test_the_memory_keeps_dictionaries_as_they_were_played(tmp_path: Path) -> None:
    agent = tiny(NBSPSAC, flips(), replay_interval=2, memory_size=30, seed=3, **HINDSIGHT)
    agent.pause_at_boundary()
    agent.learn(1000)
    buffer = agent.replay_buffer
    played = {key: part[: buffer.size(), 0].copy() for key, part in buffer.observations.items()}
    # D relabels; what D_pre gets is what was played
    assert not (buffer.sample(64).observations["desired_goal"] == 1).all()
    agent.learn(1000, reset_num_timesteps=False)
    memory = agent.all_interventions.find(ExperienceReplay).memory
    assert list(memory.tasks.values()) == [15, 15]
    rows = np.stack([memory.observations[key][:15] for key in played], axis=1)
    known = np.stack(list(played.values()), axis=1)
    assert all((row == known).all(axis=(1, 2)).any() for row in rows)
    batch = memory.sample(20)
    assert set(batch.observations) == set(batch.next_observations) == set(played)
    assert (batch.observations["desired_goal"] == 1).all() and batch.rewards.shape == (20, 1)
    # It travels with the replay buffer
    agent.save_replay_buffer(tmp_path / "buffer")
    other = tiny(NBSPSAC, flips(), memory_size=30, **HINDSIGHT)
    other.load_replay_buffer(tmp_path / "buffer", truncate_last_traj=False)
    loaded = other.all_interventions.find(ExperienceReplay).memory
    assert loaded.tasks == memory.tasks
    for key in played:
        np.testing.assert_array_equal(loaded.observations[key], memory.observations[key])
    plain = tiny(NBSPSAC, tagged_sequence())
    with pytest.raises(ValueError, match="obs_shape"):
        plain.load_replay_buffer(tmp_path / "buffer")


class Scaled(BitFlippingEnv):
    """Goals are worth more."""

    def compute_reward(self, *args: Any) -> Any:
        return 100 * super().compute_reward(*args)


def test_the_end_of_a_phase_relabels_with_the_rewards_of_its_task() -> None:
    makers = {
        "one": lambda render_mode=None: BitFlippingEnv(4, True, 8),
        "hundred": lambda render_mode=None: Scaled(4, True, 8),
    }
    env = TaskSequence(makers, cycles=1, steps_per_task=16, mastery_threshold=None)
    agent = tiny(PackNetSAC, env, retrain_steps=10, learning_starts=1000, phase_learning_starts=1000, **HINDSIGHT)
    sample, drawn = agent.replay_buffer.sample, []

    def watched(*args: Any, **kwargs: Any) -> Any:
        drawn.append(sample(*args, **kwargs))
        return drawn[-1]

    agent.replay_buffer.sample = watched
    agent.learn(1000)
    rewards = th.cat([batch.rewards for batch in drawn])
    assert len(drawn) == 10 and set(rewards.flatten().tolist()) == {-1.0, 0.0}


@pytest.mark.parametrize("cls", [ContinualSAC, PerfectMemorySAC])
def test_hindsight_needs_an_empty_buffer(cls: Any) -> None:
    options = {} if cls is PerfectMemorySAC else {"clear_replay_buffer": False}
    with pytest.raises(ValueError, match=r"HerReplayBuffer .* clear_replay_buffer=True"):
        tiny(cls, flips(), **HINDSIGHT, **options)
    # On a single task there is nothing to relabel wrongly, until another is announced
    agent = tiny(cls, BitFlippingEnv(4, True, 8), **HINDSIGHT, **options).learn(30)
    with pytest.raises(ValueError, match=r"HerReplayBuffer .* clear_replay_buffer=True"):
        agent.start_phase("other")
    assert agent.n_finished_phases == 0


def test_hindsight_is_refused_when_the_buffer_is_told_to_stay() -> None:
    agent = tiny(ContinualSAC, flips(), **HINDSIGHT)
    with pytest.raises(ValueError, match=r"HerReplayBuffer .* clear_replay_buffer=True"):
        agent.clear_replay_buffer = False
    assert agent.clear_replay_buffer


def test_fresh_steps_evaluation_and_diagnostics(tmp_path: Path) -> None:
    evaluation = SequenceEvaluation(tmp_path, n_eval_episodes=1)
    agent = tiny(NBSPSAC, flips(), policy="MultiInputPolicy", identification_data="fresh", identification_steps=100)
    plasticity = PlasticityCallback(record_freq=40, folder=tmp_path / "plasticity", n_states=20, plot=False)
    agent.learn(1000, callback=[evaluation, plasticity])
    assert agent.n_finished_phases == 2 and np.isfinite(evaluation.matrix.as_arrays()[0]).all()
    assert len((tmp_path / "plasticity" / "plasticity.csv").read_text().splitlines()) > 2
