"""Changes to how an agent learns, one per file. They combine freely."""

from sb3_nbsp.interventions.base import Intervention, Phase
from sb3_nbsp.interventions.container import Interventions
from sb3_nbsp.interventions.continual_backprop import ContinualBackprop
from sb3_nbsp.interventions.cycle_reset import CycleReset
from sb3_nbsp.interventions.experience_replay import ExperienceReplay
from sb3_nbsp.interventions.gradient_masking import GradientMasking
from sb3_nbsp.interventions.inner_distillation import InnerDistillation
from sb3_nbsp.interventions.random_reset import RandomReset
from sb3_nbsp.interventions.recovery_training import RecoveryTraining
from sb3_nbsp.interventions.redo import ReDo

__all__ = [
    "ContinualBackprop",
    "CycleReset",
    "ExperienceReplay",
    "GradientMasking",
    "InnerDistillation",
    "Intervention",
    "Interventions",
    "Phase",
    "RandomReset",
    "ReDo",
    "RecoveryTraining",
]
