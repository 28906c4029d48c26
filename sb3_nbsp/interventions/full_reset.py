"""Full reset: begin every task with new networks."""

from __future__ import annotations

from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from typing_extensions import override

from sb3_nbsp.interventions.fresh_networks import PhaseStartChange, fresh_policy, refuse_holders
from sb3_nbsp.neurons.redraw import keep_frozen


class FullReset(PhaseStartChange):
    """
    At the start of every phase but the first, re-initialize all networks except for frozen layers, clear the optimizers'
    moments, and set a learned entropy coefficient back. Whether D is kept depends on the agent's ``clear_replay_buffer``.
    This is an upper bound of plasticity and a lower bound of stability.

    Paper: The Primacy Bias in Deep Reinforcement Learning (Nikishin et al., 2022), which resets in the middle of a task.

    :raises ValueError: if the agent probes whether it knows a task, or another intervention keeps track of neurons
    """

    waits_for_phase_end = True

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        super().attach(agent)
        refuse_holders(self, agent)

    @override
    def check_agent(self) -> None:
        if getattr(self.agent, "known_task_threshold", None) is not None:
            raise ValueError("known_task_threshold: after a full reset, no task is known; leave it None")

    @override
    def change(self, phase: int) -> None:
        agent: Any = self.agent
        fresh = fresh_policy(agent, phase, purpose=310)
        with keep_frozen(agent.policy):
            agent.policy.load_state_dict(fresh.state_dict())
        if hasattr(agent, "critic_target"):
            agent.critic_target.load_state_dict(agent.critic.state_dict())
        for optimizer in agent._optimizers():
            optimizer.state.clear()
        # The agent knows it; attach() also sees copies that have learned
        initial = getattr(agent, "_initial_log_ent_coef", None)
        if initial is not None:
            with th.no_grad():
                agent.log_ent_coef.fill_(initial)
        agent.all_interventions.after_redraw(list(agent.policy.parameters()))
