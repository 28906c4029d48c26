"""A neuron that was held back and is renewed knows nothing of earlier tasks any more: it learns at the full rate."""

from __future__ import annotations

from typing import Any

import pytest
from tagged_tasks import tagged_sequence, tiny
from torch import nn

from sb3_nbsp import ContinualSAC
from sb3_nbsp.interventions import NPC, ContinualBackprop, GradientMasking

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
