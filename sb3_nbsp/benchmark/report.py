"""A comparison as one HTML page that needs nothing beside it: no script, no other file, no network."""

from __future__ import annotations

import base64
import os
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from sb3_nbsp.benchmark.damaged import damaged_files
from sb3_nbsp.benchmark.figures.drawing import Drawn, draw_figures, svg_of
from sb3_nbsp.benchmark.html_parts import items, scroll, section
from sb3_nbsp.benchmark.report_configuration import configuration_html, environment_html
from sb3_nbsp.benchmark.results import Results
from sb3_nbsp.benchmark.table import build_tables
from sb3_nbsp.files import atomic_path


def write_report(results: Results, path: str | os.PathLike[str] | None = None) -> Path:
    """
    Write the report.

    :param results: a comparison's results
    :param path: the HTML file; ``report.html`` in the comparison's folder if it is None
    :return: the HTML file
    """
    path = results.folder / "report.html" if path is None else Path(path)
    with atomic_path(path) as temporary:
        temporary.write_text(report_html(results), encoding="utf-8")
    return path


def report_html(results: Results) -> str:
    """
    :param results: a comparison's results
    :return: the page
    """
    drawn = draw_figures(results)
    sections = {
        ("tables", "Tables"): _tables_html(results),
        ("figures", "Figures"): _figures_html(drawn),
        ("left-out", "What was left out"): _left_out_html(results, drawn),
        ("configuration", "Configuration"): configuration_html(results),
        ("environment", "Versions, machine and command"): environment_html(results),
    }
    plan = results.plan
    n_planned = len(results.runs) + len(results.left_out)
    seeds = ", ".join(map(str, plan.seeds))
    subtitle = (
        f"Methods: {', '.join(plan.methods)}. Seed{'s' * (len(plan.seeds) > 1)}: {seeds}. "
        f"{len(results.runs)} of {n_planned} runs are done."
    )
    template = Template(_resource("report.html"))
    return template.substitute(
        title=escape(f"{plan.sequence}, preset {plan.preset}"),
        subtitle=escape(subtitle),
        css=_resource("report.css"),
        contents="\n".join(f'<li><a href="#{name}">{escape(title)}</a></li>' for name, title in sections),
        sections="\n".join(section(*names, content) for names, content in sections.items()),
    )


def _resource(name: str) -> str:
    return files("sb3_nbsp.benchmark").joinpath(name).read_text(encoding="utf-8")


def _tables_html(results: Results) -> str:
    if not results.runs:
        return "<p>No run is done yet.</p>"
    return "\n".join(scroll(table.html()) for table in build_tables([results]))


def _figures_html(drawn: Drawn) -> str:
    parts = []
    for kind, figure in drawn.figures:
        data = base64.b64encode(svg_of(figure).encode()).decode()
        width, height = (round(72 * inches) for inches in figure.get_size_inches())
        image = (
            f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(f"{kind.title}. {kind.caption}")}" '
            f'width="{width * 4 // 3}" height="{height * 4 // 3}">'
        )
        parts.append(
            f'<h3 id="figure-{escape(kind.name)}">{escape(kind.title)}</h3>\n<figure>\n{image}\n'
            f"<figcaption>{escape(kind.caption)}</figcaption>\n</figure>"
        )
    return "\n".join(parts) or "<p>There is nothing to draw yet.</p>"


def _left_out_html(results: Results, drawn: Drawn) -> str:
    parts = []
    if results.left_out:
        parts.append("<h3>Runs</h3>\n<p>They count in no table and no figure.</p>")
        parts.append(items(f"{cell.name}: {reason}" for cell, reason in results.left_out))
    if damaged := damaged_files(results):
        parts.append("<h3>Files</h3>\n<p>The runs count; what these files hold is missing where it would be shown.</p>")
        parts.append(items(damaged))
    if drawn.skipped:
        parts.append("<h3>Figures</h3>")
        parts.append(items(drawn.skipped))
    return "\n".join(parts) or "<p>Nothing: every run of the plan is done and every file could be read.</p>"
