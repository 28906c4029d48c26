"""All figures of a comparison, drawn and written."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from sb3_nbsp.benchmark.figures.forgetting import forgetting_figure
from sb3_nbsp.benchmark.figures.histograms import histograms_figure
from sb3_nbsp.benchmark.figures.metrics import metrics_figure
from sb3_nbsp.benchmark.figures.no_data import NoDataError
from sb3_nbsp.benchmark.figures.overlap import overlap_figure
from sb3_nbsp.benchmark.figures.skill_neurons import skill_neurons_figure
from sb3_nbsp.benchmark.figures.success_matrix import success_matrix_figure
from sb3_nbsp.benchmark.figures.training import training_figure
from sb3_nbsp.benchmark.results import Results
from sb3_nbsp.figure_style import STYLE
from sb3_nbsp.files import atomic_path

DPI = 150


@dataclass(frozen=True)
class FigureKind:
    """
    A figure that can be drawn.

    :param name: name of its files
    :param title: its heading
    :param caption: what it shows and how it is read
    :param draw: draws it; raises :class:`~sb3_nbsp.benchmark.figures.no_data.NoDataError` if there is nothing to show
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Results], Figure]


FIGURES = [
    FigureKind(
        "metrics",
        "ASR, FM and FWT",
        "Mean over seeds ± standard error; each small dot is a seed. ASR: mean success on the tasks met so far, FM: "
        "forgetting, FWT: success on the task just trained.",
        metrics_figure,
    ),
    FigureKind(
        "training",
        "Training success over the phases",
        "Running mean of the success of the last 10 training episodes: thin lines are seeds, the bold line is their mean "
        "with its standard error. Every phase is drawn equally long, with its mean number of steps below it; dashed lines "
        "separate cycles.",
        training_figure,
    ),
    FigureKind(
        "success_matrix",
        "Success after each phase",
        "Success on every task after every phase, mean over seeds. The task that the phase has trained is framed.",
        success_matrix_figure,
    ),
    FigureKind(
        "forgetting",
        "Forgetting over the phases",
        "Success on each task after every phase, mean over seeds ± standard error. Phases that train the task are shaded: "
        "a drop between them is forgetting.",
        forgetting_figure,
    ),
    FigureKind(
        "skill_neurons",
        "Skill neurons in each layer",
        "Number of skill neurons of each task, as the last of its phases identified them, mean over seeds ± standard "
        "error; behind them the number of neurons whose mask is below 1 at the end.",
        skill_neurons_figure,
    ),
    FigureKind(
        "overlap",
        "Skill neurons that tasks share",
        "Skill neurons of both tasks and of one alone, mean over seeds. The black triangle marks how many would be shared if "
        "both were drawn at random.",
        overlap_figure,
    ),
    FigureKind(
        "histograms",
        "Activation of skill neurons",
        "Activation of the best-scored skill neurons at steps with success and at steps without, each as a share of its "
        "steps.",
        histograms_figure,
    ),
]


@dataclass(frozen=True)
class Drawn:
    """
    The figures of a comparison.

    :param figures: those that were drawn
    :param skipped: for each other one a sentence that says why
    """

    figures: list[tuple[FigureKind, Figure]]
    skipped: list[str]


def draw_figures(results: Results) -> Drawn:
    """
    :param results: a comparison's results
    :return: its figures
    """
    drawn = Drawn([], [])
    for kind in FIGURES:
        try:
            drawn.figures.append((kind, kind.draw(results)))
        except NoDataError as error:
            drawn.skipped.append(f"The figure “{kind.title}” was not drawn: {error}.")
    return drawn


def svg_of(figure: Figure) -> str:
    """
    :param figure: a figure
    :return: it as SVG, the same text whenever the figure is the same
    """
    text = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def write_figures(
    results: Results, out_folder: str | os.PathLike[str] | None = None, say: Callable[[str], object] = print
) -> list[Path]:
    """
    Write each figure as PNG (150 dpi) and SVG. Figures without data are skipped, with a sentence that says so.

    :param results: a comparison's results
    :param out_folder: where to write; ``plots`` in the comparison's folder if it is None
    :param say: takes the sentences
    :return: the files
    """
    folder = results.folder / "plots" if out_folder is None else Path(out_folder)
    drawn = draw_figures(results)
    for sentence in drawn.skipped:
        say(sentence)
    paths = []
    for kind, figure in drawn.figures:
        png, svg = folder / f"{kind.name}.png", folder / f"{kind.name}.svg"
        with atomic_path(png) as temporary:
            figure.savefig(temporary, dpi=DPI, format="png")
        with atomic_path(svg) as temporary:
            temporary.write_text(svg_of(figure), encoding="utf-8")
        paths += [png, svg]
    return paths
