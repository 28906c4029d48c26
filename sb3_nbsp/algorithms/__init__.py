"""SB3 algorithms that know phases and take interventions."""

from sb3_nbsp.algorithms.continual_discrete_sac import ContinualDiscreteSAC as ContinualDiscreteSAC
from sb3_nbsp.algorithms.continual_ppo import ContinualPPO as ContinualPPO
from sb3_nbsp.algorithms.continual_sac import ContinualSAC as ContinualSAC
from sb3_nbsp.algorithms.methods import *
