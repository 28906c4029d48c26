"""The figures of a comparison show the numbers of its runs."""

import re
from pathlib import Path

import numpy as np
import pytest
from fake_comparison import TASKS, TITLES, write_comparison, write_run
from matplotlib import pyplot
from matplotlib.collections import PathCollection
from matplotlib.colors import same_color, to_rgb
from matplotlib.image import imread

from sb3_nbsp.benchmark.comparison import Comparison
from sb3_nbsp.benchmark.figures import (
    OF_SEQUENCES,
    draw_figures,
    forgetting_figure,
    metrics_figure,
    success_matrix_figure,
    write_figures,
)
from sb3_nbsp.benchmark.frames import CONTINUAL, load_results
from sb3_nbsp.benchmark.style import NoDataError
from sb3_nbsp.benchmark.table import build_tables
from sb3_nbsp.figure_style import COLORS
from sb3_nbsp.tasks import SuccessMatrix

pytestmark = pytest.mark.usefixtures("style")


def test_success_matrix_is_the_mean_over_the_seeds_that_are_done(folder):
    left_out = folder / "continual_sac" / "seed_2"
    (left_out / "result.json").unlink()
    results = load_results(folder)
    figure = success_matrix_figure(results)
    assert [panel.get_title(loc="left") for panel in figure.axes] == [
        "vanilla SAC (2 seeds)",
        "replay only (3 seeds)",
        "NBSP (3 seeds)",
    ]
    for panel, title in zip(figure.axes, TITLES, strict=True):
        frame = results.success[results.success.method == title]
        expected = frame.groupby(["phase", "task"]).success.mean().unstack()[TASKS].to_numpy()
        np.testing.assert_allclose(panel.collections[0].get_array(), expected)
        assert [text.get_text() for text in panel.texts] == [f"{value:.2f}" for value in expected.flat]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        *("1  coffee-button", "2  handle-press", "3  coffee-button", "4  handle-press")
    ]


def test_a_small_negative_mean_is_no_negative_zero(folder):
    results = load_results(folder)
    results.success["success"] = -0.001
    assert {text.get_text() for panel in success_matrix_figure(results).axes for text in panel.texts} == {"0.00"}


def test_figures_are_the_same_whenever_they_are_drawn(folder):
    results = load_results(folder)
    np.random.seed(7)
    expected = np.random.random(3)
    np.random.seed(7)
    seeds = []
    for _ in range(2):
        figure = metrics_figure(results)
        seeds.append([dots.get_offsets().data for panel in figure.axes for dots in panel.collections])
    for first, second in zip(*seeds, strict=True):
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(np.random.random(3), expected)


def test_runs_of_different_sequences_are_not_mixed(folder):
    path = folder / "nbsp_sac" / "seed_3" / "success_matrix.csv"
    path.write_text(path.read_text().replace("\n3,handle-press", "\n3,coffee-button"))
    with pytest.raises(ValueError, match=r"NBSP, seed 3 has other phases than vanilla SAC, seed 1: they cannot be compared"):
        load_results(folder)


def test_forgetting_has_means_and_standard_errors_of_each_task(folder):
    results = load_results(folder)
    figure = forgetting_figure(results)
    for task, panel in zip(TASKS, figure.axes, strict=True):
        assert panel.get_title(loc="left") == task
        means = [line for line in panel.lines if len(line.get_xdata()) == 4]
        intervals = [line for line in panel.lines if len(line.get_xdata()) == 2]
        assert len(means) == 3 and len(intervals) == 12
        for number, (title, line) in enumerate(zip(TITLES, means, strict=True)):
            frame = results.success[(results.success.method == title) & (results.success.task == task)]
            values = frame.pivot(index="seed", columns="phase", values="success").to_numpy()
            np.testing.assert_allclose(line.get_ydata(), values.mean(axis=0))
            np.testing.assert_array_equal(np.round(line.get_xdata()), [1, 2, 3, 4])
            heights = [np.ptp(each.get_ydata()) for each in intervals[4 * number : 4 * number + 4]]
            np.testing.assert_allclose(heights, 2 * values.std(axis=0, ddof=1) / np.sqrt(3), atol=1e-12)


