"""The figures of a comparison show the numbers of its runs."""

import json
from pathlib import Path

import numpy as np
import pytest
from fake_comparison import make_histogram, write_comparison
from matplotlib.collections import PathCollection
from matplotlib.colors import same_color
from matplotlib.container import ErrorbarContainer
from matplotlib.image import imread
from matplotlib.patches import StepPatch

from sb3_nbsp.benchmark.damaged import damaged_files
from sb3_nbsp.benchmark.figures.drawing import FIGURES, draw_figures, svg_of, write_figures
from sb3_nbsp.benchmark.figures.forgetting import forgetting_figure
from sb3_nbsp.benchmark.figures.histograms import histograms_figure
from sb3_nbsp.benchmark.figures.metrics import metrics_figure
from sb3_nbsp.benchmark.figures.no_data import NoDataError
from sb3_nbsp.benchmark.figures.overlap import Overlap, overlap, overlap_figure, task_pairs
from sb3_nbsp.benchmark.figures.skill_neurons import skill_neurons_figure
from sb3_nbsp.benchmark.figures.statistics import mean_and_error
from sb3_nbsp.benchmark.figures.success_matrix import success_matrix_figure
from sb3_nbsp.benchmark.figures.training import training_figure
from sb3_nbsp.benchmark.neurons_file import read_neurons
from sb3_nbsp.benchmark.plan import Plan
from sb3_nbsp.benchmark.results import METRICS, load_results

