"""Continual backpropagation (CBP) on PPO and SAC, which SBP is compared to."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv

from sb3_nbsp.algorithms.continual_ppo import ContinualPPO
from sb3_nbsp.algorithms.continual_sac import ContinualSAC
from sb3_nbsp.algorithms.method import Method
from sb3_nbsp.interventions import ContinualBackprop, Intervention


class _CBP(Method):
    """Continual backpropagation, in front of any other interventions."""

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: GymEnv | str,
        *args: Any,
        replacement_rate: float = 1e-4,
        maturity_threshold: int = 10_000,
        decay_rate: float = 0.99,
        clear_moments: bool = True,
        renew_shared: bool = False,
        **kwargs: Any,
    ) -> None:
        self.replacement_rate = replacement_rate
        self.maturity_threshold = maturity_threshold
        self.decay_rate = decay_rate
        self.clear_moments = clear_moments
        self.renew_shared = renew_shared
        self._own_interventions()  # complain of a wrong option before anything is built
        super().__init__(policy, env, *args, **kwargs)  # type: ignore[call-arg]

    def _own_interventions(self) -> list[Intervention]:
        return [self._with_options(ContinualBackprop)]


class CBPPPO(_CBP, ContinualPPO):
    """
    PPO that replaces a tiny share of its least useful neurons at every gradient step: "PPO+CBP" of the P3O paper, with
    the settings of CBP's own authors; those of the paper are in the zoo's.

    Papers: Loss of plasticity in deep continual learning (Dohare et al., 2024); Stay Hungry, Keep Learning: Sustainable
    Plasticity for Deep Reinforcement Learning (tables 3 and 4).

    :param policy: see :class:`ContinualPPO`
    :param env: see :class:`ContinualPPO`
    :param args: SB3's arguments in SB3's order, from ``learning_rate`` on
    :param replacement_rate: share of the eligible neurons that are replaced per gradient step, in (0, 1]; the options are
        those of :class:`~sb3_nbsp.interventions.ContinualBackprop`
    :param maturity_threshold: age above which a neuron is eligible, in gradient steps
    :param decay_rate: of the running averages, in [0, 1)
    :param clear_moments: also forget the optimizer's moments of what is replaced
    :param renew_shared: include the layers of a features extractor that actor and critic share
    :param kwargs: everything else: see :class:`ContinualPPO` and :class:`stable_baselines3.PPO`
    :raises ValueError: if an option is out of its range
    """


class CBPSAC(_CBP, ContinualSAC):
    """
    SAC with continual backpropagation: see :class:`CBPPPO`, whose options it has, on a :class:`ContinualSAC`.

    :param policy: see :class:`ContinualSAC`
    :param env: see :class:`ContinualSAC`
    :param args: SB3's arguments in SB3's order, from ``learning_rate`` on
    :param kwargs: everything else: see :class:`CBPPPO`, :class:`ContinualSAC` and :class:`stable_baselines3.SAC`
    :raises ValueError: if an option is out of its range
    """
