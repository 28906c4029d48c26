"""Best-return exploration: the policies of earlier tasks act in the warm-up of a new one, in the end the best of them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import nn

from sb3_nbsp.batches import ArrayObs, n_rows
from sb3_nbsp.interventions.own_seeds import own_seed
from sb3_nbsp.random_states import drawing_from


class BestReturnExploration:
    """
    Keeps a copy of the actor for each task. In a warm-up each acts for one episode, then the one with the highest mean return.
    Parallel environments choose on their own.
    """

    def __init__(self) -> None:
        self._policies: dict[str, dict[str, th.Tensor]] = {}  # by task, parameters
        self._actors: dict[str, nn.Module] = {}  # the same as modules, as they are needed
        self.start()

    @property
    def has_policies(self) -> bool:
        """Whether a task has a policy."""
        return len(self._policies) > 0

    def keep(self, task: str, actor: nn.Module) -> None:
        """
        :param task: name of the task that the actor has learned; an earlier one of the task is replaced
        :param actor: is copied
        """
        self._policies[task] = {name: value.detach().clone() for name, value in actor.state_dict().items()}
        self._actors.pop(task, None)

    def start(self) -> None:
        """A phase starts."""
        self._returns: dict[str, list[float]] = {}  # of the phase's episodes, by policy
        self.break_off()

    def break_off(self) -> None:
        """The episodes under way do not count."""
        self._playing: list[str] = []  # by environment
        self._sums: list[float] = []  # by environment, rewards of the episode so far

    def act(self, agent: OffPolicyAlgorithm, observations: ArrayObs) -> np.ndarray | None:
        """
        :param agent: the agent
        :param observations: one per environment
        :return: an action for each, within the bounds of the action space; None if there is no earlier policy
        """
        if not self._policies:
            return None
        if not self._playing:
            for _ in range(n_rows(observations)):
                self._playing.append(self._choose())
            self._sums = [0.0] * n_rows(observations)
        seen, _ = agent.policy.obs_to_tensor(observations)
        seed = own_seed(agent, agent.num_timesteps, purpose=510)
        with th.no_grad(), drawing_from(seed, agent.device):
            by_task = {task: self._actor(agent, task)(seen).cpu().numpy() for task in dict.fromkeys(self._playing)}
        actions = np.stack([by_task[task][index] for index, task in enumerate(self._playing)])
        return agent.policy.unscale_action(actions) if isinstance(agent.action_space, spaces.Box) else actions

    def follow(self, rewards: np.ndarray, dones: np.ndarray) -> None:
        """
        Count the return of the episodes under way.

        :param rewards: shape (n_envs,)
        :param dones: shape (n_envs,)
        """
        for index, task in enumerate(self._playing):
            self._sums[index] += float(rewards[index])
            if dones[index]:
                self._returns.setdefault(task, []).append(self._sums[index])
                self._playing[index], self._sums[index] = self._choose(), 0.0

    def state_dict(self) -> dict[str, Any]:
        """The policies, and how they have done in this phase."""
        return {"policies": self._policies, "returns": self._returns}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        :param state: what :meth:`state_dict` returned
        """
        self._policies, self._actors = dict(state["policies"]), {}
        self.start()
        self._returns = copy.deepcopy(state["returns"])

    def _choose(self) -> str:
        """A policy that has not been tried in this phase, otherwise the best one."""
        untried = [task for task in self._policies if task not in self._returns and task not in self._playing]
        if untried or not self._returns:
            return (untried or list(self._policies))[0]
        return max(self._returns, key=lambda task: float(np.mean(self._returns[task])))

    def _actor(self, agent: OffPolicyAlgorithm, task: str) -> nn.Module:
        if task not in self._actors:
            actor: Any = agent.policy.actor
            # Its distribution may hang on the graph of the last gradient step
            distribution = getattr(actor, "action_dist", None)
            shared = {id(actor.optimizer): None, id(distribution): copy.copy(distribution)}
            copied: nn.Module = copy.deepcopy(actor, shared)
            copied.load_state_dict(self._policies[task])
            self._actors[task] = copied.eval()
        return self._actors[task]
