"""What tests of phases watch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from tagged_tasks import Spy, tagged_sequence


class Watch(Spy):
    """After every transition: what D holds, whether the policy was asked, the number of updates so far."""

    def attach(self, agent: Any) -> None:
        super().attach(agent)
        self._asked = 0
        self._steps: list[dict[str, Any]] = []
        predict = agent.predict

        def counted(*args: Any, **kwargs: Any) -> Any:
            self._asked += 1
            return predict(*args, **kwargs)

        agent.predict = counted

    @property
    def steps(self) -> list[dict[str, Any]]:
        return self._steps

    def on_transition(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        super().on_transition(rewards, dones, infos)
        agent = self.agent
        buffer = agent.replay_buffer
        rows = slice(0, buffer.size())
        self._steps.append(
            {
                "phase": agent.phase.index,
                "asked": self._asked,
                "n_updates": agent._n_updates,
                "size": buffer.size(),
                "observations": buffer.observations[rows].copy(),
                "next_observations": buffer.next_observations[rows].copy(),
                "dones": buffer.dones[rows].copy(),
                "tasks": [info.get("task") for info in infos],
            }
        )

    def of_phase(self, index: int) -> list[dict[str, Any]]:
        return [step for step in self._steps if step["phase"] == index]


def sequences(*options: dict[str, Any]) -> list[Callable[[], gym.Env]]:
    return [lambda each=each: tagged_sequence(**each) for each in options]
