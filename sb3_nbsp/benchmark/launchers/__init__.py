"""Where the runs of a comparison are computed: processes of this machine, or a Ray cluster."""

from sb3_nbsp.benchmark.launchers.base import Launcher, Outcome
from sb3_nbsp.benchmark.launchers.local import LocalLauncher
from sb3_nbsp.benchmark.launchers.ray import RayLauncher

__all__ = ["Launcher", "LocalLauncher", "Outcome", "RayLauncher"]
