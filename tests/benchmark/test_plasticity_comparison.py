"""Comparisons of plasticity: run, killed, run again, read."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from sb3_nbsp.benchmark.__main__ import main
from sb3_nbsp.benchmark.plasticity_plan import PlasticityPlan
from sb3_nbsp.benchmark.plasticity_results import PlasticityResults, TaskRun, load_plasticity_results
from sb3_nbsp.benchmark.plasticity_table import plasticity_table
from sb3_nbsp.benchmark.run_settings import RunSettings
from sb3_nbsp.plasticity.history import COLUMNS, read_history
from sb3_nbsp.tasks import latest_checkpoint

ROOT = Path(__file__).parents[2]
METHODS = ["p3o", "ppo", "sbp_sac"]
OPTIONS = [
    "--hyperparams",
    *("n_steps:64", "batch_size:32", "n_epochs:2", "reset_frequency:100", "reset_rate:0.1", "distill_states:64"),
    *("learning_starts:20", "buffer_size:300", "policy_kwargs:{'net_arch': [16, 16]}"),
]


def command(folder: Path, *more: str) -> list[str]:
    usual = ["plasticity", "--envs", "Hopper-v5", "--methods", *METHODS, "--seeds", "1", "--n-timesteps", "300"]
    sizes = ["--n-eval-episodes", "1", "--save-freq", "100", "--jobs", "1", "--out", str(folder)]
    return [sys.executable, "-m", "sb3_nbsp.benchmark", *usual, *sizes, *OPTIONS, *more]


def environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def run(folder: Path, *more: str) -> str:
    done = subprocess.run(command(folder, *more), env=environment(), capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> tuple[Path, str]:
    """A comparison that was not interrupted, and what it printed. Not to be written to."""
    shared = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        shared = shared.parent
    folder, output = shared / "plasticity", shared / "plasticity.txt"
    with FileLock(shared / "plasticity.lock"):
        if not output.exists():
            output.write_text(run(folder))
    return folder, output.read_text()


def outcome(folder: Path) -> dict[str, Any]:
    """What a run has found, without how long it took."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("Hopper-v5/*/seed_1")):
        result = json.loads((path / "result.json").read_text())
        found[path.parent.name] = {name: value for name, value in result.items() if "minutes" not in name}
        found[f"{path.parent.name} history"] = (path / "plasticity.csv").read_text()
    return found


def test_what_a_comparison_leaves_behind(finished):
    folder, output = finished
    assert "Hopper-v5, p3o, seed 1: return" in output and "Return and plasticity after 300 steps" in output
    names = {path.name for path in folder.iterdir() if path.is_file()}
    assert names >= {"benchmark.json", "plasticity.md", "plasticity.csv", "plasticity.png", "plasticity.svg"}
    for method, steps in (("p3o", 320), ("ppo", 320), ("sbp_sac", 300)):
        run_folder = folder / "Hopper-v5" / method / "seed_1"
        result = json.loads((run_folder / "result.json").read_text())
        assert result["steps"] == steps
        assert np.isfinite(result["return"]) and np.isfinite(result["training_return"])
        history = read_history(run_folder)
        assert history["step"][-1] == steps and len(history["step"]) >= 5
        assert (run_folder / "model.zip").exists() and latest_checkpoint(run_folder) is not None
    config = json.loads((folder / "Hopper-v5" / "p3o" / "seed_1" / "config.json").read_text())
    assert config["hyperparams"]["reset_frequency"] == 100 and config["hyperparams"]["n_timesteps"] == 300
    plain = json.loads((folder / "Hopper-v5" / "ppo" / "seed_1" / "config.json").read_text())
    assert "reset_frequency" not in plain["hyperparams"] and plain["hyperparams"]["n_steps"] == 64
    p3o = read_history(folder / "Hopper-v5" / "p3o" / "seed_1")
    # Before the last update there were two resets of 1.6 neurons of 16, which is 2 and 1, in two layers
    assert p3o["resets"][-1] == 6
    assert p3o["distillation_epochs"][-1] >= 2


def test_killed_and_run_again_it_finds_the_same(finished, tmp_path):
    process = subprocess.Popen(command(tmp_path), env=environment(), stdout=subprocess.DEVNULL)
    first = tmp_path / "Hopper-v5" / "p3o" / "seed_1"
    deadline = time.monotonic() + 120
    try:
        while latest_checkpoint(first) is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert not (first / "result.json").exists()
    time.sleep(1)  # the run ends with the one that started it
    run(tmp_path)
    assert outcome(tmp_path) == outcome(finished[0])


def test_what_is_done_is_not_done_again(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("Hopper-v5/*/seed_1/*")}
    run(folder)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_table_by_hand(tmp_path):
    plan = PlasticityPlan(["Hopper-v5"], ["p3o", "ppo"], [1, 2], 300)
    cells = plan.cells(tmp_path)
    history = {name: np.array([np.nan, np.nan]) for name in COLUMNS}

    def made(cell: Any, value: float, epochs: float) -> TaskRun:
        numbers = {"weight_norm": np.array([1.0, value]), "distillation_epochs": np.array([0.0, epochs])}
        return TaskRun(cell, {"return": 10 * value, "training_return": value, "steps": 300}, {**history, **numbers})

    by_name = {(cell.method, cell.seed): cell for cell in cells}
    runs = [made(by_name["p3o", 1], 2.0, 5.0), made(by_name["p3o", 2], 4.0, 6.0), made(by_name["ppo", 1], 1.0, np.nan)]
    table = plasticity_table(PlasticityResults(plan, tmp_path, runs, [(by_name["ppo", 2], "not finished")]))
    # The standard error of two numbers is half of their difference
    assert table.rows[0] == ["Hopper-v5, p3o", "2", "30 ± 10", "3 ± 1", "5.5 ± 0.5", "–", "3.00 ± 1.00", "–", "–"]
    assert table.rows[1] == ["Hopper-v5, ppo", "1", "10", "1", "–", "–", "1.00", "–", "–"]
    assert table.best == {(0, 2)}
    assert table.notes == ["Hopper-v5, ppo, seed 2 is left out: not finished."]
    lines = list(csv.DictReader(table.csv().splitlines()))
    assert [(line["method"], line["metric"], line["mean"]) for line in lines][:2] == [
        ("p3o", "return", "30.0"),
        ("p3o", "training_return", "3.0"),
    ]


def test_damaged_and_failed_runs_are_named(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    (folder / "Hopper-v5" / "ppo" / "seed_1" / "plasticity.csv").write_text("nonsense")
    (folder / "Hopper-v5" / "p3o" / "seed_1" / "result.json").unlink()
    (folder / "Hopper-v5" / "p3o" / "seed_1" / "error.txt").write_text("no")
    results = load_plasticity_results(folder)
    assert [run.cell.method for run in results.runs] == ["sbp_sac"]
    assert [(cell.method, reason.split(":")[0]) for cell, reason in results.left_out] == [
        ("p3o", "failed"),
        ("ppo", "damaged"),
    ]


def test_a_sequence_is_no_single_environment(capsys, tmp_path):
    arguments = ["plasticity", "--methods", "p3o", "--n-timesteps", "300", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--envs", "MW-CoffeeButton-HandlePress-laptop-v0"]) == 2
    assert "is a task sequence" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, error",
    [
        (["--methods", "p30"], "There is no method 'p30'; did you mean p3o?"),
        (["--envs", "Hoper-v5"], "There is no environment 'Hoper-v5'"),
        (["--n-timesteps", "0"], "n_timesteps must be at least 1, not 0"),
        (["--seeds", "-1"], "seeds must not be negative"),
        (["--hyperparams", "reset_rat:0.1"], "None of the methods p3o has a hyper-parameter 'reset_rat'"),
        (["--jobs", "0"], "jobs must be at least 1, not 0"),
    ],
)
def test_a_wrong_argument_is_an_error_before_anything_is_written(arguments, error, tmp_path, capsys):
    usual = ["plasticity", "--envs", "Hopper-v5", "--methods", "p3o", "--n-timesteps", "300", "--out", str(tmp_path / "out")]
    assert main([*usual, *arguments]) == 2
    assert error in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_classes_of_the_yaml_file_are_kept_by_name():
    settings = RunSettings.resolve("p3o", "Hopper-v5", 1, None, None, 1, 100)
    assert settings.hyperparams["policy_kwargs"]["activation_fn"] == "torch.nn.modules.activation.Tanh"
    from torch import nn

    assert settings.arguments()["policy_kwargs"]["activation_fn"] is nn.Tanh
    assert settings.hyperparams["policy_kwargs"]["activation_fn"] == "torch.nn.modules.activation.Tanh"


def test_the_command_of_a_plan():
    plan = PlasticityPlan(["Hopper-v5"], ["p3o", "ppo"], [1, 2], 300, {"reset_rate": 0.05})
    assert plan.command("out") == (
        "python -m sb3_nbsp.benchmark plasticity --envs Hopper-v5 --methods p3o ppo --seeds 1 2 --n-timesteps 300 "
        "--hyperparams reset_rate:0.05 --out out"
    )


def test_other_commands_say_whose_folder_it_is(finished, capsys):
    assert main(["table", str(finished[0])]) == 2
    assert "is a comparison of another kind, which `benchmark plasticity` has made" in capsys.readouterr().err


def test_environments_methods_and_seeds_can_be_added(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    first = PlasticityPlan.load(folder)
    more = PlasticityPlan(["Hopper-v5", "Pendulum-v1"], METHODS[::-1], [2], 300, first.hyperparams, 1, 100)
    more.save(folder)
    together = PlasticityPlan.load(folder)
    assert (together.env_ids, together.methods, together.seeds) == (["Hopper-v5", "Pendulum-v1"], METHODS, [1, 2])
    with pytest.raises(ValueError, match="other settings"):
        PlasticityPlan(["Hopper-v5"], METHODS, [1], 400, first.hyperparams, 1, 100).save(folder)
