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
import pandas as pd
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from sb3_nbsp.benchmark.comparison import short_name
from sb3_nbsp.benchmark.figures import draw_figures
from sb3_nbsp.benchmark.frames import Results
from sb3_nbsp.benchmark.methods import METHODS
from sb3_nbsp.benchmark.table import build_tables
from sb3_nbsp.figure_style import STYLE
from sb3_nbsp.files import atomic_write
from sb3_nbsp.tasks.registration import is_sequence, sequences


def write_report(results: Results, path: str | os.PathLike[str] | None = None) -> Path:
    """Write the page of a comparison, as ``report.html`` in its folder or elsewhere; its path."""
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
    told = results.runs[results.runs.config.astype(bool)]
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
        hyperparams={env_id: _hyperparams(runs, is_sequence(env_id)) for env_id, runs in told.groupby("env", sort=False)},
        machines=_machines(told),
        command=comparison.command(),
    )


def _hyperparams(runs: pd.DataFrame, on_sequence: bool) -> dict[str, Any]:
    """A column for each method, as its first run on an environment has them, and the runs that have others."""
    first: dict[str, Any] = {}
    notes = []
    for run in runs.itertuples():
        usual = first.setdefault(run.method, run)
        told, own = usual.config["hyperparams"], run.config["hyperparams"]
        names = [name for name in {**told, **own} if told.get(name, ...) != own.get(name, ...)]
        if names:
            other = ", ".join(f"{name} {_text(own[name])}" if name in own else f"no {name}" for name in names)
            notes.append(f"{run.name} ran with other hyperparameters than {usual.name}: {other}")
    columns = [run.config["hyperparams"] for run in first.values()]
    options = dict.fromkeys(name for each in columns for name in each)
    if on_sequence:  # which itself says how long it is
        options.pop("n_timesteps", None)
    rows = {name: [_text(each[name]) if name in each else None for each in columns] for name in options}
    return {"columns": list(first), "rows": rows, "notes": notes}


def _machines(runs: pd.DataFrame) -> list[tuple[str, dict[str, Any]]]:
    """Versions and machines, each once, with the names of the runs that were made with them."""
    groups: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for run in runs.itertuples():
        told = {**run.config["machine"], **run.config["versions"]}
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
