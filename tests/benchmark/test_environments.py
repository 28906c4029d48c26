"""Comparisons on environments that are no sequence: run, killed, run again, read."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import rc_context

from sb3_nbsp.benchmark.__main__ import main
from sb3_nbsp.benchmark.comparison import Comparison
from sb3_nbsp.benchmark.figures import draw_course, plasticity_figure, write_figures
from sb3_nbsp.benchmark.frames import load_results
from sb3_nbsp.benchmark.settings import Settings
from sb3_nbsp.benchmark.table import build_tables
from sb3_nbsp.diagnostics.history import COLUMNS, read_history
from sb3_nbsp.figure_style import STYLE, panels
from sb3_nbsp.tasks import latest_checkpoint

ROOT = Path(__file__).parents[2]
METHODS = ["p3o", "ppo", "sbp_sac"]
OPTIONS = [
    "--hyperparams",
    *("n_steps:64", "batch_size:32", "n_epochs:2", "reset_frequency:100", "reset_rate:0.1", "distill_states:64"),
    *("learning_starts:20", "buffer_size:300", "policy_kwargs:{'net_arch': [16, 16]}"),
]


def command(folder: Path, *more: str) -> list[str]:
    usual = ["run", "--envs", "Hopper-v5", "--methods", *METHODS, "--seeds", "1", "--n-timesteps", "300"]
    sizes = ["--n-eval-episodes", "1", "--save-freq", "100", "--jobs", "1", "--out", str(folder)]
    return [sys.executable, "-m", "sb3_nbsp.benchmark", *usual, *sizes, *OPTIONS, *more]


def environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def run(folder: Path, *more: str) -> str:
    done = subprocess.run(command(folder, *more), env=environment(), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A comparison that was not interrupted, and what it printed. Not to be written to."""
    folder = tmp_path_factory.mktemp("plasticity")
    return folder, run(folder)


