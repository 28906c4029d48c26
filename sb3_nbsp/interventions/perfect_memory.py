"""Perfect memory: forget no transition of any task."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import TrainFrequencyUnit
from typing_extensions import override

from sb3_nbsp.interventions.base import OffPolicyIntervention
from sb3_nbsp.messages import warn


class PerfectMemory(OffPolicyIntervention):
    """
    Keep the transitions of all tasks in D and sample uniformly from them: D is not emptied when a phase starts, and is
    enlarged to the number of steps of ``learn()`` if ``buffer_size`` is smaller.

    Paper: Continual World (Wołczyk et al., 2021), where more data is not a solution by itself.

    :raises ValueError: if D is not empty when ``learn()`` begins, and has too little room for its steps
    """

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        super().attach(agent)
        vars(agent)["clear_replay_buffer"] = False
        self._warned = False

    @override
    def check_agent(self) -> None:
        if self.agent.clear_replay_buffer:  # type: ignore[attr-defined]
            raise ValueError(
                "clear_replay_buffer=True empties D, in which PerfectMemory keeps all transitions: leave it False"
            )

    @override
    def on_learn_start(self, reset: bool) -> None:
        agent: Any = self.agent
        size, stored = (n * agent.n_envs for n in (agent.replay_buffer.buffer_size, agent.replay_buffer.size()))
        # Training ends with a whole rollout; how long episodes will be is not known
        by_step = agent.train_freq.unit == TrainFrequencyUnit.STEP
        rollout = agent.n_envs * (agent.train_freq.frequency if by_step else 1)
        to_come = math.ceil((agent._total_timesteps - agent.num_timesteps) / rollout) * rollout
        if stored + to_come > size:
            if stored > 0:
                raise ValueError(
                    f"buffer_size={size} forgets: D holds {stored} transitions, and this call of learn() adds {to_come}; "
                    f"begin with buffer_size={stored + to_come}"
                )
            vars(agent)["buffer_size"] = to_come
            agent.remake_replay_buffer(to_come)

    @override
    def on_transition(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        buffer = self.agent.replay_buffer
        assert buffer is not None
        if buffer.full and buffer.pos > 0 and not self._warned:
            self._warned = True
            warn("PerfectMemory forgets: an episode goes on beyond the steps of learn(), and D is full; raise buffer_size")
