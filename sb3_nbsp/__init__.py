"""Deep RL agents that keep learning: NBSP, and soon SBP and P3O, as a plugin of Stable-Baselines3."""

from sb3_nbsp.algorithms import NBSPSAC, ContinualSAC
from sb3_nbsp.tasks.registration import register_sequences

__version__ = "0.1.0"
__all__ = ["NBSPSAC", "ContinualSAC", "__version__"]

register_sequences()
