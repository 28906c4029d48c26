"""Changes to how an agent learns, one per file. They combine freely."""

from sb3_nbsp.interventions.base import Intervention, Interventions, Phase
from sb3_nbsp.interventions.experience_replay import ExperienceReplay
from sb3_nbsp.interventions.gradient_masking import GradientMasking

__all__ = ["ExperienceReplay", "GradientMasking", "Intervention", "Interventions", "Phase"]
