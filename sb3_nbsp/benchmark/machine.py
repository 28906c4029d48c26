"""What a measurement was made with: versions and machine."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("stable_baselines3", "torch", "gymnasium", "numpy", "metaworld", "mujoco", "rl_zoo3")


def versions() -> dict[str, str]:
    """Version of Python and of every package that matters and is installed."""
    from sb3_nbsp import __version__

    found = {"python": platform.python_version(), "sb3_nbsp": __version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # an extra that is not installed has no version to report
    return found


def machine() -> dict[str, Any]:
    """Processor, number of cores, memory in GiB, system and, if there is one, the CUDA device."""
    import torch as th

    found: dict[str, Any] = {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    found["device"] = th.cuda.get_device_name() if th.cuda.is_available() else "cpu"
    return found


def usable_cores(cgroup: Path | None = None) -> int:
    """
    Cores that this process may use, which can be fewer than the machine has: a process can be bound to some (``taskset``, a
    batch system), and a container can have a share of the time.

    :param cgroup: folder with the limits of the process's control group; None for Linux's own
    :return: number of cores, at least 1
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = [_share(folder) for folder in ([cgroup] if cgroup is not None else _control_groups())]
    return max(1, min([bound, *(int(share) for share in shares if share is not None)]))


def _control_groups() -> list[Path]:
    """The folders of this process's control group and of all above it."""
    root, own = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
    lines = own.read_text(encoding="utf-8").splitlines() if own.exists() else []
    paths = [root / line.partition("::")[2].lstrip("/") for line in lines if line.startswith("0::")]
    folders = [folder for path in paths for folder in (path, *path.parents) if folder.is_relative_to(root)]
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


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
