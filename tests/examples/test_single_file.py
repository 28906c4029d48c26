"""NBSP in one file learns what the package learns."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch as th
from tagged_tasks import TaggedTask

from sb3_nbsp import NBSPSAC
from sb3_nbsp.tasks import TaskSequence

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import nbsp_single_file as single

TASKS = {"red": partial(TaggedTask, 1.0), "blue": partial(TaggedTask, 2.0)}


def of_single_file(agent: Any) -> dict[str, th.Tensor]:
    """Parameters and masks, by the names that they have in the package."""
    names = {"body": "actor.latent_pi", "mean": "actor.mu", "log_std": "actor.log_std"}
    named = {names[name.split(".")[0]] + name[name.index(".") :]: value for name, value in agent.actor.named_parameters()}
    for prefix, critics in (("critic", agent.critics), ("critic_target", agent.targets)):
        named |= {f"{prefix}.qf{name.removeprefix('q')}": value for name, value in critics.named_parameters()}
    masks = {f"mask of {name}": agent.masks[value].flatten() for name, value in named.items() if value in agent.masks}
    return {**{name: value.detach().clone() for name, value in named.items()}, **masks}


def of_package(agent: NBSPSAC) -> dict[str, th.Tensor]:
    masks = agent.all_interventions._all[0].masks  # type: ignore[attr-defined]
    both = {f"mask of {name}.{part}": mask for name, mask in masks.items() for part in ("weight", "bias")}
    return {**{name: value.detach().clone() for name, value in agent.policy.named_parameters()}, **both}


def test_the_first_three_phases_agree() -> None:
    common: dict[str, Any] = {"learning_starts": 20, "batch_size": 16, "memory_size": 40, "replay_interval": 3, "seed": 5}
    options = single.Options(hidden=8, steps_per_task=60, mastery_threshold=2.0, **common)
    found: list[dict[str, th.Tensor]] = []
    single.train(TASKS, options, lambda agent: found.append(of_single_file(agent)))

    model = NBSPSAC(
        "MlpPolicy",
        TaskSequence(TASKS, cycles=2, steps_per_task=60, mastery_threshold=None),
        policy_kwargs={"net_arch": [8, 8]},
        fused=False,
        identification="goal",
        identification_data="training",
        min_active_share=0.0,
        replay_ent_coef="current",
        device="cpu",
        **common,
    )
    learned = 0
    for steps in (59, 61, 100, 121, 170, 200):
        model.learn(steps - learned, reset_num_timesteps=learned == 0)
        learned = steps
        expected, other = of_package(model), found[steps - 1]
        assert expected.keys() == other.keys() and any(name.startswith("mask") for name in expected) is (steps > 60)
        for name, value in expected.items():
            close = th.allclose(other[name].reshape(value.shape).double(), value.double(), rtol=1e-4, atol=1e-6)
            assert close, f"{name} after {steps} steps"
