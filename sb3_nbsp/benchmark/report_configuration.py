"""Section of the report: how the methods were set, on which machine they ran, and by which command."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from sb3_nbsp.benchmark.config_file import RunConfig, read_config
from sb3_nbsp.benchmark.html_parts import definitions, scroll, table, table_cell
from sb3_nbsp.benchmark.methods import METHODS
from sb3_nbsp.benchmark.plan import Cell
from sb3_nbsp.benchmark.results import Results, Run

_MISSING = object()


def configuration_html(results: Results) -> str:
    """
    :param results: a comparison's results
    :return: plan, methods and hyper-parameters
    """
    plan = results.plan
    texts = {
        "Sequence": plan.sequence,
        "Preset": plan.preset,
        "Environment": plan.env_id,
        "Arguments of the environment": _text(plan.env_kwargs) if plan.env_kwargs else "those of its id",
        "Methods": ", ".join(plan.methods),
        "Seeds": ", ".join(map(str, plan.seeds)),
        "Hyper-parameters of all methods": _text(plan.hyperparams) if plan.hyperparams else "those of the YAML files",
        "Evaluation": f"{plan.n_eval_episodes} episodes per task after each phase",
        "Folder": str(results.folder),
    }
    parts = [definitions(texts)]
    methods = [METHODS[name] for name in plan.methods]
    columns = [(method.name, (method.algo, method.description, _text(method.options))) for method in methods]
    rows = [(name, [table_cell(text) for text in texts]) for name, texts in columns]
    header = ["method", "algorithm", "what it is", "options that differ from the YAML file's"]
    parts.append(scroll(table("Methods.", header, rows)))
    parts.append(_hyperparams_html(results))
    return "\n".join(parts)


def _hyperparams_html(results: Results) -> str:
    of_methods = {method: found for method in results.methods if (found := _configs(results.of(method)))}
    if not of_methods:
        return "<p>No run has told its hyper-parameters (config.json).</p>"
    hyperparams = {method: next(iter(found.values())).hyperparams for method, found in of_methods.items()}
    names = dict.fromkeys(name for options in hyperparams.values() for name in options)
    first = next(iter(hyperparams.values()))
    rows = [
        (name, [_option(options.get(name, _MISSING), first.get(name, _MISSING)) for options in hyperparams.values()])
        for name in names
    ]
    caption = f"Hyper-parameters, as the runs resolved them. Marked: what differs from {next(iter(hyperparams))}."
    notes = [
        f"<p>{escape(cell.name)} ran with other hyper-parameters than {escape(next(iter(found)).name)}: "
        f"{escape(_differences(next(iter(found.values())).hyperparams, config.hyperparams))}</p>"
        for found in of_methods.values()
        for cell, config in found.items()
        if config.hyperparams != next(iter(found.values())).hyperparams
    ]
    return "\n".join([scroll(table(caption, ["", *hyperparams], rows)), *notes])


def _option(value: object, first: object) -> str:
    classes = ["differs"] * (value != first) + ["none"] * (value is _MISSING)
    return table_cell("–" if value is _MISSING else _text(value), " ".join(classes))


def _differences(one: dict[str, Any], other: dict[str, Any]) -> str:
    names = [name for name in {**one, **other} if one.get(name, _MISSING) != other.get(name, _MISSING)]
    return ", ".join(f"{name} {_text(other[name])}" if name in other else f"no {name}" for name in names)


def environment_html(results: Results) -> str:
    """
    :param results: a comparison's results
    :return: versions and machines, each once, with the runs that it is of, and the command that makes the comparison
    """
    configs = _configs(results.runs)
    if not configs:
        return "<p>No run has told its versions and machine (config.json).</p>"
    groups: dict[str, list[tuple[Cell, RunConfig]]] = {}
    for run, config in configs.items():
        key = json.dumps([config.versions, config.machine], sort_keys=True, default=str)
        groups.setdefault(key, []).append((run, config))
    parts = []
    for group in groups.values():
        if len(groups) > 1:
            parts.append(f"<h3>{escape('; '.join(run.name for run, _ in group))}</h3>")
        _, config = group[0]
        parts.append(definitions({**_texts(config.machine), **_texts(config.versions)}))
    return "\n".join([*parts, "<h3>Command</h3>", f"<pre>{escape(results.plan.command())}</pre>"])


def _configs(runs: list[Run]) -> dict[Cell, RunConfig]:
    configs = {}
    for run in runs:
        try:
            config = read_config(run.cell.folder)
        except (ValueError, OSError):
            continue  # named among the damaged files
        if config is not None:
            configs[run.cell] = config
    return configs


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): _text(value) for name, value in values.items()}


def _text(value: object) -> str:
    """Short: names of options without quotes, and as Python would write them otherwise."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items()) or "none"
    return value if isinstance(value, str) else repr(value)
