"""Behavioural cloning of remembered states, and exploration by what earlier policies can do (ClonEx)."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import PyTorchObs
from torch.distributions import Distribution
from typing_extensions import override

from sb3_nbsp.batches import ArrayObs, apply, concatenate, take
from sb3_nbsp.checks import check_option, check_range, whole
from sb3_nbsp.interventions.base import Lacking, Network, OffPolicyIntervention, Phase
from sb3_nbsp.interventions.best_return import BestReturnExploration
from sb3_nbsp.interventions.networks import actor_of, taken_q_values
from sb3_nbsp.interventions.observations import as_seen, phase_transitions
from sb3_nbsp.interventions.own_seeds import own_seed
from sb3_nbsp.interventions.policy_divergence import alpha_dkl, of_parameters, parameters_of
from sb3_nbsp.interventions.trial_pass import evaluating

# States that the policy sees at a time
_FORWARD_BATCH = 512
# Of states, by name: observations, actions, Q-values, parameters of the policy
Arrays = dict[str, Any]


class ClonEx(OffPolicyIntervention):
    r"""
    At the end of a phase, keep states from its replay buffer together with the policy's output in them. From then on, a
    batch B of all kept states keeps the policy close to these outputs by a term in the actor's loss,

    .. math:: \lambda \, \frac1{|B|} \sum_{s \in B} D_{KL}(\pi_{kept}(\cdot \mid s) \parallel \pi_\theta(\cdot \mid s))

    between the distributions before the tanh, which does not change the divergence. If the critics are cloned as well, their
    loss gets :math:`\lambda_Q \frac1{|B|} \sum_j (Q_j(s, a) - Q_{j,kept})^2`. A task that comes back replaces its own states.

    Observations are kept as the environment returns them, and are normalized with the current statistics.

    Paper: Disentangling Transfer in Continual Reinforcement Learning (Wołczyk et al., 2022), whose networks have an output
    layer for each task; here there is one.

    :param clone_coef: λ; 0 for no cloning of the policy
    :param clone_critic_coef: :math:`\lambda_Q`; 0 for no cloning of the critics
    :param clone_states: number of states to keep of each task
    :param clone_batch_size: \|B\|
    :param best_return_exploration: in the warm-up of a new task, play the policies of earlier tasks instead of random
        actions: each of them for an episode, then the one with the highest mean return
    :raises ValueError: if an option is out of its range
    """

    capturable: ClassVar[bool] = True  # with a penalty, gradients are autograd's, and are not captured
    waits_for_phase_end = True

    def __init__(
        self,
        clone_coef: float = 100.0,
        clone_critic_coef: float = 0.0,
        clone_states: int = 10_000,
        clone_batch_size: int = 128,
        best_return_exploration: bool = False,
    ) -> None:
        check_range("clone_coef", clone_coef, 0)
        check_range("clone_critic_coef", clone_critic_coef, 0)
        check_option("best_return_exploration", best_return_exploration, (True, False))
        self.clone_coef = clone_coef
        self.clone_critic_coef = clone_critic_coef
        self.clone_states = whole("clone_states", clone_states, 1)
        self.clone_batch_size = whole("clone_batch_size", clone_batch_size, 1)
        self.best_return_exploration = best_return_exploration

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        super().attach(agent)
        self._distribution = actor_of(agent).distribution
        self._kept: dict[str, Arrays] = {}
        self._generator = np.random.default_rng(own_seed(agent, 0, purpose=500))
        self._exploration = BestReturnExploration()
        self._divergence: th.Tensor | None = None

    @property
    @override
    def pulls_actor(self) -> bool:
        return self.clone_coef > 0

    @property
    def memory(self) -> dict[str, Arrays] | None:
        """By task, what is kept of its states; None before the first phase has ended."""
        return self._kept or None

    @property
    def has_policies(self) -> bool:
        """Whether there are policies of earlier tasks for exploration."""
        return self._exploration.has_policies

    @property
    @override
    def lacks(self) -> Lacking | None:
        if self.memory is None and self.clone_coef + self.clone_critic_coef > 0:
            return "memory"
        return "knowledge" if self.best_return_exploration and not self.has_policies else None

    @override
    def on_learn_start(self, reset: bool) -> None:
        self._distribution = actor_of(self.agent).distribution  # networks may have been exchanged
        if reset:
            self._exploration.break_off()

    def on_phase_end(self, phase: Phase) -> None:
        """Keep states, and the policy for exploration."""
        if self.agent.phase_steps == 0:  # type: ignore[attr-defined]
            return
        if self.best_return_exploration:
            self._exploration.keep(phase.task, self.agent.actor)
        if self.clone_coef > 0 or self.clone_critic_coef > 0:
            seed = own_seed(self.agent, phase, purpose=501)
            found = phase_transitions(self.agent, self.clone_states, seed)
            self._kept[phase.task] = {
                "observations": found["observations"],
                "actions": found["actions"],
                **self._outputs(found["observations"], found["actions"]),
            }

    @override
    def on_phase_start(self, phase: Phase) -> None:
        self._exploration.start()

    @override
    def warmup_actions(self, observations: np.ndarray | dict[str, np.ndarray]) -> np.ndarray | None:
        if not self.best_return_exploration:
            return None
        return self._exploration.act(self.agent, observations)

    @override
    def on_transition(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        self._exploration.follow(rewards, dones)
        if dones.any() and self._divergence is not None:  # SB3 writes its records at the end of episodes
            self.record("clonex/divergence", self._divergence.item())

    @override
    def has_penalty(self) -> bool:
        return bool(self._kept) and (self.clone_coef > 0 or self.clone_critic_coef > 0)

    @override
    def penalty(self, network: Network) -> th.Tensor | None:
        coef = self.clone_coef if network == "actor" else self.clone_critic_coef
        if coef == 0 or not self._kept:
            return None
        batch = self._sample()
        observations = as_seen(self.agent, batch["observations"])
        if network == "critic":
            return coef * self._q_distance(observations, batch)
        new = self._distribution(observations)
        divergence = alpha_dkl(self._kept_policy(batch, new), new, alpha=1.0).mean()
        self._divergence = divergence.detach()
        return coef * divergence

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"exploration": self._exploration.state_dict()}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._exploration.load_state_dict(state["exploration"])

    @override
    def memory_state(self) -> Any:
        return {"kept": self._kept, "generator": self._generator.bit_generator.state} if self._kept else None

    @override
    def load_memory_state(self, state: Any) -> None:
        kept: dict[str, Arrays] = {} if state is None else state["kept"]
        for task, arrays in kept.items():
            saved = apply(lambda array: array.shape[1:], arrays["observations"])
            own = self.agent.replay_buffer.obs_shape  # type: ignore[union-attr]
            if saved != own:
                raise ValueError(f"The states kept of {task!r} have the shape {saved}, the agent's observations {own}")
        self._kept = dict(kept)
        if state is not None:
            self._generator.bit_generator.state = copy.deepcopy(state["generator"])

    @th.no_grad()
    def _outputs(self, observations: ArrayObs, actions: np.ndarray) -> Arrays:
        """What policy and critics say of states, by name."""
        found: dict[str, list[th.Tensor]] = {}
        with evaluating(self.agent.policy):
            for start in range(0, len(actions), _FORWARD_BATCH):
                part = slice(start, start + _FORWARD_BATCH)
                seen = as_seen(self.agent, take(observations, part))
                for i, distribution in enumerate(self._distribution(seen)):
                    for name, value in parameters_of(distribution).items():
                        found.setdefault(f"{i}.{name}", []).append(value)
                found.setdefault("q_values", []).append(taken_q_values(self.agent, seen, self._tensor(actions[part])))
        return {name: th.cat(parts).cpu().numpy() for name, parts in found.items()}

    def _q_distance(self, observations: PyTorchObs, batch: Arrays) -> th.Tensor:
        q_values = taken_q_values(self.agent, observations, self._tensor(batch["actions"]))
        return (q_values - self._tensor(batch["q_values"])).square().sum(1).mean()

    def _kept_policy(self, batch: Arrays, like: list[Distribution]) -> list[Distribution]:
        kept = []
        for i, each in enumerate(like):
            parameters = {name: self._tensor(batch[f"{i}.{name}"]) for name in parameters_of(each)}
            kept.append(of_parameters(type(each), parameters))
        return kept

    def _tensor(self, array: np.ndarray) -> th.Tensor:
        return th.as_tensor(array, device=self.agent.device)

    def _sample(self) -> Arrays:
        """A batch drawn uniformly, with replacement, from all that is kept."""
        ends = np.cumsum([len(arrays["actions"]) for arrays in self._kept.values()])
        rows = self._generator.integers(ends[-1], size=self.clone_batch_size)
        parts: list[Arrays] = []
        for end, arrays in zip(ends, self._kept.values(), strict=True):
            start = end - len(arrays["actions"])
            own = rows[(start <= rows) & (rows < end)] - start
            parts.append({name: take(array, own) for name, array in arrays.items()})
        return {name: concatenate([part[name] for part in parts]) for name in parts[0]}