def test_forgetting_has_nbsp_and_vanilla_in_colour_and_the_rest_grey(folder):
    lines = [line for line in forgetting_figure(load_results(folder)).axes[0].lines if len(line.get_xdata()) == 4]
    vanilla, replay, nbsp = (to_rgb(line.get_color()) for line in lines)
    assert same_color(nbsp, COLORS[0]) and same_color(vanilla, COLORS[1]) and len({*replay}) == 1


def test_nbsp_and_vanilla_are_in_colour_for_discrete_actions_too(tmp_path):
    methods = ["continual_discrete_sac", "cbp_discrete_sac", "nbsp_discrete_sac"]
    write_comparison(tmp_path, Comparison(["MinAtar-Breakout-SpaceInvaders-v0"], methods, [1]), ["Breakout", "SpaceInvaders"])
    lines = [line for line in forgetting_figure(load_results(tmp_path)).axes[0].lines if len(line.get_xdata()) == 4]
    vanilla, cbp, nbsp = (to_rgb(line.get_color()) for line in lines)
    assert same_color(nbsp, COLORS[0]) and same_color(vanilla, COLORS[1]) and len({*cbp}) == 1


def test_forgetting_has_one_legend_outside_of_the_panels(folder):
    figure = forgetting_figure(load_results(folder))
    assert all(panel.get_legend() is None for panel in figure.axes)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == TITLES


@pytest.fixture
def games(tmp_path: Path) -> Path:
    """Tasks that report no success: the matrix holds returns of up to 30."""
    write_comparison(tmp_path, Comparison(["MinAtar-Breakout-SpaceInvaders-v0"], ["nbsp_discrete_sac"], [1, 2]), ["a", "b"])
    for run in (tmp_path / "nbsp_discrete_sac").iterdir():
        log = (run / "training.csv").read_text()
        (run / "training.csv").write_text(re.sub(",(True|False),", ",,", log))
        matrix = SuccessMatrix.load(run / "success_matrix.csv")
        rows = [[30 * value for value in row] for row in matrix.rows]
        SuccessMatrix(matrix.tasks, matrix.phase_tasks, rows).save(run / "success_matrix.csv")
    return tmp_path


def test_what_is_beyond_0_and_1_is_seen(games):
    results = load_results(games)
    assert results.success.success.max() > 20
    for panel in forgetting_figure(results).axes:
        highest = results.success[results.success.task == panel.get_title(loc="left")].success.max()
        assert panel.get_ylim()[0] < 0 and highest < panel.get_ylim()[1] < 1.2 * highest
    (panel,) = success_matrix_figure(results).axes
    assert panel.collections[0].get_clim() == (0, pytest.approx(panel.collections[0].get_array().max()))
    assert metrics_figure(results).axes[0].get_xlim()[1] > results.runs.ASR.max()
    assert metrics_figure(results).axes[0].get_xlabel() == "score on the tasks met so far"


def test_a_task_that_reports_no_success_has_no_training_success(games):
    """Rather than one of 0."""
    drawn, skipped = draw_figures(load_results(games))
    assert "training" not in [each.name for each in drawn]
    assert "The figure “Training success over the phases” was not drawn: the tasks do not report success." in skipped
    table, *_ = build_tables([load_results(games)])
    assert table.caption == "MinAtar-Breakout-SpaceInvaders"
    assert any("ASR, FM and FWT are of their scores" in note for note in table.notes)


def seeds_of(panel) -> list[np.ndarray]:
    """The dots of each method."""
    return [
        np.sort(each.get_offsets()[:, 0])
        for each in panel.collections
        if isinstance(each, PathCollection) and len(each.get_offsets())
    ]


def means_of(panel) -> list:
    """Every method has a line of its own, with one point that is known."""
    return [line for line in panel.lines if line.get_marker() == "o" and np.isfinite(line.get_xdata()).any()]


def test_metrics_shows_the_mean_and_every_seed(folder):
    results = load_results(folder)
    for panel, metric in zip(metrics_figure(results).axes, CONTINUAL, strict=True):
        means = [np.nanmax(line.get_xdata()) for line in means_of(panel)]
        for title, mean, dots in zip(TITLES, means, seeds_of(panel), strict=True):
            values = results.runs[results.runs.method == title][metric].to_numpy()
            np.testing.assert_allclose(dots, np.sort(values))
            assert mean == pytest.approx(np.mean(values))
        low, high = panel.get_xlim()
        assert low <= 0 and high >= 1
        assert np.allclose(20 * panel.get_xticks(), np.round(20 * panel.get_xticks())), "at round numbers"


