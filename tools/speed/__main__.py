"""
Time gradient steps of SAC, iterations of PPO and what NBSP and P3O add to them, in turns with stock SB3 (and SBX, where it is
installed) in one run. What is printed are medians and quartiles over the rounds, mostly of ratios; and the machine.
"""

from __future__ import annotations

import argparse
import os
from importlib import metadata
from importlib.util import find_spec

import torch as th
from rich.console import Console
from rich.table import Table

from sb3_nbsp.machine import machine, versions
from tools.speed import discrete_sac, imports, methods, nbsp, ppo, sac, tricks
from tools.speed.turns import Row

PARTS = ("sac", "discrete", "methods", "nbsp", "ppo", "tricks", "import")
# Instructions that decide how fast matrices are multiplied
EXTENSIONS = ("avx", "amx", "fma", "bf16", "sve")


def make_parser() -> argparse.ArgumentParser:
    """
    :return: the parser of the command line
    """
    parser = argparse.ArgumentParser(
        prog="python -m tools.speed", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    parser.add_argument(
        "--net-arch",
        type=int,
        nargs="+",
        action="append",
        metavar="SIZE",
        help="sizes of SAC's hidden layers; may be given several times (default: 256 256 and 768 768 768)",
    )
    parser.add_argument("--rounds", type=int, default=9, help="turns of each variant")
    parser.add_argument("--steps", type=int, default=10, help="gradient steps per turn")
    parser.add_argument("--ppo-env", default="HalfCheetah-v5", help="environment of PPO")
    parser.add_argument("--ppo-net-arch", type=int, nargs="+", default=[256, 256, 256], help="sizes of PPO's hidden layers")
    parser.add_argument("--ppo-steps", type=int, default=8192, help="steps of PPO's rollout")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch; with one, all runs on one core")
    return parser


def measure(args: argparse.Namespace) -> list[Row]:
    """
    :param args: the options
    :return: the lines of the table
    """
    sizes: list[list[int]] = args.net_arch or [[256, 256], [768, 768, 768]]
    rows: list[Row] = []
    if "sac" in args.parts:
        for size in sizes:
            rows += sac.measure(size, args.rounds, args.steps)
            if th.cuda.is_available():
                rows += sac.measure_on_cuda(size, args.rounds, args.steps)
        rows.append(sac.peak_memory(sizes[-1]))
    if "discrete" in args.parts:
        rows += discrete_sac.measure(args.rounds, args.steps)
    if "methods" in args.parts:
        rows += methods.measure(sizes[0], args.rounds, args.steps)
    if "nbsp" in args.parts:
        rows += [nbsp.identification(sizes[-1], args.rounds), nbsp.memory()]
    if "ppo" in args.parts:
        rows += ppo.measure(args.ppo_env, args.ppo_net_arch, args.ppo_steps, args.rounds)
    if "tricks" in args.parts:
        for size in sizes:
            rows += tricks.measure_sac(size, args.rounds, args.steps)
        rows += tricks.measure_ppo(args.ppo_env, args.ppo_net_arch, args.ppo_steps, args.rounds)
    if "import" in args.parts:
        rows.append(imports.measure(args.rounds))
    return rows


def main(arguments: list[str] | None = None) -> None:
    """
    Measure and print.

    :param arguments: the command line's
    """
    args = make_parser().parse_args(arguments)
    th.set_num_threads(args.threads)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if args.threads == 1 and hasattr(os, "sched_setaffinity"):
        # SBX takes all cores that there are
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    table = Table("", "median (quartiles)", "goal")
    for row in measure(args):
        table.add_row(row.what, row.measured(), row.wanted())
    console = Console()
    console.print(table)
    here, found = machine(), versions()
    if find_spec("sbx"):
        found["sbx-rl"] = metadata.version("sbx-rl")
    console.print(
        f"{args.rounds} rounds. {here['processor']}, {here['cores']} cores, {args.threads} threads, device {here['device']}; "
        + ", ".join(f"{name} {version}" for name, version in found.items())
    )
    extensions = [name for name, has in th.cpu.get_capabilities().items() if has is True and name.startswith(EXTENSIONS)]
    console.print("Instructions: " + ", ".join(sorted(extensions)))


if __name__ == "__main__":
    main()
