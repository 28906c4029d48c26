"""Deep RL agents that keep learning: NBSP, SBP and P3O, as a plugin of Stable-Baselines3."""

from sb3_nbsp.algorithms.continual_discrete_sac import ContinualDiscreteSAC as ContinualDiscreteSAC
from sb3_nbsp.algorithms.continual_ppo import ContinualPPO as ContinualPPO
from sb3_nbsp.algorithms.continual_sac import ContinualSAC as ContinualSAC
from sb3_nbsp.algorithms.methods import *
from sb3_nbsp.diagnostics import Diagnostics as Diagnostics
from sb3_nbsp.diagnostics import PlasticityCallback as PlasticityCallback
from sb3_nbsp.diagnostics import diagnostics as diagnostics
from sb3_nbsp.tasks.registration import register_environments as _register_environments

__version__ = "0.2.0"

_register_environments()
