"""SB3 algorithms that know phases and take interventions."""

from sb3_nbsp.algorithms.continual_sac import ContinualSAC
from sb3_nbsp.algorithms.nbsp_sac import NBSPSAC

__all__ = ["NBSPSAC", "ContinualSAC"]