TASKS = ["coffee-button", "handle-press"]
METHODS = ["continual_sac", "nbsp_replay_only", "nbsp_sac"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three methods, three seeds; only nbsp_sac has neurons.json."""
    write_comparison(tmp_path / "one", Plan("CoffeeButton-HandlePress", "laptop", METHODS, [1, 2, 3]), TASKS, episodes=30)
    return tmp_path / "one"


def lines(axes, width):
    return [line for line in axes.lines if line.get_linewidth() == width]


def test_mean_and_error():
    mean, error = mean_and_error(
        np.array([[1.0, 2.0, np.nan, np.nan], [3.0, np.nan, np.nan, 5.0], [5.0, 4.0, np.nan, np.nan]])
    )
    np.testing.assert_allclose(mean, [3, 3, np.nan, 5])
    # Standard deviations 2 and √2 of three and two seeds
    np.testing.assert_allclose(error, [2 / np.sqrt(3), 1, np.nan, np.nan])


def test_success_matrix_is_the_mean_over_the_seeds_that_are_done(folder):
    left_out = folder / "continual_sac" / "seed_2"
    (left_out / "result.json").unlink()
    results = load_results(folder)
    figure = success_matrix_figure(results)
    assert [panel.get_title(loc="left") for panel in figure.axes] == [
        "continual_sac (2 seeds)",
        "nbsp_replay_only (3 seeds)",
        "nbsp_sac (3 seeds)",
    ]
    for panel, method in zip(figure.axes, METHODS, strict=True):
        expected = np.mean([run.matrix.as_arrays()[0] for run in results.of(method)], axis=0)
        np.testing.assert_allclose(panel.images[0].get_array(), expected)
        assert [text.get_text() for text in panel.texts] == [f"{value:.2f}" for value in expected.flat]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        *("1  coffee-button", "2  handle-press", "3  coffee-button", "4  handle-press")
    ]


def test_runs_of_different_sequences_are_not_mixed(folder):
    path = folder / "nbsp_sac" / "seed_3" / "success_matrix.csv"
    path.write_text(path.read_text().replace("\n3,handle-press", "\n3,coffee-button"))
    with pytest.raises(ValueError, match=r"nbsp_sac/seed_3 is of the phases .* cannot be compared"):
        success_matrix_figure(load_results(folder))


def test_forgetting_has_means_and_standard_errors_of_each_task(folder):
    results = load_results(folder)
    figure = forgetting_figure(results)
    for column, panel in enumerate(figure.axes):
        assert panel.get_title(loc="left") == TASKS[column]
        bars = [each for each in panel.containers if isinstance(each, ErrorbarContainer)]
        assert [each.get_label() for each in bars] == METHODS
        for method, (line, _, (intervals,)) in zip(METHODS, bars, strict=True):
            values = np.stack([run.matrix.as_arrays()[0][:, column] for run in results.of(method)])
            np.testing.assert_allclose(line.get_ydata(), values.mean(axis=0))
            np.testing.assert_array_equal(np.round(line.get_xdata()), [1, 2, 3, 4])
            heights = [segment[1, 1] - segment[0, 1] for segment in intervals.get_segments()]
            np.testing.assert_allclose(heights, 2 * values.std(axis=0, ddof=1) / np.sqrt(3), atol=1e-12)


def test_metrics_shows_the_mean_and_every_seed(folder):
    results = load_results(folder)
    for panel, metric in zip(metrics_figure(results).axes, METRICS, strict=True):
        bars = [each for each in panel.containers if isinstance(each, ErrorbarContainer)]
        dots = [each for each in panel.collections if isinstance(each, PathCollection)]
        for method, bar, seeds in zip(METHODS, bars, dots, strict=True):
            values = [run.metrics[metric] for run in results.of(method)]
            np.testing.assert_allclose(seeds.get_offsets()[:, 0], values)
            np.testing.assert_allclose(bar[0].get_xdata(), np.mean(values))
        low, high = panel.get_xlim()
        assert low <= 0 and high >= 1


def test_metrics_leaves_out_an_fm_that_is_not_known(folder):
    results = load_results(folder)
    results.of("nbsp_sac")[0].metrics["FM"] = float("nan")
    panel = metrics_figure(results).axes[1]
    mean = np.mean([run.metrics["FM"] for run in results.of("nbsp_sac")[1:]])
    assert panel.containers[-1][0].get_xdata() == pytest.approx(mean)


def test_a_method_keeps_its_colour_when_another_has_no_run(folder):
    before = metrics_figure(load_results(folder)).axes[0].containers[-1][0].get_color()
    for run in (folder / "continual_sac").iterdir():
        (run / "result.json").unlink()
    figure = metrics_figure(load_results(folder))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == METHODS[1:]
    assert same_color(figure.axes[0].containers[-1][0].get_color(), before)
    forgetting = forgetting_figure(load_results(folder)).axes[0].containers[-1][0]
    assert same_color(forgetting.get_color(), before)


def test_training_stretches_phases_to_the_same_length(folder):
    for seed, n_episodes in ((1, 20), (2, 40)):
        rows, step = ["step,phase,task,success,return,length"], 0
        for phase in range(4):
            for episode in range(n_episodes):
                step += 100
                # Half of a phase's episodes fail, then all succeed
                rows.append(f"{step},{phase},{TASKS[phase % 2]},{episode >= n_episodes // 2},0,100")
        (folder / "nbsp_sac" / f"seed_{seed}" / "training.csv").write_text("\n".join(rows) + "\n")
    (folder / "nbsp_sac" / "seed_3" / "result.json").unlink()
    panel = training_figure(load_results(folder)).axes[2]
    assert panel.get_title(loc="left") == "nbsp_sac (2 seeds)"
    thin, bold = lines(panel, 0.6), lines(panel, 2)
    assert (len(thin), len(bold)) == (8, 4)
    for phase, line in enumerate(bold):
        first, second = thin[2 * phase : 2 * phase + 2]
        assert line.get_xdata()[0] == phase and line.get_xdata()[-1] == phase + 1
        np.testing.assert_allclose(line.get_ydata(), (first.get_ydata() + second.get_ydata()) / 2)
        # Running means of 10 episodes: all of the second half, or a half of it
        assert first.get_ydata()[-1] == second.get_ydata()[-1] == 1
        assert first.get_ydata()[75] == pytest.approx(0.5) and second.get_ydata()[75] == 1
        assert first.get_ydata()[49] == second.get_ydata()[49] == 0
    assert [text.get_text() for text in panel.texts] == ["3.0k steps"] * 4
    dashed = [line.get_xdata()[0] for line in panel.lines if line.get_linestyle() == "--"]
    assert dashed == [2], "one line, between the two cycles"


def test_training_leaves_out_a_damaged_log_and_names_it(folder):
    (folder / "nbsp_sac" / "seed_1" / "training.csv").unlink()
    path = folder / "nbsp_sac" / "seed_2" / "training.csv"
    path.write_text(path.read_text().replace("handle-press", "drawer-close"))
    results = load_results(folder)
    assert training_figure(results).axes[2].get_title(loc="left") == "nbsp_sac (1 seed)"
    missing, other = damaged_files(results)
    assert missing.startswith("nbsp_sac, seed 1: ") and missing.endswith("training.csv is missing")
    assert "nbsp_sac, seed 2: " in other and "phase 1 (drawer-close) is not in the run's success matrix" in other


def counts_of(folder, network, layer, task):
    """Skill neurons of the task's last phase, for each seed."""
    counts = []
    for path in sorted(folder.glob("nbsp_sac/*/neurons.json")):
        phases = [phase for phase in json.loads(path.read_text())["phases"] if phase["task"] == task]
        counts.append(len(phases[-1]["networks"][network]["skill_neurons"][layer]))
    return counts


def test_skill_neurons_are_counted_by_layer_and_task(folder):
    figure = skill_neurons_figure(load_results(folder))
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["nbsp_sac: actor", "qf0", "qf1"]
    panel = figure.axes[0]
    bars = [each for each in panel.containers if not isinstance(each, ErrorbarContainer)]
    heights = [bar.patches[0].get_height() for bar in bars]
    expected = []
    for layer in ("actor.latent_pi.0", "actor.latent_pi.2"):
        paths = folder.glob("nbsp_sac/*/neurons.json")
        ends = [json.loads(path.read_text())["phases"][-1]["networks"]["actor"]["masked"][layer] for path in paths]
        expected += [np.mean(ends), *(np.mean(counts_of(folder, "actor", layer, task)) for task in TASKS)]
    np.testing.assert_allclose(heights, expected)
    assert [label.get_text() for label in panel.get_xticklabels()] == ["latent_pi.0\nof 256", "latent_pi.2\nof 256"]


def write_neurons(folder: Path, skill: list[list[int]], histograms: list[dict] | None = None) -> None:
    """One layer of 10 neurons; its skill neurons after each phase, of the tasks in turns."""
    networks = [
        {"actor": {"skill_neurons": {"actor.0": neurons}, "masked": {"actor.0": 5}, "histograms": histograms or []}}
        for neurons in skill
    ]
    phases = [{"phase": i, "task": TASKS[i % 2], "networks": network} for i, network in enumerate(networks)]
    content = {"networks": {"actor": [["actor.0", 10]]}, "phases": phases}
    (folder / "neurons.json").write_text(json.dumps(content))


def test_overlap_of_two_tasks(folder, tmp_path):
    write_neurons(tmp_path, [[9], [1, 2, 3, 4], [0, 1, 2]])
    run = read_neurons(tmp_path)
    # Of the first task's last phase: 0, 1, 2
    assert overlap({1: run}, "actor", "actor.0", *TASKS) == Overlap(1, 2, 2, pytest.approx(3 * 4 / 10))
    write_neurons(tmp_path, [[5], [6]])
    assert overlap({1: run, 2: read_neurons(tmp_path)}, "actor", "actor.0", *TASKS) == Overlap(1, 1, 1.5, pytest.approx(0.65))
    write_neurons(tmp_path, [[5]])
    assert overlap({1: read_neurons(tmp_path)}, "actor", "actor.0", *TASKS) is None


def test_overlap_figure_draws_these_numbers(folder):
    for seed in (1, 2, 3):
        write_neurons(folder / "nbsp_sac" / f"seed_{seed}", [[9], [1, 2, 3, 4], [0, 1, 2]])
    (panel,) = overlap_figure(load_results(folder)).axes
    assert [(bar.get_label(), bar.patches[0].get_width()) for bar in panel.containers] == [
        *(("shared", 2), ("only the first", 1), ("only the second", 2))
    ]
    assert {"2", "1", "coffee-button / handle-press"} <= {text.get_text() for text in panel.texts}
    assert panel.lines[0].get_xdata()[0] == pytest.approx(1.2)


def test_pairs_of_tasks():
    assert task_pairs(["a", "b", "c"]) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert task_pairs(["a", "b", "c", "d"]) == [("a", "b"), ("b", "c"), ("c", "d")]
    assert task_pairs(["a"]) == []


def test_histograms_are_shares_best_score_first(folder):
    random = np.random.default_rng(0)
    histograms = [make_histogram("actor.0", neuron, random) for neuron in range(6)]
    for number, histogram in enumerate(histograms):
        histogram["score"] = 0.6 + 0.05 * ((number + 3) % 6)
    write_neurons(folder / "nbsp_sac" / "seed_1", [[0], [1]], histograms)
    figure = histograms_figure(load_results(folder))
    assert figure.axes[0].get_title(loc="left") == "nbsp_sac: actor after coffee-button, seed 1"
    texts = [panel.texts[0].get_text() for panel in figure.axes]
    assert texts == [
        f"actor.0, neuron {neuron}, score {score}" for neuron, score in ((2, "0.85"), (1, "0.80"), (0, "0.75"), (5, "0.70"))
    ]
    success, _, failure, _ = (patch for patch in figure.axes[0].patches if isinstance(patch, StepPatch))
    np.testing.assert_allclose(success.get_data().values, np.array(histograms[2]["success"]) / sum(histograms[2]["success"]))
    np.testing.assert_allclose(failure.get_data().values, np.array(histograms[2]["failure"]) / sum(histograms[2]["failure"]))
    np.testing.assert_allclose(success.get_data().edges, histograms[2]["edges"])


def test_without_neurons_the_other_figures_are_drawn(folder):
    for path in folder.glob("*/*/neurons.json"):
        path.unlink()
    results = load_results(folder)
    drawn = draw_figures(results)
    assert [kind.name for kind, _ in drawn.figures] == ["metrics", "training", "success_matrix", "forgetting"]
    assert len(drawn.skipped) == 3 and all("no run has identified skill neurons" in sentence for sentence in drawn.skipped)
    assert damaged_files(results) == [], "a missing file is no damaged one"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: "{", "is damaged: Expecting"),
        (lambda content: content.pop("phases") and json.dumps(content), "is damaged: 'phases' is missing"),
        (lambda content: "[1]", "is damaged: it holds [1]"),
        (lambda content: json.dumps({**content, "networks": {"actor": [["actor.0", 10]]}}), "is damaged: 'actor.latent_pi.0'"),
        (lambda content: json.dumps(content).replace("[0, ", "[256, ", 1), "actor.latent_pi.0 has 256 neurons, not 257"),
        (lambda content: json.dumps(content).replace('"edges": [0.0, ', '"edges": [', 1), "has 20 edges for 20 and 20 bins"),
        (lambda content: json.dumps(content).replace('"edges": [0.0, ', '"edges": [NaN, ', 1), "no finite number"),
    ],
)
def test_damaged_neurons_are_named_and_left_out(folder, damage, reason):
    path = folder / "nbsp_sac" / "seed_2" / "neurons.json"
    content = json.loads(path.read_text())
    content["phases"][0]["networks"]["actor"]["skill_neurons"]["actor.latent_pi.0"] = [0, 5]
    path.write_text(damage(content))
    results = load_results(folder)
    (sentence,) = damaged_files(results)
    assert sentence.startswith(f"nbsp_sac, seed 2: {path} is damaged") and reason in sentence
    bars = [bar for bar in skill_neurons_figure(results).axes[0].containers if not isinstance(bar, ErrorbarContainer)]
    path.unlink()
    expected = np.mean(counts_of(folder, "actor", "actor.latent_pi.0", TASKS[0]))
    assert bars[1].patches[0].get_height() == pytest.approx(expected)


