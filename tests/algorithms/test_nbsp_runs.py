"""Whole runs of NBSPSAC: repeatable, and different from plain SAC where they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tagged_tasks import ImageTask, Spy, differing, parameters, random_states, tagged_sequence, tiny
from torch import nn

from sb3_nbsp import NBSPSAC, ContinualSAC
from sb3_nbsp.interventions.task_memory import FIELDS
from sb3_nbsp.tasks import TaskSequence


def run(make_env: Any = tagged_sequence, steps: int = 10_000, **kwargs: Any) -> dict[str, th.Tensor]:
    """Everything that a run leaves behind."""
    agent = tiny(NBSPSAC, make_env(), **{"memory_size": 50, **kwargs})
    agent.learn(steps)
    masking, replay = agent.all_interventions._all[:2]
    state = {**parameters(agent), **{f"mask.{name}": mask for name, mask in masking.masks.items()}}
    for task, scores in masking.scores.items():
        state.update({f"score.{task}.{name}": score for name, score in scores.items()})
    state.update({f"memory.{name}": th.tensor(getattr(replay.memory, name)) for name in FIELDS})
    state["memory.next draws"] = th.tensor(replay.memory.generator.integers(1000, size=20))
    for name, stream in zip(("numpy", "torch"), random_states(), strict=True):
        state[f"random.{name}"] = th.frombuffer(bytearray(stream), dtype=th.uint8)
    state["steps"] = th.tensor([agent.num_timesteps, agent._n_updates])
    return state


def two() -> DummyVecEnv:
    return DummyVecEnv([lambda: tagged_sequence(horizon=7), lambda: tagged_sequence(horizon=11)])


def normalized() -> VecNormalize:
    return VecNormalize(two())


@pytest.mark.parametrize(
    ("make_env", "kwargs"),
    [
        (tagged_sequence, {}),
        (tagged_sequence, {"identification_data": "fresh", "identification_steps": 40}),
        (two, {"use_sde": True, "reset_ent_coef": True}),
        (normalized, {"mask_target": "gradient", "replay_interval": 3}),
    ],
    ids=["default", "fresh steps", "two environments, gSDE", "normalized, gradient masks"],
)
def test_the_same_seed_gives_the_same_run(make_env: Any, kwargs: dict[str, Any]) -> None:
    first = run(make_env, **kwargs)
    np.random.seed(12345)
    th.manual_seed(12345)
    assert differing(first, run(make_env, **kwargs)) == []
    other = run(make_env, **kwargs, seed=1)
    changed = differing(first, {**other, "random.numpy": first["random.numpy"]})
    assert {"mask.actor.latent_pi.0", "memory.observations", "memory.next draws", "actor.mu.weight"} & set(changed)
    assert first["steps"][0] in (240, *range(480, 520))  # all four phases


ABLATIONS: dict[str, dict[str, Any]] = {
    "NBSP": {},
    "hard": {"mask_type": "hard"},
    "gradient masks": {"mask_target": "gradient"},
    "actor only": {"mask_networks": "actor"},
    "critic only": {"mask_networks": "critic"},
    "masks only": {"replay": False},
    "replay only": {"masking": False},
    "k": {"replay_interval": 3},
    "m": {"skill_proportion": 0.4},
    "alpha": {"mask_alpha": 0.9},
    "outgoing weights": {"mask_side": "outgoing"},
    "both sides": {"mask_side": "both"},
    "own entropy coefficient": {"replay_ent_coef": "own"},
    "printed score": {"identification": "goal"},
    "vanilla": {"masking": False, "replay": False},
}


def test_every_switch_makes_a_difference_from_the_second_phase_on() -> None:
    first_phase, second_phase = [], {}
    for name, options in ABLATIONS.items():
        agent = tiny(NBSPSAC, tagged_sequence(), **options)
        agent.learn(60)
        first_phase.append(parameters(agent))
        agent.learn(50, reset_num_timesteps=False)
        second_phase[name] = parameters(agent)
    for other in first_phase[1:]:
        assert differing(first_phase[0], other) == []
    names = list(second_phase)
    for i, name in enumerate(names):
        for other in names[i + 1 :]:
            assert differing(second_phase[name], second_phase[other]) != [], (name, other)
    vanilla = tiny(ContinualSAC, tagged_sequence())
    vanilla.learn(60)
    vanilla.learn(50, reset_num_timesteps=False)
    assert differing(parameters(vanilla), second_phase["vanilla"]) == []


def test_a_mask_of_one_is_no_mask() -> None:
    """With scores of at most 1 the factor α(1 − Score) is never 1, but with no skill neuron all masks are."""
    agents = []
    for options in ({"skill_proportion": 1e-9}, {"masking": False}):
        agent = tiny(NBSPSAC, tagged_sequence(), fused=False, **options)
        agent.learn(10_000)
        agents.append(agent)
    masks = agents[0].all_interventions._all[0].masks
    assert masks and all((mask == 1).all() for mask in masks.values())
    assert differing(parameters(agents[0]), parameters(agents[1])) == []


def test_images() -> None:
    makers = {"left": lambda render_mode=None: ImageTask(2), "right": lambda render_mode=None: ImageTask(30)}
    env = TaskSequence(makers, steps_per_task=15, mastery_threshold=None)
    spy = Spy()
    cnn = {"net_arch": [6], "features_extractor_kwargs": {"features_dim": 5}}
    options = {"policy": "CnnPolicy", "policy_kwargs": cnn, "batch_size": 4, "buffer_size": 60, "learning_starts": 10}
    agent = tiny(
        NBSPSAC, env, **options, interventions=[spy], memory_size=20, identification_data="fresh", identification_steps=10
    )
    agent.learn(1000)
    assert agent.num_timesteps == 60 and len(spy.ends) == 4
    memory = agent.all_interventions._all[1].memory
    assert memory.observations.dtype == np.uint8 and memory.observations.shape == (20, 1, 36, 36)
    assert (memory.observations[:10, 0, :, 2] >= 200).all() and (memory.observations[10:, 0, :, 30] >= 200).all()


@pytest.mark.parametrize(
    "policy_kwargs",
    [
        {"net_arch": [8], "activation_fn": nn.Tanh, "n_critics": 1},
        {"net_arch": {"pi": [], "qf": [8]}},
        {"net_arch": [8, 8, 8], "optimizer_class": th.optim.SGD, "optimizer_kwargs": {"momentum": 0.9}},
        {"net_arch": [8], "optimizer_class": th.optim.Adagrad},
        {"net_arch": [8], "optimizer_class": th.optim.AdamW, "optimizer_kwargs": {"amsgrad": True, "foreach": True}},
    ],
    ids=["one critic", "no hidden layer in the actor, masks on the critics", "SGD", "Adagrad", "AdamW"],
)
def test_other_networks_and_optimizers(policy_kwargs: dict[str, Any]) -> None:
    networks = "critic" if policy_kwargs["net_arch"] == {"pi": [], "qf": [8]} else "both"
    agent = tiny(NBSPSAC, tagged_sequence(), policy_kwargs=policy_kwargs, mask_networks=networks)
    agent.learn(10_000)
    assert agent.num_timesteps == 240 and agent._n_updates == 4 * 40
    assert all(th.isfinite(tensor).all() for tensor in parameters(agent).values())
    assert min(mask.min() for mask in agent.all_interventions._all[0].masks.values()) <= 0.1
