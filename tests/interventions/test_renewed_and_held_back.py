"""A neuron that was held back and is renewed learns at the full rate; the others stay where they are, also in distillation."""

from __future__ import annotations

from typing import Any

import pytest
import torch as th
from tagged_tasks import tagged_sequence, tiny
from torch import nn

from sb3_nbsp import ContinualSAC
from sb3_nbsp.interventions import NPC, ContinualBackprop, CycleReset, GradientMasking, InnerDistillation

HARD = {"mask_type": "hard", "skill_proportion": 1.0, "identification": "random", "min_active_share": 0.0}
CASES = [GradientMasking(**HARD), NPC(npc_beta=0.05), NPC(npc_beta=0.002, npc_clock="phases")]  # type: ignore[arg-type]


@pytest.mark.parametrize(("case", "network"), [(0, "actor"), (0, "qf1"), (1, "actor"), (2, "qf0")])
def test_it_learns_again(case: int, network: str) -> None:
    kind, options = type(CASES[case]), CASES[case].__getstate__()
    resets = ContinualBackprop(maturity_threshold=1000, networks="both")
    kwargs: dict[str, Any] = {"interventions": [kind(**options), resets], "learning_starts": 5, "batch_size": 8}
    kwargs["policy_kwargs"] = {"net_arch": [6, 6], "activation_fn": nn.Tanh}  # no neuron is dead
    agent: Any = tiny(ContinualSAC, tagged_sequence(steps_per_task=30), **kwargs).learn(42)
    (found,) = [each for each in resets._networks if each.name == network]
    last = found.layers[-1]
    held = (agent.all_interventions.find(kind).masks[last.name] == 0).nonzero().flatten()
    assert len(held) > 2
    resets.renew([held[:0], held[:2]], network=found)
    before = last.linear.weight.clone()
    agent.learn(6, reset_num_timesteps=False)
    moved = (last.linear.weight != before).any(1)
    assert moved[held].tolist() == [True, True] + [False] * (len(held) - 2)


@pytest.mark.parametrize("case", [0, 2])
def test_the_distillation_does_not_move_what_is_held_back(case: int) -> None:
    kind, options = type(CASES[case]), CASES[case].__getstate__()
    if kind is GradientMasking:
        options["skill_proportion"] = 0.5
    resets = CycleReset()
    distillation = InnerDistillation(distill_states=32, max_distill_epochs=20, distill_learning_rate=0.01)
    kwargs: dict[str, Any] = {"interventions": [kind(**options), resets, distillation], "learning_starts": 5, "batch_size": 8}
    kwargs["policy_kwargs"] = {"net_arch": [6, 6], "activation_fn": nn.Tanh}
    agent: Any = tiny(ContinualSAC, tagged_sequence(steps_per_task=30), **kwargs).learn(42)
    masks = agent.all_interventions.find(kind).masks
    renewed, moved = th.arange(6) < 2, []
    before = [layer.linear.weight.clone() for layer in resets.network.layers]
    masked = [masks.get(layer.name, th.ones(6)) == 0 for layer in resets.network.layers]
    resets.renew([th.arange(2), th.arange(2)])
    for layer, weight, held in zip(resets.network.layers, before, masked, strict=True):
        moved.append((layer.linear.weight != weight).any(1))
        assert moved[-1][~held | renewed].all()
        assert not moved[-1][held & ~renewed].any()
    assert any((held & ~renewed).any() for held in masked)
    assert distillation.epochs > 0
