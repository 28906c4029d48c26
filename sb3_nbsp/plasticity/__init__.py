"""Ask how plastic a network is: once, or again and again during training."""

from sb3_nbsp.plasticity.callback import PlasticityCallback
from sb3_nbsp.plasticity.measure import Diagnostics, diagnostics

__all__ = ["Diagnostics", "PlasticityCallback", "diagnostics"]