def test_metrics_leaves_out_an_fm_that_is_not_known(folder):
    results = load_results(folder)
    first = results.runs.index[results.runs.method == "NBSP"][0]
    results.runs.loc[first, "FM"] = float("nan")
    panel = metrics_figure(results).axes[1]
    mean = results.runs[results.runs.method == "NBSP"].FM.mean()
    assert np.nanmax(means_of(panel)[-1].get_xdata()) == pytest.approx(mean)


def test_a_method_keeps_its_colour_when_another_has_no_run(folder):
    def color_of(title: str) -> str:
        panel = metrics_figure(load_results(folder)).axes[0]
        titles = [label.get_text() for label in panel.get_yticklabels()]
        return dict(zip(titles, (line.get_color() for line in means_of(panel)), strict=True))[title]

    before = color_of("replay only")
    for run in (folder / "continual_sac").iterdir():
        (run / "result.json").unlink()
    assert same_color(color_of("replay only"), before)


def test_names_are_no_formulas(folder):
    for path in folder.glob("*/*/*.csv"):
        path.write_text(path.read_text().replace("handle-press", "a$b_c$"))
    for path in folder.glob("*/*/neurons.json"):
        path.write_text(path.read_text().replace("handle-press", "a$b_c$"))
    drawn, _ = draw_figures(load_results(folder))
    assert len(drawn) == len(OF_SEQUENCES)
    assert all(len(each.caption) > 40 and "\n" not in each.caption for each in drawn)
    panel = drawn[2].figure.axes[0]
    assert not panel.get_xticklabels()[1].get_parse_math() and panel.get_xticklabels()[1].get_text() == "a$b_c$"


def test_write_figures_writes_png_and_svg(folder, capsys):
    results = load_results(folder)
    paths = write_figures(results)
    assert [path.relative_to(folder / "plots").name for path in paths] == [
        f"{name}.{ending}" for name, _, _ in OF_SEQUENCES for ending in ("png", "svg")
    ]
    assert capsys.readouterr().out == "" and {*(folder / "plots").iterdir()} == {*paths}
    width, height = success_matrix_figure(results).get_size_inches()
    image = imread(folder / "plots" / "success_matrix.png")
    assert image.shape[:2] == (pytest.approx(150 * height, abs=1), pytest.approx(150 * width, abs=1))
    assert "<svg" in (folder / "plots" / "metrics.svg").read_text(encoding="utf-8")
    assert not pyplot.get_fignums(), "no figure stays open"


def test_write_figures_says_what_it_skips(folder, tmp_path, capsys):
    for path in folder.glob("*/*/result.json"):
        path.unlink()
    assert write_figures(load_results(folder), tmp_path / "elsewhere") == []
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "The figure “ASR, FM and FWT” was not drawn: no run is done."
    reason = "no run has histograms of activations (neurons.json)"
    assert out[-1] == f"The figure “Activation of skill neurons” was not drawn: {reason}."
    assert len(out) == len(OF_SEQUENCES)


@pytest.mark.parametrize("name, title, draw", OF_SEQUENCES)
def test_a_figure_of_no_run_says_so(folder, name, title, draw):
    for path in folder.glob("*/*/result.json"):
        path.unlink()
    with pytest.raises(NoDataError, match="no run"):
        draw(load_results(folder))


def test_figures_of_several_environments_have_names_of_their_own(tmp_path):
    comparison = Comparison(["CoffeeButton-HandlePress", "CoffeeButton-DrawerClose"], ["nbsp_sac"], [1])
    comparison.save(tmp_path)
    run = comparison.runs(tmp_path)[0]
    write_run(run.path, "nbsp_sac", TASKS * 2, np.random.default_rng(0), 20)
    drawn, skipped = draw_figures(load_results(tmp_path))
    assert [each.name for each in drawn] == [f"CoffeeButton-HandlePress_{name}" for name, _, _ in OF_SEQUENCES]
    assert drawn[0].title == "ASR, FM and FWT: CoffeeButton-HandlePress"
    assert len(skipped) == len(OF_SEQUENCES) and "ASR, FM and FWT: CoffeeButton-DrawerClose" in skipped[0]
