"""Table of a comparison of plasticity: return and signs of plasticity of every method on every environment."""

from __future__ import annotations

import math

import numpy as np

from sb3_nbsp.benchmark.figures.statistics import mean_and_error
from sb3_nbsp.benchmark.plasticity_results import PlasticityResults, TaskRun
from sb3_nbsp.benchmark.rendering import Number, Table

UNKNOWN = "–"
# Name in the files, heading, decimals
COLUMNS = [
    ("return", "return ↑", 0),
    ("training_return", "training return ↑", 0),
    ("distillation_epochs", "distillation epochs", 1),
    ("share_ever_reset", "share ever reset", 2),
    ("weight_norm", "weight norm", 2),
    ("dormant_ratio", "dormant ratio", 3),
    ("gradient_norm", "gradient norm", 1),
]


def plasticity_table(results: PlasticityResults) -> Table:
    """
    Mean ± standard error over seeds, at the end of the runs; and below it the method's values at the start of training, as
    far as they were recorded, to compare them with.

    :param results: a comparison's results
    :return: the table, a row or two per environment and method
    """
    plan = results.plan
    table = Table(
        f"Return and plasticity after {plan.n_timesteps:,} steps",
        ["environment, method", "seeds", *(heading for _, heading, _ in COLUMNS)],
        notes=[f"{cell.name} is left out: {reason}." for cell, reason in results.left_out],
    )
    for env_id in plan.env_ids:
        rows = {method: runs for method in plan.methods if (runs := results.of(env_id, method))}
        returns = {method: float(np.mean([run.last("return") for run in runs])) for method, runs in rows.items()}
        for method, runs in rows.items():
            if returns[method] == max(returns.values()):
                table.best.add((len(table.rows), 2))
            cells = [_cell([run.last(name) for run in runs], decimals) for name, _, decimals in COLUMNS]
            table.rows.append([f"{env_id}, {method}", str(len(runs)), *cells])
            start = [_cell([run.first(name) for run in runs], decimals) for name, _, decimals in COLUMNS]
            if set(start) != {UNKNOWN}:
                table.rows.append([f"{env_id}, {method}, at the start", str(len(runs)), *start])
            table.numbers += [_number(env_id, method, runs, name) for name, _, _ in COLUMNS]
    return table


def _cell(values: list[float], decimals: int) -> str:
    mean, error = map(float, mean_and_error(np.array(values)))
    if math.isnan(mean):
        return UNKNOWN
    return f"{mean:,.{decimals}f}" + ("" if math.isnan(error) else f" ± {error:,.{decimals}f}")


def _number(env_id: str, method: str, runs: list[TaskRun], name: str) -> Number:
    mean, error = map(float, mean_and_error(np.array([run.last(name) for run in runs])))
    nan, steps = float("nan"), float(np.mean([run.last("steps") for run in runs]))
    return Number(method, env_id, name, mean, error, nan, nan, nan, len(runs), steps)
