"""``reset_critics`` draws the critics anew: what keeps account of them is refused."""

from __future__ import annotations

from typing import Any

import pytest
from tagged_tasks import tagged_sequence, tiny

from sb3_nbsp import NBSPSAC, NPCSAC, PISAC


@pytest.mark.parametrize(
    ("cls", "without"),
    [
        (NBSPSAC, {"mask_networks": "actor"}),
        (NPCSAC, {"npc_beta": float("inf")}),
        (PISAC, {"injection_networks": "actor"}),
    ],
)
def test_what_holds_critics_is_refused(cls: type, without: dict[str, Any]) -> None:
    agent = tiny(cls, tagged_sequence(), reset_critics=True)
    with pytest.raises(ValueError, match="reset_critics=True draws the critics anew, but "):
        agent.learn(1)
    tiny(cls, tagged_sequence(), reset_critics=True, **without).learn(1)
