"""A comparison as one HTML page that needs nothing beside it: no script, no other file, no network."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from sb3_nbsp.benchmark.comparison import Run, short_name
from sb3_nbsp.benchmark.drawing import draw_figures
from sb3_nbsp.benchmark.frames import Results
from sb3_nbsp.benchmark.methods import METHODS
from sb3_nbsp.benchmark.style import data_uri
from sb3_nbsp.benchmark.table import build_tables
from sb3_nbsp.files import atomic_write

_PIXELS = 96  # of an inch


def write_report(results: Results, path: str | os.PathLike[str] | None = None) -> Path:
    """
    :param results: a comparison
    :param path: the HTML file; None for ``report.html`` in the folder of the comparison
    :return: the HTML file
    """
    path = results.folder / "report.html" if path is None else Path(path)
    atomic_write(path, report_html(results))
    return path


def report_html(results: Results) -> str:
    """The page of a comparison."""
    comparison = results.comparison
    drawn, skipped = draw_figures(results)
    names = ", ".join(short_name(env_id) for env_id in comparison.env_ids.values())
    n_runs = len(results.runs) + len(results.left_out)
    configs = _configs(results)
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters["text"] = _text
    template = environment.from_string(files("sb3_nbsp.benchmark").joinpath("report.html").read_text(encoding="utf-8"))
    return template.render(
        zip=zip,
        title=f"{names}, preset {comparison.preset}" if len(results.success) else names,
        subtitle=(
            f"Methods: {', '.join(METHODS[name].title for name in comparison.methods)}. "
            f"Seed{'s' * (len(comparison.seeds) > 1)}: {', '.join(map(str, comparison.seeds))}. "
            f"{len(results.runs)} of {n_runs} runs are done."
        ),
        tables=build_tables([results]) if len(results.runs) else [],
        figures=[
            (each, data_uri(each.figure), [round(_PIXELS * inches) for inches in each.figure.get_size_inches()])
            for each in drawn
        ],
        left_out=[f"{run.name}: {reason}" for run, reason in results.left_out],
        damaged=results.damaged,
        skipped=skipped,
        comparison={**asdict(comparison), "folder": str(results.folder)},
        methods=[METHODS[name] for name in comparison.methods],
        hyperparams=_hyperparams(configs),
        machines=_machines(configs),
        command=comparison.command(),
    )


def _configs(results: Results) -> dict[Run, dict[str, Any]]:
    """What ``config.json`` says of each run that is done; damaged ones are named elsewhere."""
    configs = {}
    left_out = {run for run, _ in results.left_out}
    for run in results.comparison.runs(results.folder):
        try:
            config = {} if run in left_out else run.folder.config()
        except (ValueError, OSError):
            continue
        if config:
            configs[run] = config
    return configs


def _hyperparams(configs: dict[Run, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By environment: a column for each method, as its first run has them, and the runs that have others."""
    tables: dict[str, dict[str, Any]] = {}
    for env_id in dict.fromkeys(run.env_id for run in configs):
        first: dict[str, tuple[Run, dict[str, Any]]] = {}
        notes = []
        for run, config in configs.items():
            if run.env_id == env_id:
                told, usual = first.setdefault(METHODS[run.method].title, (run, config["hyperparams"]))
                if config["hyperparams"] != usual:
                    other = _differences(usual, config["hyperparams"])
                    notes.append(f"{run.name} ran with other hyper-parameters than {told.name}: {other}")
        options = dict.fromkeys(name for _, each in first.values() for name in each)
        rows = {name: [_text(each[name]) if name in each else None for _, each in first.values()] for name in options}
        tables[env_id] = {"columns": list(first), "rows": rows, "notes": notes}
    return tables


def _differences(usual: dict[str, Any], other: dict[str, Any]) -> str:
    names = [name for name in {**usual, **other} if (name in usual, usual.get(name)) != (name in other, other.get(name))]
    return ", ".join(f"{name} {_text(other[name])}" if name in other else f"no {name}" for name in names)


def _machines(configs: dict[Run, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Versions and machines, each once, with the names of the runs that were made with them."""
    groups: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for run, config in configs.items():
        told = {**config["machine"], **config["versions"]}
        groups.setdefault(json.dumps(told, sort_keys=True, default=str), ([], told))[0].append(run.name)
    return [("; ".join(names), told) for names, told in groups.values()]


def _text(value: object) -> str:
    """Short: names of options without quotes, everything else as Python would write it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return value if isinstance(value, str) else repr(value)
