"""SAC that knows phases and takes interventions."""

from __future__ import annotations

from typing import ClassVar

from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from typing_extensions import override

from sb3_nbsp.algorithms.autograd_sac import AutogradGradients
from sb3_nbsp.algorithms.policies import SACCnnPolicy, SACMlpPolicy, SACMultiInputPolicy
from sb3_nbsp.algorithms.soft_actor_critic import SoftActorCritic
from sb3_nbsp.fast.sac_gradients import MlpGradients, SACGradients, can_use_mlp_gradients


class ContinualSAC(SoftActorCritic):
    """
    Soft Actor-Critic over a sequence of tasks. On an environment that is not a task sequence, and without
    interventions, it is SB3's SAC. On a task sequence it only adds what happens when a phase starts. Without
    interventions, this is the "vanilla SAC" of the NBSP paper, which forgets because its replay buffer D is emptied.

    Every parameter that is not listed here is SB3's: see :class:`stable_baselines3.SAC`.

    :raises ValueError: if an option is out of its range
    :raises TypeError: if there is no option of a name
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": SACMlpPolicy,
        "CnnPolicy": SACCnnPolicy,
        "MultiInputPolicy": SACMultiInputPolicy,
    }

    other_actions = "for discrete actions, there are ContinualDiscreteSAC and the methods on it (in the zoo ..._discrete_sac)"

    @override
    def _setup_model(self) -> None:
        if not isinstance(self.action_space, spaces.Box):  # a file's may be another, which SB3 does not check
            raise ValueError(f"{type(self).__name__} is for continuous actions, not for those of {self.action_space}")
        super()._setup_model()

    @override
    def _make_gradients(self) -> SACGradients:
        networks = self.actor, self.critic, self.critic_target
        if self._is_by_hand():
            return MlpGradients(*networks, self._layers())
        return AutogradGradients(*networks, self.all_interventions)

    @override
    def _is_by_hand(self) -> bool:
        return (
            self.fused
            and not self.all_interventions.need_autograd()
            and can_use_mlp_gradients(self.actor, self.critic, self.critic_target)
        )
