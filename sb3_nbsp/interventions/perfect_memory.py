"""Perfect memory: forget no transition of any task."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from typing_extensions import override

from sb3_nbsp.interventions.base import OffPolicyIntervention


class PerfectMemory(OffPolicyIntervention):
    """
    Keep the transitions of all tasks in D and sample uniformly from them: D is not emptied when a phase starts, and is
    enlarged to the number of steps of ``learn()`` if ``buffer_size`` is smaller.

    Paper: Continual World (Wołczyk et al., 2021), where more data is not a solution by itself.

    :raises ValueError: if D is too small when ``learn()`` begins, and not empty
    """

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        super().attach(agent)
        vars(agent)["clear_replay_buffer"] = False

    @override
    def on_learn_start(self, reset: bool) -> None:
        agent: Any = self.agent
        total, size = agent._total_timesteps, agent.replay_buffer.buffer_size * agent.n_envs
        if total > size:
            if agent.replay_buffer.size() > 0:
                raise ValueError(
                    f"buffer_size={size} forgets: this call of learn() ends at step {total}; begin with one as large"
                )
            vars(agent)["buffer_size"] = total
            agent.remake_replay_buffer(total)
