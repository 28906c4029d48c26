"""Sustainable Backup Propagation (SBP): on PPO, which is P3O, and on SAC."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv

from sb3_nbsp.algorithms.continual_ppo import ContinualPPO
from sb3_nbsp.algorithms.continual_sac import ContinualSAC
from sb3_nbsp.algorithms.method import Method
from sb3_nbsp.interventions import CycleReset, InnerDistillation, Intervention


class _SBP(Method):
    """Cycle reset and inner distillation, in front of any other interventions."""

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: GymEnv | str,
        *args: Any,
        reset_frequency: int = 50_000,
        reset_rate: float = 0.01,
        clear_moments: bool = True,
        renew_shared: bool = False,
        distill_alpha: float = 0.4,
        distill_threshold: float = 0.01,
        max_distill_epochs: int = 100,
        min_distill_epochs: int = 1,
        distill_states: int = 8192,
        distill_batch_size: int = 256,
        distill_learning_rate: float = 3e-4,
        **kwargs: Any,
    ) -> None:
        self.reset_frequency = reset_frequency
        self.reset_rate = reset_rate
        self.clear_moments = clear_moments
        self.renew_shared = renew_shared
        self.distill_alpha = distill_alpha
        self.distill_threshold = distill_threshold
        self.max_distill_epochs = max_distill_epochs
        self.min_distill_epochs = min_distill_epochs
        self.distill_states = distill_states
        self.distill_batch_size = distill_batch_size
        self.distill_learning_rate = distill_learning_rate
        self._own_interventions()  # complain of a wrong option before anything is built
        super().__init__(policy, env, *args, **kwargs)  # type: ignore[call-arg]

    def _own_interventions(self) -> list[Intervention]:
        return [self._with_options(CycleReset), self._with_options(InnerDistillation)]


class P3O(_SBP, ContinualPPO):
    """
    Plastic PPO (P3O): every ``reset_frequency`` steps the next ``reset_rate`` of every hidden layer of the actor is
    initialized anew, and what the policy did before is distilled into the rest of it.

    Paper: Stay Hungry, Keep Learning: Sustainable Plasticity for Deep Reinforcement Learning (Algorithm 2, equation 4).
    Until the first reset it is plain PPO.

    :param policy: see :class:`ContinualPPO`
    :param env: see :class:`ContinualPPO`
    :param args: SB3's arguments in SB3's order, from ``learning_rate`` on
    :param reset_frequency: F, in environment steps; the options of the reset are those of
        :class:`~sb3_nbsp.interventions.CycleReset`
    :param reset_rate: γ, share of each layer that a reset renews, in (0, 1]
    :param clear_moments: also forget the optimizer's moments of what is reset
    :param renew_shared: include the layers of a features extractor that actor and critic share
    :param distill_alpha: α of equation 4; the options of the distillation are those of
        :class:`~sb3_nbsp.interventions.InnerDistillation`
    :param distill_threshold: τ
    :param max_distill_epochs: give up after so many epochs
    :param min_distill_epochs: at least so many epochs
    :param distill_states: states to draw from a replay buffer (PPO takes those of its rollout)
    :param distill_batch_size: states of a minibatch
    :param distill_learning_rate: of the distillation's own Adam
    :param kwargs: everything else: see :class:`ContinualPPO` and :class:`stable_baselines3.PPO`
    :raises ValueError: if an option is out of its range
    """


class SBPSAC(_SBP, ContinualSAC):
    """
    SBP on Soft Actor-Critic: see :class:`P3O`, whose options it has, on a :class:`ContinualSAC`. The states to distil
    on are drawn from the replay buffer (P3O paper, appendix A.5 and table 6).

    :param policy: see :class:`ContinualSAC`
    :param env: see :class:`ContinualSAC`
    :param args: SB3's arguments in SB3's order, from ``learning_rate`` on
    :param reset_frequency: F, in environment steps
    :param distill_alpha: α of equation 4
    :param kwargs: everything else: see :class:`P3O`, :class:`ContinualSAC` and :class:`stable_baselines3.SAC`
    :raises ValueError: if an option is out of its range
    """

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: GymEnv | str,
        *args: Any,
        reset_frequency: int = 10_000,
        distill_alpha: float = 0.8,
        **kwargs: Any,
    ) -> None:
        super().__init__(policy, env, *args, reset_frequency=reset_frequency, distill_alpha=distill_alpha, **kwargs)
