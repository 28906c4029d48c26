"""How long ``import sb3_nbsp`` takes on top of ``import stable_baselines3``."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from tools.speed.turns import Row

GOAL = 0.3
_CODE = """
import stable_baselines3, time
start = time.perf_counter()
import sb3_nbsp
print(time.perf_counter() - start)
"""


def measure(rounds: int) -> Row:
    """
    :param rounds: number of processes
    :return: seconds
    """
    seconds = [
        float(subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, check=True).stdout)
        for _ in range(rounds)
    ]
    return Row("Import of sb3_nbsp on top of stable_baselines3", np.array(seconds), "s", GOAL, at_least=False)
