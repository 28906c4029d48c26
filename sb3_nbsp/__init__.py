"""Deep RL agents that keep learning: NBSP, SBP and P3O, as a plugin of Stable-Baselines3."""

from sb3_nbsp.algorithms import (
    CBPPPO,
    CBPSAC,
    NBSPSAC,
    P3O,
    SBPSAC,
    ContinualPPO,
    ContinualSAC,
    CyclePPO,
    CycleSAC,
    ReDoPPO,
    ReDoSAC,
)
from sb3_nbsp.diagnostics import Diagnostics, PlasticityCallback, diagnostics
from sb3_nbsp.tasks.registration import register_environments

__version__ = "0.2.0.dev0"
__all__ = [
    "CBPPPO",
    "CBPSAC",
    "NBSPSAC",
    "P3O",
    "SBPSAC",
    "ContinualPPO",
    "ContinualSAC",
    "CyclePPO",
    "CycleSAC",
    "Diagnostics",
    "PlasticityCallback",
    "ReDoPPO",
    "ReDoSAC",
    "__version__",
    "diagnostics",
]

register_environments()
