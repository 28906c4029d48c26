"""Options of the commands that compute runs: where, and how many at a time."""

from __future__ import annotations

import argparse

from sb3_nbsp.benchmark.launchers import Launcher, LocalLauncher, RayLauncher
from sb3_nbsp.benchmark.machine import usable_cores


def add_launcher_arguments(parser: argparse.ArgumentParser) -> None:
    """
    :param parser: gets the options
    """
    parser.add_argument("--launcher", choices=["local", "ray"], default="local", help="where the runs are computed")
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="local: runs at a time")
    parser.add_argument("--address", help="ray: a running cluster; without it Ray is started on this machine")
    parser.add_argument("--cpus-per-run", type=int, default=1, help="ray: cores of a run")
    parser.add_argument("--gpus-per-run", type=float, default=0.0, help="ray: share of a GPU of a run")


def launcher(args: argparse.Namespace) -> Launcher:
    """
    :param args: the options of :func:`add_launcher_arguments`
    :return: what they ask for
    :raises ValueError: if a number is out of its range
    :raises ImportError: if Ray is asked for and not installed
    """
    if args.launcher == "ray":
        return RayLauncher(args.address, args.cpus_per_run, args.gpus_per_run)
    return LocalLauncher(args.jobs)
