"""Renewed neurons of real agents: how far they move in the step after their reset."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch as th

from sb3_nbsp import ContinualPPO, ContinualSAC
from sb3_nbsp.interventions import ContinualBackprop, CycleReset, Intervention, RandomReset, ReDo

LR = 1e-3
RESETS = {
    "cycle": CycleReset(512, 0.3),
    "random": RandomReset(512, 0.3),
    "redo": ReDo(512, 0.3),
    "cbp": ContinualBackprop(0.01, 100, 0.9),
}


class FirstSteps(Intervention):
    """How far the incoming weights of the first layer's neurons move in the step after they were renewed."""

    def __init__(self) -> None:
        self._renewed: list[int] = []
        self._moved: list[th.Tensor] = []

    @property
    def weight(self) -> th.Tensor:
        return self.agent.all_interventions.find(type(self.agent.interventions[0])).network.layers[0].linear.weight  # type: ignore[attr-defined]

    def before_step(self, network: Any) -> None:
        self._before = self.weight.detach().clone()

    def after_step(self, network: Any) -> None:
        if network == "actor" and self._renewed:
            self._moved.append((self.weight.detach() - self._before)[self._renewed].abs())
            self._renewed = []

    def after_renewal(self, renewed: Any) -> None:
        self._renewed = renewed[0][1].tolist()

    @property
    def moved(self) -> th.Tensor:
        return th.cat(self._moved)


@pytest.mark.parametrize(
    ("cls", "name", "fused"),
    [
        (ContinualPPO, "cycle", True),
        (ContinualPPO, "random", False),
        (ContinualPPO, "redo", True),
        (ContinualPPO, "cbp", False),
        (ContinualSAC, "cycle", True),
    ],
)
def test_the_first_step_of_a_renewed_neuron_is_one_learning_rate_long(cls: type, name: str, fused: bool) -> None:
    """As that of a new Adam. With the count of the whole tensor it is some four times as long here."""
    probe = FirstSteps()
    adam = {"betas": (0.5, 0.999), "eps": 1e-20}
    options: dict[str, Any] = {"policy_kwargs": {"net_arch": [10], "optimizer_kwargs": adam}, "fused": fused}
    if cls is ContinualPPO:
        options.update(n_steps=64, n_epochs=4)
    else:
        options.update(learning_starts=440)
    interventions = [copy.deepcopy(RESETS[name]), probe]
    agent = cls("MlpPolicy", "Pendulum-v1", LR, batch_size=16, seed=0, interventions=interventions, **options)
    agent.learn(576 if cls is ContinualPPO else 520)
    assert len(probe.moved) >= 2
    moved = probe.moved[probe.moved > 0]
    th.testing.assert_close(moved, th.full_like(moved, LR), rtol=0.02, atol=0)
