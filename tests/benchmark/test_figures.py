"""The figures of a comparison show the numbers of its runs."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_comparison import make_histogram, write_comparison, write_run
from matplotlib import pyplot, rc_context
from matplotlib.collections import PathCollection
from matplotlib.colors import same_color, to_rgb
from matplotlib.image import imread
from matplotlib.patches import StepPatch

from sb3_nbsp.benchmark.comparison import Comparison
from sb3_nbsp.benchmark.figures import (
    OF_SEQUENCES,
    draw_figures,
    forgetting_figure,
    metrics_figure,
    overview_figure,
    success_matrix_figure,
    training_figure,
    write_figures,
)
from sb3_nbsp.benchmark.folder import RunFolder
from sb3_nbsp.benchmark.frames import CONTINUAL, episodes_frame, load_results
from sb3_nbsp.benchmark.neuron_figures import histograms_figure, overlap_figure, overlaps, skill_neurons_figure
from sb3_nbsp.benchmark.style import NoDataError
from sb3_nbsp.benchmark.table import build_tables
from sb3_nbsp.figure_style import COLORS, STYLE, save
from sb3_nbsp.tasks import SuccessMatrix

TASKS = ["coffee-button", "handle-press"]
METHODS = ["continual_sac", "nbsp_replay_only", "nbsp_sac"]
TITLES = ["vanilla SAC", "replay only", "NBSP"]


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with rc_context(STYLE):
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three methods, three seeds; only nbsp_sac has neurons.json."""
    write_comparison(tmp_path / "one", Comparison(["CoffeeButton-HandlePress"], METHODS), TASKS, episodes=30)
    return tmp_path / "one"


def lines(axes, width):
    return [line for line in axes.lines if line.get_linewidth() == width]


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
    highest = results.success.success.max()
    assert highest > 20
    for panel in forgetting_figure(results).axes:
        assert panel.get_ylim()[0] < 0 and panel.get_ylim()[1] > highest
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
    results = load_results(folder)
    panel = training_figure(results).axes[2]
    assert panel.get_title(loc="left") == "NBSP (2 seeds)"
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
    assert [label.get_text() for label in panel.get_xticklabels()] == ["3k steps"] * 4
    dashed = [line.get_xdata()[0] for line in panel.lines if line.get_linestyle() == "--"]
    assert dashed == [2], "one line, between the two cycles"


def test_training_leaves_out_a_damaged_log_and_names_it(folder):
    (folder / "nbsp_sac" / "seed_1" / "training.csv").unlink()
    path = folder / "nbsp_sac" / "seed_2" / "training.csv"
    path.write_text(path.read_text().replace("handle-press", "drawer-close"))
    results = load_results(folder)
    assert training_figure(results).axes[2].get_title(loc="left") == "NBSP (1 seed)"
    missing, other = results.damaged
    assert missing.startswith("NBSP, seed 1: ") and missing.endswith("training.csv is missing")
    assert "NBSP, seed 2: " in other and "phase 2 (drawer-close) is not in the success matrix of the run" in other


def counts_of(folder, network, layer, task):
    """Skill neurons of the task's last phase, for each seed."""
    counts = []
    for path in sorted(folder.glob("nbsp_sac/*/neurons.json")):
        phases = [phase for phase in json.loads(path.read_text())["phases"] if phase["task"] == task]
        counts.append(len(phases[-1]["networks"][network]["skill_neurons"][layer]))
    return counts


def test_skill_neurons_are_counted_by_layer_and_task(folder):
    figure = skill_neurons_figure(load_results(folder))
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["NBSP: actor", "NBSP: critic 1", "NBSP: critic 2"]
    panel = figure.axes[0]
    masked, *by_task = panel.containers
    layers = ("actor.latent_pi.0", "actor.latent_pi.2")
    assert masked_at_the_end(folder, layers) == pytest.approx([bar.get_height() for bar in masked])
    for task, bars in zip(TASKS, by_task, strict=True):
        expected = [np.mean(counts_of(folder, "actor", layer, task)) for layer in layers]
        assert [bar.get_height() for bar in bars] == pytest.approx(expected)
    assert [label.get_text() for label in panel.get_xticklabels()] == ["layer 1\nof 256", "layer 2\nof 256"]


