"""SB3 algorithms that know phases and take interventions."""

from sb3_nbsp.algorithms.continual_ppo import ContinualPPO
from sb3_nbsp.algorithms.continual_sac import ContinualSAC
from sb3_nbsp.algorithms.methods import CBPPPO, CBPSAC, NBSPSAC, P3O, SBPSAC, CyclePPO, CycleSAC, ReDoPPO, ReDoSAC

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
    "ReDoPPO",
    "ReDoSAC",
]
