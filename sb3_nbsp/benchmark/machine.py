"""What a measurement was made with: versions and machine."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("stable_baselines3", "torch", "gymnasium", "numpy", "metaworld", "mujoco", "rl_zoo3")


def versions() -> dict[str, str]:
    """
    :return: version of Python and of every package that matters and is installed
    """
    from sb3_nbsp import __version__

    found = {"python": platform.python_version(), "sb3_nbsp": __version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # an extra that is not installed has no version to report
    return found


def machine() -> dict[str, Any]:
    """
    :return: processor, number of cores, memory in GiB, system and, if there is one, the CUDA device
    """
    import torch as th

    found: dict[str, Any] = {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    found["device"] = th.cuda.get_device_name() if th.cuda.is_available() else "cpu"
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