def masked_at_the_end(folder, layers):
    contents = [json.loads(path.read_text()) for path in folder.glob("nbsp_sac/*/neurons.json")]
    return [np.mean([each["phases"][-1]["networks"]["actor"]["masked"][layer] for each in contents]) for layer in layers]


def write_neurons(folder: Path, skill: list[list[int]], histograms: list[dict] | None = None) -> None:
    """One layer of 10 neurons; its skill neurons after each phase, of the tasks in turns."""
    networks = [
        {"actor": {"skill_neurons": {"actor.0": neurons}, "masked": {"actor.0": 5}, "histograms": histograms or []}}
        for neurons in skill
    ]
    phases = [{"phase": i, "task": TASKS[i % 2], "networks": network} for i, network in enumerate(networks)]
    content = {"networks": {"actor": [["actor.0", 10]]}, "phases": phases}
    (folder / "neurons.json").write_text(json.dumps(content))


def test_overlap_of_two_tasks(folder):
    def counted(*of_seeds: list[list[int]]) -> list[float]:
        for seed in (1, 2, 3):
            (folder / "nbsp_sac" / f"seed_{seed}" / "neurons.json").unlink(missing_ok=True)
        for seed, skill in enumerate(of_seeds, 1):
            write_neurons(folder / "nbsp_sac" / f"seed_{seed}", skill)
        frame = overlaps(load_results(folder))
        assert len(frame) == 1
        return frame[["shared", "only the first", "only the second", "by chance"]].iloc[0].tolist()

    # Of the first task's last phase: 0, 1, 2
    assert counted([[9], [1, 2, 3, 4], [0, 1, 2]]) == pytest.approx([2, 1, 2, 3 * 4 / 10])
    assert counted([[9], [1, 2, 3, 4], [0, 1, 2]], [[5], [6]]) == pytest.approx([1, 1, 1.5, 0.65])
    with pytest.raises(NoDataError, match="skill neurons of two tasks"):
        counted([[5]])


def test_overlap_figure_draws_these_numbers(folder):
    for seed in (1, 2, 3):
        write_neurons(folder / "nbsp_sac" / f"seed_{seed}", [[9], [1, 2, 3, 4], [0, 1, 2]])
    (panel,) = overlap_figure(load_results(folder)).axes
    assert [(bar.get_label(), bar.patches[0].get_width()) for bar in panel.containers] == [
        *(("shared", 2), ("only the first", 1), ("only the second", 2))
    ]
    assert {"2", "1", "coffee-button / handle-press"} <= {text.get_text() for text in panel.texts}
    assert panel.lines[0].get_xdata()[0] == pytest.approx(1.2)


@pytest.mark.parametrize(
    "tasks, pairs",
    [
        (["a", "b", "c"], ["a / b", "a / c", "b / c"]),
        (["a", "b", "c", "d"], ["a / b", "b / c", "c / d"]),
    ],
)
def test_pairs_of_tasks(tasks, pairs, tmp_path):
    comparison = Comparison(["CoffeeButton-HandlePress"], ["nbsp_sac"], [1], env_kwargs={"tasks": tasks, "cycles": 1})
    write_comparison(tmp_path, comparison, tasks, cycles=1)
    assert list(dict.fromkeys(overlaps(load_results(tmp_path)).pair)) == pairs


def test_histograms_are_shares_best_score_first(folder):
    random = np.random.default_rng(0)
    histograms = [make_histogram("actor.0", neuron, random) for neuron in range(6)]
    for number, histogram in enumerate(histograms):
        histogram["score"] = 0.6 + 0.05 * ((number + 3) % 6)
    write_neurons(folder / "nbsp_sac" / "seed_1", [[0], [1]], histograms)
    figure = histograms_figure(load_results(folder))
    assert figure.axes[0].texts[0].get_text() == "NBSP: actor after coffee-button, seed 1"
    assert [panel.get_title(loc="left").strip() for panel in figure.axes] == [
        f"layer 1, neuron {neuron}, score {score}" for neuron, score in ((2, "0.85"), (1, "0.80"), (0, "0.75"), (5, "0.70"))
    ]
    success, _, failure, _ = (patch for patch in figure.axes[0].patches if isinstance(patch, StepPatch))
    np.testing.assert_allclose(success.get_data().values, np.array(histograms[2]["success"]) / sum(histograms[2]["success"]))
    np.testing.assert_allclose(failure.get_data().values, np.array(histograms[2]["failure"]) / sum(histograms[2]["failure"]))
    np.testing.assert_allclose(success.get_data().edges, histograms[2]["edges"])


