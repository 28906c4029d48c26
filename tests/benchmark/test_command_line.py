"""Options and errors of ``python -m sb3_nbsp.benchmark``."""

import argparse
import os

import pytest

from sb3_nbsp.benchmark.__main__ import COMMANDS, main
from sb3_nbsp.benchmark.comparison import key_value
from sb3_nbsp.benchmark.methods import ABLATIONS, METHODS
from sb3_nbsp.machine import machine, versions


@pytest.mark.parametrize(
    "text, expected",
    [
        ("horizon:50", ("horizon", 50)),
        ("gamma:0.9", ("gamma", 0.9)),
        ("ent_coef:auto", ("ent_coef", "auto")),
        ("ent_coef:'auto'", ("ent_coef", "auto")),
        ("tasks:['a', 'b']", ("tasks", ["a", "b"])),
        ("policy_kwargs:{'net_arch': [8]}", ("policy_kwargs", {"net_arch": [8]})),
        ("masking:False", ("masking", False)),
    ],
)
def test_key_value(text, expected):
    assert key_value(text) == expected


@pytest.mark.parametrize("text", ["horizon", ":50", "horizon=50", ""])
def test_what_is_no_key_value(text):
    with pytest.raises(argparse.ArgumentTypeError, match="not of the form key:value"):
        key_value(text)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    output = capsys.readouterr().out
    assert f"benchmark {command}" in output and "default: None" not in output and "default: []" not in output


def test_the_help_of_run_lists_what_there_is(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    output = capsys.readouterr().out
    assert all(name in output for name in [*METHODS, *ABLATIONS, "CoffeeButton-HandlePress", "CW10"])
    assert all(name in output for name in ["HalfCheetah-Directions-v0", "Atari-Pong-Bowling-v0", "GymCycle-v0"])
    assert "(default: [1, 2, 3])" in output and "(default: laptop)" in output and "MISSING" not in output


@pytest.mark.parametrize("command", ["table", "plot", "report"])
def test_a_folder_without_a_comparison_is_an_error(command, tmp_path, capsys):
    assert main([command, str(tmp_path)]) == 2
    assert f"benchmark {command}: {tmp_path} holds no comparison" in capsys.readouterr().err


def test_an_interrupted_command_says_how_to_go_on(monkeypatch, tmp_path, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("sb3_nbsp.benchmark.run.run_comparison", interrupted)
    arguments = ["--envs", "CoffeeButton-HandlePress", "--methods", "nbsp_sac", "--out", str(tmp_path / "out")]
    assert main(["run", *arguments]) == 130
    assert "The same command resumes" in capsys.readouterr().err


def test_a_command_says_which_extra_it_needs(monkeypatch, capsys):
    def missing(_):
        raise ModuleNotFoundError("A figure needs seaborn: pip install 'sb3_nbsp[benchmark]'")

    monkeypatch.setattr("sb3_nbsp.benchmark.frames.load_results", missing)
    assert main(["plot", "out"]) == 2
    assert "benchmark plot: A figure needs seaborn" in capsys.readouterr().err


def test_machine_and_versions():
    found = machine()
    assert found["cores"] == os.cpu_count() and found["processor"] and found["memory_gib"] > 0.1
    assert {"python", "sb3_nbsp", "torch", "stable_baselines3", "gymnasium"} <= set(versions())


@pytest.mark.parametrize(
    "arguments, sentences",
    [
        (["--eval-freq", "500"], ["--eval-freq has no effect without --switch-steps"]),
        (["--switch-steps", "100"], ["--eval-freq 10000: the second task has 100 steps and is evaluated at its end only"]),
        (["--switch-steps", "100", "--eval-freq", "100"], []),
        (["--seeds", "1", "2", "1"], ["--seeds 1 2 1: a seed that is given twice is run once"]),
        (["--preset", "paper"], ["--preset only has an effect on Meta-World sequences that are given by name"]),
        (["--envs", "WindowOpen-WindowClose", "--preset", "paper"], []),
        (["--envs", "Pendulum-v1", "--n-eval-steps", "500"], ["--n-eval-steps only has an effect on task sequences"]),
        (["--envs", "Pendulum-v1", "--eval-policy", "stochastic"], ["--eval-policy only has an effect on task sequences"]),
        (
            ["--address", "auto", "--gpus-per-run", "1"],
            [f"--{name} has no effect with --launcher local" for name in ("address", "gpus-per-run")],
        ),
        ([], []),
    ],
)
def test_options_without_effect_are_warned_about(arguments, sentences, monkeypatch, tmp_path, recwarn):
    monkeypatch.setattr("sb3_nbsp.benchmark.run.run_comparison", lambda *_, **__: [])
    assert (
        main(["run", "--envs", "HalfCheetah-Directions-v0", "--methods", "nbsp_sac", "--out", str(tmp_path), *arguments]) == 0
    )
    assert [str(each.message) for each in recwarn if "--" in str(each.message)] == sentences
