"""Experience replay: every k-th gradient step learns from what earlier tasks left behind (NBSP)."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, get_args

from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from typing_extensions import override

from sb3_nbsp.checks import check_option, check_range, whole
from sb3_nbsp.interventions.base import Lacking, OffPolicyIntervention, Phase
from sb3_nbsp.interventions.own_seeds import own_seed
from sb3_nbsp.interventions.task_memory import StoredTransitions, TaskMemory
from sb3_nbsp.messages import warn

ReplayEntCoef = Literal["auto", "own", "current"]


class ExperienceReplay(OffPolicyIntervention):
    r"""
    Keep some of the transitions of finished phases in a memory :math:`D_{pre}`, and draw every k-th batch from it
    (NBSP, equation 8; Algorithm 2, lines 9 and 21).

    .. math:: L = R(t)\, E_{D_{pre}}[L] + (1 - R(t))\, E_D[L], \quad R(t) = 1[t \equiv 0 \pmod k]

    Gradient steps t are counted from 1 over the agent's life. While the memory is empty, every batch comes from D.

    :param memory_size: capacity of the memory in transitions, shared equally between the tasks seen
    :param replay_interval: k; 1 draws every batch from the memory once there is one
    :param newest_share: share of the phase's transitions in D, the newest, that the memory takes its random subset from, in
        (0, 1]; the paper has all
    :param replay_ent_coef: SAC's entropy coefficient for these batches. "current": the one that the current phase learns, also
        from these batches. "own": for each transition, the one with which its task was learned, taken as the smallest one
        with which a phase of the task ended, because a short phase that resets the coefficient ends with one that is too
        large. "auto": "own" if the agent resets its coefficient when a task starts (``reset_ent_coef``), otherwise "current"
    :raises ValueError: if an option is out of its range
    """

    capturable: ClassVar[bool] = True
    waits_for_phase_end = True

    def __init__(
        self,
        memory_size: int = 100_000,
        replay_interval: int = 10,
        replay_ent_coef: ReplayEntCoef = "auto",
        newest_share: float = 1.0,
    ) -> None:
        memory_size = whole("memory_size", memory_size, 1)
        replay_interval = whole("replay_interval", replay_interval, 1)
        check_option("replay_ent_coef", replay_ent_coef, get_args(ReplayEntCoef))
        check_range("newest_share", newest_share, 0, 1, low_open=True)
        self.newest_share = newest_share
        self.memory_size = memory_size
        self.replay_interval = replay_interval
        self.replay_ent_coef = replay_ent_coef

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        super().attach(agent)
        assert isinstance(agent, OffPolicyAlgorithm)
        if agent.n_steps > 1 or isinstance(agent.replay_buffer, NStepReplayBuffer):
            raise ValueError(
                f"n_steps={agent.n_steps} needs transitions that follow each other, but the memory of ExperienceReplay keeps "
                "a random subset: use n_steps=1, or switch the replay off"
            )
        # Made when there is something to remember: a loaded model that only acts needs none
        self._memory: TaskMemory | None = None

    @property
    def memory(self) -> TaskMemory | None:
        """D_pre, or None before the first phase has ended."""
        return self._memory

    @property
    @override
    def lacks(self) -> Lacking | None:
        return "memory" if self._memory is None else None

    def on_phase_end(self, phase: Phase) -> None:
        """Store a part of D into D_pre (Algorithm 2, line 21)."""
        buffer = self.agent.replay_buffer
        assert buffer is not None
        if self._memory is None:
            self._memory = TaskMemory(self.memory_size, buffer, own_seed(self.agent, phase, purpose=100))
        # With clear_replay_buffer=False, D still holds transitions of earlier phases
        of_this_phase = getattr(self.agent, "phase_steps", None) if phase.index > 0 else None
        n_rows = len(StoredTransitions(buffer, of_this_phase)) // buffer.n_envs
        newest = math.ceil(self.newest_share * n_rows) * buffer.n_envs
        self._memory.store(phase.task, StoredTransitions(buffer, newest), self._ent_coef())
        self.agent.logger.record("nbsp/memory_size", self._memory.size())

    def _gives_own(self) -> bool:
        """Whether what is replayed has the coefficients of its tasks."""
        resets = getattr(self.agent, "reset_ent_coef", False)
        return isinstance(self.agent, SAC) and (self.replay_ent_coef == "own" or (self.replay_ent_coef == "auto" and resets))

    def _ent_coef(self) -> float | None:
        """The entropy coefficient to remember, whether it is used or not; None for agents that have none."""
        if not isinstance(self.agent, SAC):
            return None
        learned = self.agent.log_ent_coef
        return float(self.agent.ent_coef_tensor if learned is None else learned.detach().exp())

    def replay_source(self, gradient_step: int) -> ReplayBuffer | None:
        """D_pre at every k-th gradient step (Algorithm 2, line 9)."""
        if self._memory is None or self._memory.size() == 0 or gradient_step % self.replay_interval != 0:
            return None
        self._memory.gives_ent_coefs = self._gives_own()  # reset_ent_coef may have changed since the phase began
        return self._memory

    @override
    def memory_state(self) -> Any:
        return None if self._memory is None else self._memory.contents()

    @override
    def load_memory_state(self, state: Any) -> None:
        if state is None:
            self._memory = None
            return
        assert self.agent.replay_buffer is not None
        memory = TaskMemory(self.memory_size, self.agent.replay_buffer, seed=0)
        memory.restore(state)
        memory.gives_ent_coefs = self._gives_own()
        if memory.gives_ent_coefs and (unknown := [task for task in memory.tasks if task not in memory.ent_coefs]):
            current = self._ent_coef()
            assert current is not None
            warn(
                f"The saved memory does not say with which entropy coefficients {unknown} were learned: they get the current "
                f"one, {current:.3g}. With replay_ent_coef='current' none is needed"
            )
            memory.ent_coefs.update(dict.fromkeys(unknown, current))
        self._memory = memory