def test_without_neurons_the_other_figures_are_drawn(folder):
    for path in folder.glob("*/*/neurons.json"):
        path.unlink()
    results = load_results(folder)
    drawn, skipped = draw_figures(results)
    assert [each.name for each in drawn] == ["metrics", "training", "success_matrix", "forgetting"]
    assert len(skipped) == 3 and all("(neurons.json)" in sentence for sentence in skipped)
    assert results.damaged == [], "a missing file is no damaged one"


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
    (sentence,) = results.damaged
    assert sentence.startswith(f"NBSP, seed 2: {path} is damaged") and reason in sentence
    _, first, _ = skill_neurons_figure(results).axes[0].containers
    path.unlink()
    expected = np.mean(counts_of(folder, "actor", "actor.latent_pi.0", TASKS[0]))
    assert first[0].get_height() == pytest.approx(expected)


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


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Four phases: the first task is learned, then the second, and the first is forgotten meanwhile."""
    folder = tmp_path / "run"
    matrix = SuccessMatrix(TASKS)
    lines, step = ["step,phase,task,success,return,length"], 0
    for phase in range(4):
        task = TASKS[phase % 2]
        for episode in range(20):
            step += 100
            lines.append(f"{step},{phase},{task},{episode >= 10},{episode}.5,100")
        matrix.set_row(phase, task, [1.0, 0.25] if phase % 2 == 0 else [0.1, 1.0])
    folder.mkdir()
    (folder / "training.csv").write_text("\n".join(lines) + "\n")
    matrix.save(folder / "success_matrix.csv")
    return folder


def parts_of(run: Path) -> list[pd.DataFrame]:
    return [part for _, part in episodes_frame(RunFolder(run)).groupby("part")]


def test_the_running_mean_starts_anew_with_each_phase(run):
    parts = parts_of(run)
    assert [part.task.iloc[0] for part in parts] == TASKS * 2 and [part.phase.iloc[0] for part in parts] == [1, 2, 3, 4]
    assert list(parts[1].step) == [2000 + 100 * episode for episode in range(1, 21)]
    # 0 for ten episodes, then a tenth more with each success
    for part in parts:
        np.testing.assert_allclose(part.success, [0] * 10 + [0.1 * episode for episode in range(1, 11)], atol=1e-12)
    lines = (run / "training.csv").read_text().splitlines()
    (run / "training.csv").write_text("\n".join([lines[0], *lines[11:13]]) + "\n")
    # Fewer episodes than the window: the mean of those that there are
    assert list(parts_of(run)[0].success) == [1, 1]


def test_training_of_a_sequence_that_began_again_or_was_joined_late(run):
    """A finished run that is continued starts at its first phase again; one without its history, at a later one."""
    header, *lines = (run / "training.csv").read_text().splitlines()
    (run / "training.csv").write_text("\n".join([header, *lines[60:], *lines[:40]]) + "\n")
    assert [part.task.iloc[0] for part in parts_of(run)] == [TASKS[1], *TASKS]
    assert [len(part) for part in parts_of(run)] == [20, 20, 20]


def test_training_of_a_run_without_an_episode(run):
    (run / "training.csv").write_text("step,phase,task,success,return,length\n")
    assert parts_of(run) == []


def test_the_overview_has_a_row_for_each_method(folder, tmp_path):
    results = load_results(folder)
    figure = overview_figure(results, title="a cycle")
    assert [panel.get_title(loc="left") for panel in figure.axes[::2]] == TITLES
    for title, course, heat in zip(TITLES, figure.axes[::2], figure.axes[1::2], strict=True):
        means, of = lines(course, 2), results.training[results.training.method == title]
        assert [line.get_xdata()[-1] for line in means] == [1, 2, 3, 4]
        assert [line.get_ydata()[-1] for line in means] == pytest.approx(of[of.share == 1].groupby("phase").success.mean())
        success = results.success[results.success.method == title].pivot_table(index="phase", columns="task", values="success")
        np.testing.assert_allclose(heat.collections[0].get_array(), success[TASKS])
    save(figure, tmp_path / "one.png")
    assert imread(tmp_path / "one.png").shape[1] == 11 * 150