def outcome(folder: Path) -> dict[str, Any]:
    """What a run has found, without how long it took."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*/seed_1")):
        result = json.loads((path / "result.json").read_text())
        found[path.parent.name] = {name: value for name, value in result.items() if "minutes" not in name}
        found[f"{path.parent.name} history"] = (path / "plasticity.csv").read_text()
    return found


def test_what_a_comparison_leaves_behind(finished):
    folder, output = finished
    assert "P3O, seed 1: return" in output
    assert not (folder / "baselines.json").exists(), "which are of sequences"
    for method, steps in (("p3o", 320), ("ppo", 320), ("sbp_sac", 300)):
        run_folder = folder / method / "seed_1"
        result = json.loads((run_folder / "result.json").read_text())
        assert result["steps"] == steps
        assert np.isfinite(result["return"]) and np.isfinite(result["training_return"])
        history = read_history(run_folder)
        assert history["step"][-1] == steps and len(history["step"]) >= 5
        assert (run_folder / "model.zip").exists() and latest_checkpoint(run_folder) is not None
    config = json.loads((folder / "p3o" / "seed_1" / "config.json").read_text())
    assert config["hyperparams"]["reset_frequency"] == 100 and config["hyperparams"]["n_timesteps"] == 300
    plain = json.loads((folder / "ppo" / "seed_1" / "config.json").read_text())
    assert "reset_frequency" not in plain["hyperparams"] and plain["hyperparams"]["n_steps"] == 64
    p3o = read_history(folder / "p3o" / "seed_1")
    # Before the last update there were two resets of 1.6 neurons of 16, which is 2 and 1, in two layers
    assert p3o["resets"][-1] == 6
    assert p3o["distillation_epochs"][-1] >= 2


def under_way(folder: Path) -> list[Path]:
    """Runs that have a checkpoint, and no result yet."""
    runs = [folder / method / "seed_1" for method in METHODS]
    return [each for each in runs if latest_checkpoint(each) is not None and not (each / "result.json").exists()]


def test_killed_and_run_again_it_finds_the_same(finished, tmp_path):
    two = ["--methods", "p3o", "sbp_sac"]
    process = subprocess.Popen(command(tmp_path, *two), env=environment(), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 400
    try:
        while not under_way(tmp_path) and time.monotonic() < deadline:  # on a busy machine perhaps not the first run
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert under_way(tmp_path)
    time.sleep(1)  # the run ends with the one that started it
    assert "continues from checkpoint_" in run(tmp_path, *two)
    expected = {name: value for name, value in outcome(finished[0]).items() if not name.startswith("ppo")}
    assert len(expected) == 4 and outcome(tmp_path) == expected


def test_what_is_done_is_not_done_again(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/seed_1/*")}
    assert main(command(folder)[3:]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def write_run(folder: Path, value: float, epochs: float | None, start: float | None = None) -> None:
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"return": 10 * value, "training_return": value, "steps": 300}))
    rows = [] if start is None else [{"step": 0, "weight_norm": start}]
    rows += [{"step": 100, "weight_norm": 1.0}, {"step": 300, "weight_norm": value, "distillation_epochs": epochs}]
    with (folder / "plasticity.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def test_table_by_hand(tmp_path):
    comparison = Comparison(["Hopper-v5"], ["p3o", "ppo"], [1, 2], n_timesteps=300)
    comparison.save(tmp_path)
    for method, seed, value, epochs, start in (("p3o", 1, 2.0, 5, 0.5), ("p3o", 2, 4.0, 6, 1.5), ("ppo", 1, 1.0, None, None)):
        write_run(tmp_path / method / f"seed_{seed}", value, epochs, start)
    (table,) = build_tables([load_results(tmp_path)])
    headings = ["return ↑", "training return ↑", "distillation epochs", "weight norm", "steps"]
    assert list(table.cells) == ["method", "seeds", *headings, "return ↑: IQM [95 %]", "training return ↑: IQM [95 %]"]
    # The standard error of two numbers is half of their difference
    assert list(table.cells.iloc[0, :7]) == ["P3O", "2", "30 ± 10", "3 ± 1", "5.5 ± 0.5", "3.00 ± 1.00", "300"]
    assert list(table.cells.iloc[1, [0, 1, 5]]) == ["P3O, at the start", "2", "1.00 ± 0.50"]
    assert list(table.cells.iloc[2, :7]) == ["PPO", "1", "10 (n=1)", "1 (n=1)", "–", "1.00 (n=1)", "300"]
    assert not table.bold.any(), "one seed has no interval"
    assert table.notes[-1] == "Left out: PPO, seed 2: not started"
    assert table.notes[0] == "Setting: Hopper-v5, 300 steps, 20 evaluation episodes at the end."
    numbers = table.numbers[["method", "measure", "mean"]].to_numpy().tolist()
    assert numbers[:2] == [["P3O", "return", 30.0], ["P3O", "training_return", 3.0]]


def test_the_figure_has_a_line_for_each_method_where_there_is_something_to_show(finished, tmp_path):
    results = load_results(finished[0])
    assert [path.name for path in write_figures(results, tmp_path)] == ["plasticity.png", "plasticity.svg"]
    with rc_context(STYLE):
        figure = plasticity_figure(results)
    titles = ["Return of the last episodes", "Weight norm", "Dormant ratio", "Epochs of distillation"]
    assert [panel.get_title(loc="left") for panel in figure.axes] == titles
    assert [panel.get_ylabel() for panel in figure.axes] == ["Hopper-v5", "", "", ""]
    assert all(panel.get_legend() is None for panel in figure.axes), "one for all of them is enough"
    named = [[line.get_label() for line in panel.lines if not line.get_label().startswith("_")] for panel in figure.axes]
    assert named == [["P3O", "PPO", "SBP on SAC"]] * 3 + [["P3O", "SBP on SAC"]]
    frame = results.plasticity[(results.plasticity.measure == "weight_norm") & (results.plasticity.method == "PPO")]
    (line,) = [line for line in figure.axes[1].lines if line.get_label() == "PPO"]
    np.testing.assert_allclose(line.get_xydata(), frame[["step", "value"]].to_numpy(dtype=float))


def test_an_interrupted_run_was_measured_at_other_steps():
    rows = [(0, 1, 0.0), (100, 1, 1.0), (200, 1, 2.0), (100, 2, 3.0), (150, 2, 3.0), (200, 2, 3.0)]
    frame = pd.DataFrame(rows, columns=["step", "seed", "value"])
    _, axis = panels(1, 1, (2, 2))
    draw_course(axis[0], frame, "P3O", "#000000", "weight_norm")
    (mean,) = [line for line in axis[0].lines if line.get_label() == "P3O"]
    # In between linear; nothing is known of the second seed ahead of its first record
    assert mean.get_xydata().tolist() == [[0, 0], [100, 2], [150, 2.25], [200, 2.5]]


def test_damaged_and_failed_runs_are_named(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    (folder / "ppo" / "seed_1" / "plasticity.csv").write_text("nonsense")
    (folder / "p3o" / "seed_1" / "result.json").unlink()
    (folder / "p3o" / "seed_1" / "error.txt").write_text("no")
    results = load_results(folder)
    assert list(results.runs.method) == ["SBP on SAC"]
    reasons = {run.method: reason for run, reason in results.left_out}
    assert reasons["p3o"] == "failed: no" and "is no history of plasticity" in reasons["ppo"]


@pytest.mark.parametrize(
    "arguments, error",
    [
        (["--methods", "p30"], "There is no method 'p30'; did you mean p3o?"),
        (["--envs", "Hoper-v5"], "There is no environment 'Hoper-v5'"),
        (["--envs", "ALE/Pong-v5"], "ALE/Pong-v5 is a game without preprocessing: compare on a sequence of one game"),
        (["--n-timesteps", "0"], "n_timesteps must be at least 1, not 0"),
        (["--seeds", "-1"], "seeds must not be negative"),
        (["--hyperparams", "reset_rat:0.1"], "p3o has no hyperparameter 'reset_rat'"),
        (["--jobs", "0"], "jobs must be at least 1, not 0"),
    ],
)
def test_a_wrong_argument_is_an_error_before_anything_is_written(arguments, error, tmp_path, capsys):
    usual = ["run", "--envs", "Hopper-v5", "--methods", "p3o", "--n-timesteps", "300", "--out", str(tmp_path / "out")]
    assert main([*usual, *arguments]) == 2
    assert error in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_classes_of_the_yaml_file_are_kept_by_name():
    settings = Settings.resolve("p3o", "Hopper-v5", 1)
    assert settings.hyperparams["policy_kwargs"]["activation_fn"] == "torch.nn.modules.activation.Tanh"
    from torch import nn

    assert settings.arguments()["policy_kwargs"]["activation_fn"] is nn.Tanh
    assert settings.hyperparams["policy_kwargs"]["activation_fn"] == "torch.nn.modules.activation.Tanh"


def test_methods_and_seeds_can_be_added(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    first = Comparison.load(folder)
    replace(first, methods=METHODS[::-1], seeds=[2]).save(folder)
    together = Comparison.load(folder)
    assert (together.methods, together.seeds) == (METHODS, [1, 2])
    for changes in ({"n_timesteps": 400}, {"envs": ["Hopper-v5", "Pendulum-v1"]}):
        with pytest.raises(ValueError, match="other settings"):
            replace(first, **changes).save(folder)
