"""What a measurement was made with: versions and machine."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("stable_baselines3", "torch", "gymnasium", "numpy", "metaworld", "mujoco", "rl_zoo3")


def versions() -> dict[str, str]:
    """Version of Python and of every package that matters and is installed."""
    from sb3_nbsp import __version__

    found = {"python": platform.python_version(), "sb3_nbsp": __version__}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):  # an extra that is not installed has no version to report
            found[package] = metadata.version(package)
    return found


def machine() -> dict[str, Any]:
    """Processor, number of cores, memory in GiB, system and, if there is one, the CUDA device."""
    import torch as th

    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8", errors="replace")) if info.exists() else []
    processor = next(iter(names), platform.processor() or platform.machine())
    found: dict[str, Any] = {"processor": processor, "cores": os.cpu_count(), "system": platform.platform()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    found["device"] = th.cuda.get_device_name() if th.cuda.is_available() else "cpu"
    return found


def usable_cores(cgroup: Path | None = None) -> int:
    """
    Cores that this process may use, at least 1: fewer than the machine has where it is bound to some (``taskset``, a batch
    system), or a container has a share of the time. ``cgroup`` is the folder with its limits; None for Linux's own.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = [_share(folder) for folder in ([cgroup] if cgroup is not None else _control_groups())]
    return max(1, min([bound, *(int(share) for share in shares if share is not None)]))


def _control_groups() -> list[Path]:
    """The folders of this process's control group and of all above it."""
    root, own = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
    names = re.findall(r"^0::/(.*)$", own.read_text(encoding="utf-8"), re.MULTILINE) if own.exists() else []
    folders = [folder for name in names for folder in ((root / name), *(root / name).parents) if folder.is_relative_to(root)]
    return [*folders, root, root / "cpu"]


def _share(folder: Path) -> float | None:
    """How many cores' time a control group has; None if it has no limit."""
    if (folder / "cpu.max").exists():
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
    elif (folder / "cpu.cfs_quota_us").exists():
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period"))
    else:
        return None
    return None if quota == "max" or int(quota) < 0 else int(quota) / int(period)
