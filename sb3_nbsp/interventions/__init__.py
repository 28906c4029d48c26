"""Changes to how an agent learns, one per file. They combine freely."""

from sb3_nbsp.interventions.base import Intervention, Interventions, Phase
from sb3_nbsp.interventions.cycle_reset import CycleReset
from sb3_nbsp.interventions.experience_replay import ExperienceReplay
from sb3_nbsp.interventions.gradient_masking import GradientMasking
from sb3_nbsp.interventions.inner_distillation import InnerDistillation

__all__ = [
    "CycleReset",
    "ExperienceReplay",
    "GradientMasking",
    "InnerDistillation",
    "Intervention",
    "Interventions",
    "Phase",
]
