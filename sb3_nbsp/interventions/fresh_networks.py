"""Networks as an agent would draw them now, and what changes networks when a phase starts."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from typing_extensions import override

from sb3_nbsp.interventions.base import Intervention, Phase
from sb3_nbsp.interventions.own_seeds import own_seed
from sb3_nbsp.random_states import drawing_from


def fresh_policy(agent: BaseAlgorithm, occasion: Phase | int, purpose: int) -> BasePolicy:
    """
    :param agent: any agent; neither it nor the global random streams are changed
    :param occasion: see :func:`~sb3_nbsp.interventions.base.own_seed`
    :param purpose: see there
    :return: a policy with the agent's options, initialized as SB3 does it, from a generator of its own
    """
    options: dict[str, Any] = {**agent.policy_kwargs}
    if isinstance(agent, OnPolicyAlgorithm):
        options["use_sde"] = agent.use_sde
    with drawing_from(own_seed(agent, occasion, purpose), agent.device):
        policy = agent.policy_class(agent.observation_space, agent.action_space, agent.lr_schedule, **options)
    return policy.to(agent.device)


def refuse_holders(intervention: Intervention, agent: Any) -> None:
    """
    :param intervention: one that replaces networks
    :param agent: its agent
    :raises ValueError: if another intervention keeps account of what is in these networks
    """
    others = [type(each).__name__ for each in agent.all_interventions if each.holds_networks]
    if others:
        raise ValueError(
            f"interventions: {type(intervention).__name__} replaces networks, of which {', '.join(others)} keeps account: do "
            "without one of them"
        )


def refuse_reset_critics(agent: Any, what: str, remedy: str) -> None:
    """
    :param agent: the intervention's agent
    :param what: what an intervention does with the critics
    :param remedy: what else can be done
    :raises ValueError: if the agent draws its critics anew for each task
    """
    if getattr(agent, "reset_critics", False):
        raise ValueError(f"reset_critics=True draws the critics anew, but {what}: use reset_critics=False, or {remedy}")


class PhaseStartChange(Intervention):
    """
    Changes networks at the start of a phase; on PPO after the update on the rollout in which it starts, as an update needs the
    policy that acted.
    """

    @property
    @override
    def needs_phases(self) -> bool:
        return True

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        super().attach(agent)
        self._due: int | None = None  # index of a phase at whose start the change has yet to be made

    @abstractmethod
    def change(self, phase: int) -> None:
        """
        Change the networks.

        :param phase: index of the phase that starts
        """

    @override
    def on_phase_start(self, phase: Phase) -> None:
        self._due = phase.index
        if not isinstance(self.agent, OnPolicyAlgorithm):
            self.after_train()

    @override
    def after_train(self) -> None:
        if self._due is not None:
            due, self._due = self._due, None
            self.change(due)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"due": self._due}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._due = state["due"]
