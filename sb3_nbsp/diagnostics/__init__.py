"""Ask how plastic a network is: once, or again and again during training."""

from sb3_nbsp.diagnostics.callback import PlasticityCallback
from sb3_nbsp.diagnostics.measure import Diagnostics, diagnostics

__all__ = ["Diagnostics", "PlasticityCallback", "diagnostics"]
