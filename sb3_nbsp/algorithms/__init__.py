"""SB3 algorithms that know phases and take interventions."""

from sb3_nbsp.algorithms.cbp import CBPPPO, CBPSAC
from sb3_nbsp.algorithms.continual_ppo import ContinualPPO
from sb3_nbsp.algorithms.continual_sac import ContinualSAC
from sb3_nbsp.algorithms.cycle import CyclePPO, CycleSAC
from sb3_nbsp.algorithms.nbsp_sac import NBSPSAC
from sb3_nbsp.algorithms.redo import ReDoPPO, ReDoSAC
from sb3_nbsp.algorithms.sbp import P3O, SBPSAC

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
