"""Small agents with PackNet, and what they play."""

from __future__ import annotations

from typing import Any

import numpy as np
from tagged_tasks import parameters, tiny

from sb3_nbsp import PackNetSAC
from sb3_nbsp.interventions import (
    Intervention,
    PackNet,
)

OBSERVATIONS = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)


def packnet(env: Any, **kwargs: Any) -> Any:
    return tiny(PackNetSAC, env, **{"retrain_steps": 5, **kwargs})


def mean_actions(agent: Any, task: str) -> np.ndarray:
    agent.set_task(task)
    actions = agent.predict(OBSERVATIONS, deterministic=True)[0]
    agent.set_task(agent.phase.task)
    return actions


class Ends(Intervention):
    """The policy at the end of each phase, behind PackNet's own end."""

    def __init__(self) -> None:
        self._ends: list[Any] = []

    def on_phase_end(self, phase: Any) -> None:
        part = self.agent.all_interventions.find(PackNet)
        moments = [len(optimizer.state) for optimizer in self.agent._optimizers()]
        owners = {name: each.clone() for name, each in part.owners.items()}
        self._ends.append(
            (phase.task, mean_actions(self.agent, phase.task), owners, moments, self.agent._n_updates, parameters(self.agent))
        )
