"""A comparison as one HTML page that needs nothing beside it: no script, no other file, no network."""

from __future__ import annotations

import base64
import io
import json
import os
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from sb3_nbsp.benchmark.comparison import Run, short_name
from sb3_nbsp.benchmark.figures import draw_figures
from sb3_nbsp.benchmark.frames import Results
from sb3_nbsp.benchmark.methods import METHODS
from sb3_nbsp.benchmark.table import build_tables
from sb3_nbsp.figure_style import STYLE
from sb3_nbsp.files import atomic_write
from sb3_nbsp.tasks.registration import sequences


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
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"text": _text, "data_uri": _data_uri}
    template = environment.from_string(files("sb3_nbsp.benchmark").joinpath("report.html").read_text(encoding="utf-8"))
    configs = _configs(results)
    return template.render(
        zip=zip,
        results=results,
        names=[short_name(env_id) for env_id in comparison.env_ids.values()],
        has_preset=any(env_id in sequences() for env_id in comparison.env_ids.values()),
        tables=build_tables([results]) if len(results.runs) else [],
        figures=drawn,
        skipped=skipped,
        comparison={**asdict(comparison), "folder": str(results.folder)},
        methods=[METHODS[name] for name in comparison.methods],
        hyperparams={env_id: _hyperparams(configs, env_id) for env_id in dict.fromkeys(run.env_id for run in configs)},
        machines=_machines(configs),
        command=comparison.command(),
    )


def _configs(results: Results) -> dict[Run, dict[str, Any]]:
    """What ``config.json`` says of each run that is done; damaged ones are named elsewhere."""
    configs, left_out = {}, {run for run, _ in results.left_out}
    for run in results.comparison.runs(results.folder):
        try:
            configs[run] = {} if run in left_out else run.folder.config()
        except (ValueError, OSError):
            continue
    return {run: config for run, config in configs.items() if config}


def _hyperparams(configs: dict[Run, dict[str, Any]], env_id: str) -> dict[str, Any]:
    """A column for each method, as its first run on an environment has them, and the runs that have others."""
    first: dict[str, tuple[Run, dict[str, Any]]] = {}
    notes = []
    for run, config in configs.items():
        if run.env_id == env_id:
            told, usual = first.setdefault(METHODS[run.method].title, (run, config["hyperparams"]))
            if other := _differences(usual, config["hyperparams"]):
                notes.append(f"{run.name} ran with other hyper-parameters than {told.name}: {other}")
    options = dict.fromkeys(name for _, each in first.values() for name in each)
    rows = {name: [_text(each[name]) if name in each else None for _, each in first.values()] for name in options}
    return {"columns": list(first), "rows": rows, "notes": notes}


def _differences(usual: dict[str, Any], other: dict[str, Any]) -> str:
    names = [name for name in {**usual, **other} if usual.get(name, ...) != other.get(name, ...)]
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
    return (", ".join(map(_text, value)) or "none") if isinstance(value, list) else str(value)


def _data_uri(figure: Figure) -> str:
    """A figure as SVG in an address that needs no file."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
