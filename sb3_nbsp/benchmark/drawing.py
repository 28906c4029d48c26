"""All figures of a comparison: what there is, drawn and written."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from sb3_nbsp.benchmark import figures, neuron_figures, training_figures
from sb3_nbsp.benchmark.comparison import short_name
from sb3_nbsp.benchmark.frames import Results
from sb3_nbsp.benchmark.style import NoDataError, save
from sb3_nbsp.figure_style import STYLE
from sb3_nbsp.tasks.registration import is_sequence

# Name of its files, heading, and what draws it: its docstring is the caption
OF_SEQUENCES: list[tuple[str, str, Callable[[Results], Figure]]] = [
    ("metrics", "ASR, FM and FWT", figures.metrics_figure),
    ("training", "Training success over the phases", training_figures.training_figure),
    ("success_matrix", "Success after each phase", figures.success_matrix_figure),
    ("forgetting", "Forgetting over the phases", figures.forgetting_figure),
    ("skill_neurons", "Skill neurons in each layer", neuron_figures.skill_neurons_figure),
    ("overlap", "Skill neurons that tasks share", neuron_figures.overlap_figure),
    ("histograms", "Activation of skill neurons", neuron_figures.histograms_figure),
]
# Of a comparison with a switch, ahead of the others
AFTER_SWITCH = ("retention", "Retention of the first task", figures.retention_figure)


@dataclass(frozen=True)
class Drawing:
    """
    A figure that was drawn.

    :param name: of its files
    :param title: its heading
    :param caption: what it shows and how it is read
    :param figure: the figure
    """

    name: str
    title: str
    caption: str
    figure: Figure


def draw_figures(results: Results) -> tuple[list[Drawing], list[str]]:
    """
    :param results: a comparison
    :return: its figures, and for each that there is nothing for a sentence that says why
    """
    env_ids = results.comparison.env_ids.values()
    sequences = [env_id for env_id in env_ids if is_sequence(env_id)]
    kinds = OF_SEQUENCES if results.comparison.switch_steps is None else [AFTER_SWITCH, *OF_SEQUENCES]
    todo = [(results.of(env_id), env_id, *figure) for env_id in sequences for figure in kinds]
    if len(sequences) < len(env_ids):
        todo.append((results, "", "plasticity", "Return and plasticity", training_figures.plasticity_figure))
    drawn, skipped = [], []
    for part, env_id, name, title, draw in todo:
        if env_id and len(env_ids) > 1:
            name, title = f"{short_name(env_id)}_{name}", f"{title}: {short_name(env_id)}"
        try:
            with matplotlib.rc_context(STYLE):
                drawn.append(Drawing(name, title, " ".join((draw.__doc__ or "").split()), draw(part)))
        except NoDataError as error:
            skipped.append(f"The figure “{title}” was not drawn: {error}.")
    return drawn, skipped


def write_figures(
    results: Results, folder: str | os.PathLike[str] | None = None, say: Callable[[str], object] = print
) -> list[Path]:
    """
    Write each figure as PNG and SVG. Those without data are skipped, with a sentence that says so.

    :param results: a comparison
    :param folder: where to write; None for ``plots`` in the folder of the comparison
    :param say: takes the sentences
    :return: the files
    """
    folder = results.folder / "plots" if folder is None else Path(folder)
    drawn, skipped = draw_figures(results)
    for sentence in skipped:
        say(sentence)
    return [save(each.figure, folder / f"{each.name}.{form}") for each in drawn for form in ("png", "svg")]
