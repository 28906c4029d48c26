"""Comparisons: killed and run again, by two runners at a time, with a run that fails."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import signal
import time

import pytest
from rich.console import Console
from small_comparison import (
    EPISODE_ENDS,
    METHODS,
    TITLES,
    arguments_of,
    kill,
    outcome,
    parent_of,
    processes_of,
    small_comparison,
    start,
    steps,
    wait_for,
)

from sb3_nbsp.benchmark import launchers
from sb3_nbsp.benchmark.__main__ import main
from sb3_nbsp.benchmark.first_phase import FOLDER
from sb3_nbsp.benchmark.frames import load_results
from sb3_nbsp.benchmark.launchers import Outcome
from sb3_nbsp.benchmark.run import _Display


def test_a_comparison_on_this_machine(uninterrupted):
    output = (uninterrupted.parent / "uninterrupted.txt").read_text()
    for method in METHODS:
        folder = uninterrupted / method / "seed_1"
        result = json.loads((folder / "result.json").read_text())
        told = f"ASR {result['ASR']:.2f}, FM {result['FM']:.2f}, FWT {result['FWT']:.2f}, 800 steps"
        assert f"{TITLES[method]}, seed 1: {told}" in output
        with (folder / "training.csv").open() as file:
            assert [int(row["step"]) for row in csv.DictReader(file)] == EPISODE_ENDS
        assert (folder / "model.zip").exists() and steps(folder) >= 700
        assert "is over" in (folder / "log.txt").read_text()
    assert re.search(r"all runs .* 2/2", output)
    assert f"Next: sb3-nbsp benchmark table {uninterrupted}" in output
    assert list(load_results(uninterrupted).runs.method) == [*TITLES.values()]


def test_a_run_keeps_what_it_was_made_with(uninterrupted):
    config = json.loads((uninterrupted / "nbsp_sac" / "seed_1" / "config.json").read_text())
    assert (config["algo"], config["seed"], config["env_kwargs"]["horizon"]) == ("nbsp_sac", 1, 50)
    assert config["hyperparams"]["memory_size"] == 100 and config["hyperparams"]["skill_proportion"] == 0.2
    assert {"python", "sb3_nbsp", "stable_baselines3", "torch", "metaworld"} <= set(config["versions"])
    assert config["machine"]["cores"] == os.cpu_count() and config["machine"]["device"]


def test_a_run_keeps_its_skill_neurons(uninterrupted):
    neurons = json.loads((uninterrupted / "nbsp_sac" / "seed_1" / "neurons.json").read_text())
    assert neurons["networks"]["actor"] == [["actor.latent_pi.0", 32], ["actor.latent_pi.2", 32]]
    assert [entry["phase"] for entry in neurons["phases"]] == [0, 1, 2, 3]
    assert [entry["task"] for entry in neurons["phases"]] == ["coffee-button", "handle-press"] * 2
    by_task = {}
    for entry in neurons["phases"]:
        for network in entry["networks"].values():
            assert sum(map(len, network["skill_neurons"].values())) <= 13, "a fifth of 64"
            scores = [histogram["score"] for histogram in network["histograms"]]
            assert scores == sorted(scores, reverse=True) and len(scores) == 4
            for histogram in network["histograms"]:
                assert histogram["neuron"] in network["skill_neurons"][histogram["layer"]]
                assert sum(histogram["success"]) + sum(histogram["failure"]) == 100
        actor = entry["networks"]["actor"]
        by_task[entry["task"]] = {(layer, neuron) for layer, found in actor["skill_neurons"].items() for neuron in found}
        assert sum(actor["masked"].values()) == len(set().union(*by_task.values())), "masks accumulate over tasks"
    assert not (uninterrupted / "nbsp_replay_only" / "seed_1" / "neurons.json").exists()


def test_of_two_runners_in_one_folder_one_is_killed_and_the_other_goes_on(uninterrupted, tmp_path):
    """Not through a fresh start: the run that the first one had begun continues in its third phase."""
    first = start(small_comparison(), tmp_path)
    wait_for(lambda: processes_of(tmp_path))
    second = start(small_comparison(), tmp_path)
    begun = METHODS[0]
    try:
        wait_for(lambda: steps(tmp_path / begun / "seed_1") >= 500 or first.poll() is not None)
        paused = [pid for pid in processes_of(tmp_path / begun) if parent_of(pid) == first.pid]
        for pid in paused:
            os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: "Another process is at this run" in (tmp_path / begun / "seed_1" / "log.txt").read_text())
        first.send_signal(signal.SIGKILL)
        first.wait()
        for pid in paused:
            with contextlib.suppress(ProcessLookupError):  # it ends with the one that started it
                kill(pid)
        assert begun in [run.method for run, reason in load_results(tmp_path).left_out if reason == "not finished"]
        output, _ = second.communicate(timeout=500)
    finally:
        first.kill()
        second.kill()
    assert second.returncode == 0, output
    assert outcome(tmp_path) == outcome(uninterrupted)
    logs = [(tmp_path / method / "seed_1" / "log.txt").read_text() for method in METHODS]
    assert any("Another process is at this run" in log for log in logs)
    assert sum(log.count("phase 1 of 4") for log in logs) == 1, "the first phase is computed once"
    assert all(log.count("phase 2 of 4") == 1 for log in logs), "each run is computed once"


def test_runs_that_are_killed_or_fail_are_reported_and_the_others_go_on(uninterrupted, tmp_path):
    """With a first phase of its own, the one that goes on finds the same, too."""
    killed, good, failing = "nbsp_replay_only", "nbsp_sac", "nbsp_masks_only"
    (tmp_path / failing / "seed_1" / "checkpoint_100_steps").mkdir(parents=True)  # of a run that has lost its settings
    process = start(small_comparison([killed, good, failing]), tmp_path, "--jobs", "1", "--own-first-phases")
    wait_for(lambda: steps(tmp_path / killed / "seed_1") >= 100)
    (pid,) = processes_of(tmp_path / killed)
    kill(pid)
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 1 and not (tmp_path / FOLDER).exists()
    assert "replay only, seed 1: failed" in output and "The process ended by signal 9" in output
    assert "masks only, seed 1: failed:" in output and "has lost its config.json" in output and "ValueError" in output
    assert "2 of 3 runs failed; the same command tries them again" in output
    results = load_results(tmp_path)
    assert list(results.runs.method) == [TITLES[good]]
    reasons = {run.method: reason for run, reason in results.left_out}
    assert reasons[killed] == "not finished" and reasons[failing].startswith("failed: ValueError")
    assert outcome(tmp_path, [good]) == outcome(uninterrupted, [good])


def test_what_is_done_is_not_done_again(uninterrupted, tmp_path, capsys):
    shutil.copytree(uninterrupted, tmp_path / "copy")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "copy").rglob("*") if path.name != "benchmark.json"}
    assert main(arguments_of(small_comparison(), tmp_path / "copy")) == 0
    output = capsys.readouterr().out
    assert "2 of 2 runs are done already" in output and re.search(r"all runs .* 2/2", output)
    assert {path: path.stat().st_mtime_ns for path in files if path.is_file()} == {
        path: time for path, time in files.items() if path.is_file()
    }


@pytest.mark.parametrize(
    "arguments, error",
    [
        (["--methods", "nbsp"], "There is no method 'nbsp'"),
        (["--envs", "CoffeeButton"], "There is no environment 'CoffeeButton', and no sequence"),
        (["--hyperparams", "mask_tpye:hard"], "nbsp_sac has no hyperparameter 'mask_tpye'; did you mean mask_type?"),
        (["--methods", "continual_sac", "--hyperparams", "mask_type:hard"], "has no hyperparameter 'mask_type'"),
        (["--hyperparams", "mask_type:sotf"], "mask_type must be"),
        (["--hyperparams", "n_steps:3"], "n_steps=3 needs transitions"),
        (["--hyperparams", "normalise:True"], "no hyperparameter 'normalise'; did you mean normalize?"),
        (["--hyperparams", "normalize:yes"], "normalize must be True, False or a dictionary"),
        (
            ["--hyperparams", "normalize:{'norm_rewards': False}"],
            "normalize has no option 'norm_rewards'; did you mean norm_reward?",
        ),
        (["--hyperparams", "n_envs:2"], "has no hyperparameter 'n_envs'"),
        (["--hyperparams", "seed:4"], "has no hyperparameter 'seed'"),
        (["--hyperparams", "env:Hopper-v5"], "has no hyperparameter 'env'"),
        (["--hyperparams", "learning_rate:lin3e-4"], "learning_rate must be a number or a schedule such as 'lin_3e-4'"),
        (["--env-kwargs", "cycels:3"], "MW-CoffeeButton-HandlePress-laptop-v0 has no option 'cycels'; did you mean cycles?"),
        (["--env-kwargs", "speed:3"], "has no option 'speed'; its options: cycles, disable_env_checker, goal_seed, "),
        (["--env-kwargs", "cycles:0"], "cycles must be a whole number of at least 1, not 0"),
        (["--jobs", "0"], "jobs must be at least 1, not 0"),
        (
            ["--methods", "nbsp_discrete_sac"],
            "nbsp_discrete_sac on MW-CoffeeButton-HandlePress-laptop-v0: The",
        ),
        (["--launcher", "ray", "--cpus-per-run", "0"], "at least one core"),
    ],
)
def test_a_wrong_argument_is_an_error_before_anything_is_written(arguments, error, tmp_path, capsys):
    usual = ["run", "--envs", "CoffeeButton-HandlePress", "--methods", "nbsp_sac", "--out", str(tmp_path / "out")]
    assert main([*usual, *arguments]) == 2
    assert error in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["--preset", "lapto"], ["--eval-policy", "deterministc"]])
def test_a_wrong_choice_is_an_error_with_what_was_meant(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["run", "--envs", "CoffeeButton-HandlePress", "--methods", "nbsp_sac", "--out", "out", *arguments])
    meant = {"lapto": "laptop", "deterministc": "deterministic"}[arguments[1]]
    assert f"argument {arguments[0]}: invalid choice: {arguments[1]!r}; did you mean {meant}?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run --envs Pendulum-v1 --methods sac --n-timesteps 10 --out", "plot", "report", "zero"])
def test_a_folder_that_cannot_be_is_an_error(command, tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    assert main([*command.split(), str(tmp_path / "file" / "out")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_a_file_as_folder_is_an_error_before_ray_starts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(launchers, "RayLauncher", None)
    (tmp_path / "file").write_text("")
    run = ["run", "--envs", "Pendulum-v1", "--methods", "sac", "--launcher", "ray", "--out", str(tmp_path / "file")]
    assert main(run) == 2
    assert f"--out must be a folder, and {tmp_path / 'file'} is a file" in capsys.readouterr().err
    assert main([*run[:-1], str(tmp_path / "file" / "out")]) == 2
    assert f"--out must be a folder, and {tmp_path / 'file'} is a file" in capsys.readouterr().err


def test_another_comparisons_folder_is_an_error(uninterrupted, tmp_path, capsys):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    arguments = ["run", "--envs", "CoffeeButton-HandlePress", "--methods", "nbsp_sac", "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert "is of a comparison with other settings" in capsys.readouterr().err


def test_runs_of_other_hyperparameters_do_not_get_into_one_row(uninterrupted, tmp_path, capsys):
    """As after a change of the YAML file."""
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "nbsp_sac" / "seed_1" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "hyperparams": {**config["hyperparams"], "tau": 0.1}}))
    assert main(arguments_of(small_comparison(), tmp_path)) == 2
    assert "nbsp_sac/seed_1 holds a run with other settings (hyperparams)" in capsys.readouterr().err


def test_only_what_is_computed_now_is_shown(uninterrupted, tmp_path):
    """A run that was killed earlier has a progress.json too."""
    shutil.copytree(uninterrupted / "nbsp_sac", tmp_path / "nbsp_sac")
    folder = small_comparison().runs(tmp_path)[0].folder
    assert folder.progress(since=0)["step"] == 800
    assert folder.progress(since=time.time() + 1) is None
    (folder.path / "progress.json").write_text("{")
    assert folder.progress(since=0) is None


def test_a_failed_run_leaves_the_display(uninterrupted):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    first = small_comparison().runs(uninterrupted)[0]
    display = _Display(console, 2, 0)
    display._since = 0
    display.show([first])
    assert len(display.tasks) == 2
    display.ended(Outcome(first, "failed", "§" * 10_000))
    display.show([first])
    assert len(display.tasks) == 1
    assert console.file.getvalue().count("§") == 2_000