def test_names_are_no_formulas(folder):
    for path in folder.glob("*/*/*.csv"):
        path.write_text(path.read_text().replace("handle-press", "a$b_c$"))
    for path in folder.glob("*/*/neurons.json"):
        path.write_text(path.read_text().replace("handle-press", "a$b_c$"))
    drawn = draw_figures(load_results(folder))
    assert len(drawn.figures) == len(FIGURES)
    panel = drawn.figures[2][1].axes[0]
    assert not panel.get_xticklabels()[1].get_parse_math() and panel.get_xticklabels()[1].get_text() == "a$b_c$"


def test_write_figures_writes_png_and_svg(folder, tmp_path):
    said: list[str] = []
    results = load_results(folder)
    paths = write_figures(results, say=said.append)
    assert [path.relative_to(folder / "plots").name for path in paths] == [
        f"{kind.name}.{ending}" for kind in FIGURES for ending in ("png", "svg")
    ]
    assert said == [] and {*(folder / "plots").iterdir()} == {*paths}
    width, height = success_matrix_figure(results).get_size_inches()
    image = imread(folder / "plots" / "success_matrix.png")
    assert image.shape[:2] == (pytest.approx(150 * height, abs=1), pytest.approx(150 * width, abs=1))
    svg = (folder / "plots" / "metrics.svg").read_text(encoding="utf-8")
    figure = metrics_figure(results)
    assert svg == svg_of(figure) == svg_of(figure), "the same figure is the same file"
    assert "<dc:date>" not in svg


def test_write_figures_says_what_it_skips(folder, tmp_path, capsys):
    for path in folder.glob("*/*/result.json"):
        path.unlink()
    assert write_figures(load_results(folder), tmp_path / "elsewhere") == []
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "The figure “ASR, FM and FWT” was not drawn: no run is done."
    reason = "no run has identified skill neurons (neurons.json)"
    assert out[-1] == f"The figure “Activation of skill neurons” was not drawn: {reason}."
    assert len(out) == len(FIGURES)


@pytest.mark.parametrize("kind", FIGURES, ids=lambda kind: kind.name)
def test_a_figure_of_no_run_says_so(folder, kind):
    for path in folder.glob("*/*/result.json"):
        path.unlink()
    with pytest.raises(NoDataError, match="no run"):
        kind.draw(load_results(folder))
