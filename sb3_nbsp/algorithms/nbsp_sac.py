"""NBSP on SAC."""

from __future__ import annotations

from typing import Any, Literal

from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.sac.policies import SACPolicy

from sb3_nbsp.algorithms.continual_sac import ContinualSAC
from sb3_nbsp.algorithms.method import Method
from sb3_nbsp.interventions import ExperienceReplay, GradientMasking, Intervention
from sb3_nbsp.interventions.base import check_option
from sb3_nbsp.interventions.experience_replay import ReplayEntCoef
from sb3_nbsp.interventions.goal_window import GoalMetric
from sb3_nbsp.interventions.gradient_masking import Identification
from sb3_nbsp.interventions.parameter_masks import MaskSide


class NBSPSAC(Method, ContinualSAC):
    """
    Neuron-level Balance between Stability and Plasticity (NBSP) on Soft Actor-Critic: after each task, the
    neurons whose activation goes with success are found and from then on moved only a little, and
    every ``replay_interval``-th batch comes from a memory of earlier tasks.

    Paper: NBSP, A Neuron-Level Framework for Balancing Stability and Plasticity in Deep Reinforcement Learning
    (Algorithms 1 and 2). Until the first task ends it is plain SAC.

    :param policy: see :class:`ContinualSAC`
    :param env: see :class:`ContinualSAC`
    :param args: SB3's arguments in SB3's order, from ``learning_rate`` on
    :param masking: use gradient masking; the options are those of :class:`~sb3_nbsp.interventions.GradientMasking`
    :param skill_proportion: m, share of skill neurons among the eligible hidden neurons of a network
    :param mask_alpha: α of equation 7
    :param mask_type: "soft" or "hard"
    :param mask_target: "step" or "gradient"
    :param mask_accumulation: "minimum" (over the tasks) or "latest"
    :param mask_side: "incoming", "outgoing" or "both"
    :param mask_networks: "both", "actor" or "critic"
    :param identification: "balanced", "goal" (the printed score), "activation", "weight" or "random"
    :param identification_steps: T
    :param identification_data: "auto", "training" or "fresh"
    :param goal_metric: "auto", "step_success", "episode_success", "episode_return" or a function of (reward, done, info)
    :param min_active_share: never select neurons that are on one side of their mean on less than this share of the steps
    :param replay: use experience replay; the options are those of :class:`~sb3_nbsp.interventions.ExperienceReplay`
    :param memory_size: capacity of the memory of earlier tasks, in transitions
    :param replay_interval: k, gradient steps from one batch of the memory to the next
    :param replay_ent_coef: entropy coefficient for these batches: "current", "own" or "auto"
    :param interventions: further interventions; they act after NBSP's own
    :param kwargs: everything else: see :class:`ContinualSAC` and :class:`stable_baselines3.SAC`
    :raises ValueError: if an option is out of its range
    """

    def __init__(
        self,
        policy: str | type[SACPolicy],
        env: GymEnv | str,
        *args: Any,
        masking: bool = True,
        skill_proportion: float = 0.2,
        mask_alpha: float = 0.2,
        mask_type: Literal["soft", "hard"] = "soft",
        mask_target: Literal["step", "gradient"] = "step",
        mask_accumulation: Literal["minimum", "latest"] = "minimum",
        mask_side: MaskSide = "incoming",
        mask_networks: Literal["both", "actor", "critic"] = "both",
        identification: Identification = "balanced",
        identification_steps: int = 10_000,
        identification_data: Literal["auto", "training", "fresh"] = "auto",
        goal_metric: GoalMetric = "auto",
        min_active_share: float = 0.01,
        replay: bool = True,
        memory_size: int = 100_000,
        replay_interval: int = 10,
        replay_ent_coef: ReplayEntCoef = "auto",
        **kwargs: Any,
    ) -> None:
        check_option("masking", masking, (True, False))
        check_option("replay", replay, (True, False))
        self.masking = masking
        self.skill_proportion = skill_proportion
        self.mask_alpha = mask_alpha
        self.mask_type = mask_type
        self.mask_target = mask_target
        self.mask_accumulation = mask_accumulation
        self.mask_side = mask_side
        self.mask_networks = mask_networks
        self.identification = identification
        self.identification_steps = identification_steps
        self.identification_data = identification_data
        self.goal_metric = goal_metric
        self.min_active_share = min_active_share
        self.replay = replay
        self.memory_size = memory_size
        self.replay_interval = replay_interval
        self.replay_ent_coef = replay_ent_coef
        self._own_interventions()  # complain of a wrong option before anything is built
        super().__init__(policy, env, *args, **kwargs)

    def _own_interventions(self) -> list[Intervention]:
        # Built whether or not they are used: a wrong option is an error either way
        masking, replay = self._with_options(GradientMasking), self._with_options(ExperienceReplay)
        return [*([masking] if self.masking else []), *([replay] if self.replay else [])]

    def _switched_off(self) -> list[str]:
        switches = {GradientMasking: self.masking, ExperienceReplay: self.replay}
        return [kind.__name__ for kind, is_on in switches.items() if not is_on]
