"""The figures of the course of training, and the running mean that they show."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_comparison import TASKS, TITLES
from matplotlib.image import imread

from sb3_nbsp.benchmark.figures import _short, overview_figure, training_figure
from sb3_nbsp.benchmark.folder import RunFolder
from sb3_nbsp.benchmark.frames import episodes_frame, load_results
from sb3_nbsp.figure_style import save
from sb3_nbsp.tasks import SuccessMatrix

pytestmark = pytest.mark.usefixtures("style")


def lines(axes, width):
    return [line for line in axes.lines if line.get_linewidth() == width]


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


@pytest.mark.parametrize("steps, label", [(600, "600"), (1400, "1.4k"), (3000, "3k"), (39_912, "39.9k"), (1e6, "1000k")])
def test_the_length_of_a_phase_is_not_rounded_away(steps, label):
    assert _short(steps) == label
