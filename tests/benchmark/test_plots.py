"""Reading and drawing runs."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from sb3_nbsp.benchmark.plots import plot_runs, read_training
from sb3_nbsp.tasks import SuccessMatrix

TASKS = ["open", "close"]


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


def test_read_training_has_a_running_mean_per_phase(run):
    phases = read_training(run / "training.csv", window=10)
    assert [phase["task"] for phase in phases] == TASKS * 2
    assert phases[1]["steps"] == [2000 + 100 * episode for episode in range(1, 21)]
    # 0 for ten episodes, then a tenth more with each success; the next phase starts anew
    for phase in phases:
        np.testing.assert_allclose(phase["success"], [0] * 10 + [0.1 * episode for episode in range(1, 11)])


def test_read_training_with_a_short_window_and_few_episodes(run):
    assert read_training(run / "training.csv", window=1)[0]["success"] == [0] * 10 + [1] * 10
    lines = (run / "training.csv").read_text().splitlines()
    (run / "training.csv").write_text("\n".join([lines[0], *lines[11:13]]) + "\n")
    # Fewer episodes than the window: the mean of those that there are
    (phase,) = read_training(run / "training.csv", window=10)
    assert phase["success"] == [1, 1]


def test_read_training_of_a_sequence_that_began_again_or_was_joined_late(run):
    """A finished run that is continued starts at its first phase again; one without its history, at a later one."""
    header, *lines = (run / "training.csv").read_text().splitlines()
    (run / "training.csv").write_text("\n".join([header, *lines[60:], *lines[:40]]) + "\n")
    phases = read_training(run / "training.csv")
    assert [phase["task"] for phase in phases] == ["close", "open", "close"]
    assert [len(phase["steps"]) for phase in phases] == [20, 20, 20]


def test_read_training_of_a_run_without_an_episode(tmp_path):
    (tmp_path / "training.csv").write_text("step,phase,task,success,return,length\n")
    assert read_training(tmp_path / "training.csv") == []


def test_plot_runs_draws_a_row_per_run(run, tmp_path):
    for n_runs in (1, 2):
        path = tmp_path / "plots" / f"{n_runs}.png"
        plot_runs({f"method {number}": run for number in range(n_runs)}, path, title="a cycle")
        image = imread(path)
        height, width, _ = image.shape
        assert width == 11 * 150 and height == pytest.approx((2.6 * n_runs + 0.6) * 150, abs=2)
        left, right = image[:, : width // 2, :3], image[:, -width // 4 :, :3]
        assert left.std() > 0.02 and right.std() > 0.1, "curves and matrix are drawn"
    assert {file.name for file in (tmp_path / "plots").iterdir()} == {"1.png", "2.png"}


def test_plot_runs_shows_what_is_in_the_files(run, tmp_path):
    plot_runs({"method": run}, tmp_path / "one.png")
    matrix = SuccessMatrix.load(run / "success_matrix.csv")
    matrix.set_row(3, "close", [1.0, 0.0])
    matrix.save(run / "success_matrix.csv")
    plot_runs({"method": run}, tmp_path / "other.png")
    assert np.abs(imread(tmp_path / "one.png") - imread(tmp_path / "other.png")).max() > 0.3


def test_plot_runs_does_not_leave_figures_open(run, tmp_path):
    from matplotlib import pyplot

    plot_runs({"method": run}, tmp_path / "one.png")
    assert not pyplot.get_fignums()


def test_plot_runs_needs_a_finished_phase(run, tmp_path):
    (run / "success_matrix.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"success_matrix\.csv"):
        plot_runs({"method": run}, tmp_path / "one.png")
    assert not (tmp_path / "one.png").exists()
