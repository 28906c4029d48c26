"""Cycle reset without distillation, which SBP is compared to."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv

from sb3_nbsp.algorithms.continual_ppo import ContinualPPO
from sb3_nbsp.algorithms.continual_sac import ContinualSAC
from sb3_nbsp.algorithms.method import Method
from sb3_nbsp.interventions import CycleReset, Intervention


class _Cycle(Method):
    """Cycle reset, in front of any other interventions."""

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: GymEnv | str,
        *args: Any,
        reset_frequency: int = 50_000,
        reset_rate: float = 0.01,
        clear_moments: bool = True,
        renew_shared: bool = False,
        **kwargs: Any,
    ) -> None:
        self.reset_frequency = reset_frequency
        self.reset_rate = reset_rate
        self.clear_moments = clear_moments
        self.renew_shared = renew_shared
        self._own_interventions()  # complain of a wrong option before anything is built
        super().__init__(policy, env, *args, **kwargs)  # type: ignore[call-arg]

    def _own_interventions(self) -> list[Intervention]:
        return [self._with_options(CycleReset)]


class CyclePPO(_Cycle, ContinualPPO):
    """
    PPO with cycle reset only: "PPO+Cycle" of the P3O paper.

    :param policy: see :class:`ContinualPPO`
    :param env: see :class:`ContinualPPO`
    :param args: SB3's arguments in SB3's order, from ``learning_rate`` on
    :param reset_frequency: F, in environment steps; the options are those of :class:`~sb3_nbsp.interventions.CycleReset`
    :param reset_rate: γ, share of each layer that a reset renews, in (0, 1]
    :param clear_moments: also forget the optimizer's moments of what is reset
    :param renew_shared: include the layers of a features extractor that actor and critic share
    :param kwargs: everything else: see :class:`ContinualPPO` and :class:`stable_baselines3.PPO`
    :raises ValueError: if an option is out of its range
    """


class CycleSAC(_Cycle, ContinualSAC):
    """
    SAC with cycle reset only: see :class:`CyclePPO`, whose options it has, on a :class:`ContinualSAC`.

    :param policy: see :class:`ContinualSAC`
    :param env: see :class:`ContinualSAC`
    :param args: SB3's arguments in SB3's order, from ``learning_rate`` on
    :param reset_frequency: F, in environment steps
    :param kwargs: everything else: see :class:`CyclePPO`, :class:`ContinualSAC` and :class:`stable_baselines3.SAC`
    :raises ValueError: if an option is out of its range
    """

    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any, reset_frequency: int = 10_000, **kwargs: Any
    ) -> None:
        super().__init__(policy, env, *args, reset_frequency=reset_frequency, **kwargs)
