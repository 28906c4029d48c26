"""Comparisons: killed and run again, by two runners at a time, with a run that fails."""

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
    kill,
    outcome,
    processes_of,
    run,
    small_comparison,
    start,
    steps,
    wait_for,
)

from sb3_nbsp.benchmark.__main__ import main
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
    assert f"Next: python -m sb3_nbsp.benchmark table {uninterrupted}" in output
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


def test_killed_and_run_again_it_finds_the_same(uninterrupted, tmp_path):
    """Not through a fresh start: the runs continue in their third phases."""
    process = start(small_comparison(), tmp_path)
    try:
        wait_for(lambda: all(500 <= steps(tmp_path / method / "seed_1") for method in METHODS) or process.poll() is not None)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not processes_of(tmp_path), seconds=10)  # they end with the one that started them
    unfinished = [method for method in METHODS if not (tmp_path / method / "seed_1" / "result.json").exists()]
    assert unfinished
    assert [run.method for run, reason in load_results(tmp_path).left_out if reason == "not finished"] == unfinished
    run(small_comparison(), tmp_path)
    assert outcome(tmp_path) == outcome(uninterrupted)


def test_a_run_whose_process_is_killed_is_reported_and_the_other_goes_on(tmp_path):
    process = start(small_comparison(), tmp_path, "--jobs", "1")
    first, second = METHODS
    wait_for(lambda: steps(tmp_path / first / "seed_1") >= 100)
    for pid in processes_of(tmp_path / first):
        kill(pid)
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 1
    assert f"{TITLES[first]}, seed 1: failed" in output and "The process ended by signal 9" in output
    assert (tmp_path / second / "seed_1" / "result.json").exists()
    assert "1 of 2 runs failed; the same command tries them again" in output


def test_two_runners_in_one_folder(uninterrupted, tmp_path):
    runners = [start(small_comparison(), tmp_path) for _ in range(2)]
    outputs = [runner.communicate(timeout=280)[0] for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0], outputs
    assert outcome(tmp_path) == outcome(uninterrupted)
    logs = [(tmp_path / method / "seed_1" / "log.txt").read_text() for method in METHODS]
    assert any("Another process is at this run" in log for log in logs)
    assert sum(log.count("phase 1 of 4") for log in logs) == 1, "the first phase is computed once"
    assert all(log.count("phase 2 of 4") == 1 for log in logs), "each run is computed once"


def test_what_is_done_is_not_done_again(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted, tmp_path / "copy")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "copy").rglob("*") if path.name != "benchmark.json"}
    output = run(small_comparison(), tmp_path / "copy")
    assert re.search(r"all runs .* 2/2", output)
    assert {path: path.stat().st_mtime_ns for path in files if path.is_file()} == {
        path: time for path, time in files.items() if path.is_file()
    }


def test_a_run_that_fails_says_why_and_the_others_go_on(tmp_path):
    (tmp_path / "nbsp_sac" / "seed_1" / "checkpoint_100_steps").mkdir(parents=True)  # of a run that has lost its settings
    output = run(small_comparison(["nbsp_sac", "nbsp_masks_only"]), tmp_path, expected=1)
    assert "NBSP, seed 1: failed:" in output
    assert "has lost its config.json" in output and "ValueError" in output
    results = load_results(tmp_path)
    assert list(results.runs.method) == ["masks only"]
    ((run_, reason),) = results.left_out
    assert run_.method == "nbsp_sac" and reason.startswith("failed: ValueError")


@pytest.mark.parametrize(
    "arguments, error",
    [
        (["--methods", "nbsp"], "There is no method 'nbsp'"),
        (["--envs", "CoffeeButton"], "There is no environment 'CoffeeButton', and no sequence"),
        (["--preset", "phone"], "There is no preset 'phone'; presets: laptop, paper"),
        (["--hyperparams", "mask_tpye:hard"], "nbsp_sac has no hyper-parameter 'mask_tpye'; did you mean mask_type?"),
        (["--methods", "continual_sac", "--hyperparams", "mask_type:hard"], "has no hyper-parameter 'mask_type'"),
        (["--hyperparams", "mask_type:sotf"], "mask_type must be"),
        (["--hyperparams", "n_steps:3"], "n_steps=3 needs transitions"),
        (["--hyperparams", "normalise:True"], "no hyper-parameter 'normalise'; did you mean normalize?"),
        (["--hyperparams", "normalize:yes"], "normalize must be True, False or a dictionary"),
        (
            ["--hyperparams", "normalize:{'norm_rewards': False}"],
            "normalize has no option 'norm_rewards'; did you mean norm_reward?",
        ),
        (["--hyperparams", "n_envs:2"], "has no hyper-parameter 'n_envs'"),
        (["--hyperparams", "learning_rate:lin3e-4"], "learning_rate must be a number or a schedule such as 'lin_3e-4'"),
        (["--env-kwargs", "cycels:3"], "MW-CoffeeButton-HandlePress-laptop-v0 has no option 'cycels'; did you mean cycles?"),
        (["--env-kwargs", "cycles:0"], "cycles must be a whole number of at least 1, not 0"),
        (["--jobs", "0"], "jobs must be at least 1, not 0"),
        (["--launcher", "ray", "--cpus-per-run", "0"], "at least one core"),
    ],
)
def test_a_wrong_argument_is_an_error_before_anything_is_written(arguments, error, tmp_path, capsys):
    usual = ["run", "--envs", "CoffeeButton-HandlePress", "--methods", "nbsp_sac", "--out", str(tmp_path / "out")]
    assert main([*usual, *arguments]) == 2
    assert error in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_comparisons_folder_is_an_error(uninterrupted, tmp_path, capsys):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    arguments = ["run", "--envs", "CoffeeButton-HandlePress", "--methods", "nbsp_sac", "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert "is of a comparison with other settings" in capsys.readouterr().err


def test_runs_of_other_hyperparameters_do_not_get_into_one_row(uninterrupted, tmp_path):
    """As after a change of the YAML file."""
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "nbsp_sac" / "seed_1" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "hyperparams": {**config["hyperparams"], "tau": 0.1}}))
    output = run(small_comparison(), tmp_path, expected=2)
    assert "nbsp_sac/seed_1 holds a run with other settings (hyperparams)" in output


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
