"""Everything of the zoo's command line besides a plain training run on a sequence."""

import importlib
import itertools
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import gymnasium as gym
import pandas as pd
import pytest
import rl_zoo3
import yaml
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER
from zoo_commands import ENV_ID, NBSP_PARAMS, ROOT, SAC_PARAMS, SEQUENCE, TASKS, environment, sb3_nbsp, train_py

from sb3_nbsp import NBSPSAC, ContinualSAC, PackNetSAC
from sb3_nbsp import __version__ as sb3_nbsp_version
from sb3_nbsp.checks import check_option
from sb3_nbsp.tasks import TaskSequence
from sb3_nbsp.zoo import cli

PLAIN = ["--eval-freq", "-1", "-params", *NBSP_PARAMS]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the steps that are played of each task."""
    steps: Counter[str] = Counter()
    step = TaskSequence.step

    def counting_step(self, action):
        steps[self.task] += 1
        return step(self, action)

    monkeypatch.setattr(TaskSequence, "step", counting_step)
    return steps


def saved_config(algo: str, env_id: str) -> dict:
    return dict(yaml.unsafe_load((Path("logs") / algo / f"{env_id}_1" / env_id / "config.yml").read_text()))


# --- the command itself


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help_lists_the_commands(arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sb3-nbsp", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert not stopped.value.code
    output = capsys.readouterr().out
    for name in ("train", "enjoy", "record_video", "push_to_hub", "load_from_hub", "benchmark"):
        assert re.search(rf"^  {name}\s+\w", output, re.MULTILINE)


@pytest.mark.parametrize(
    "arguments, error",
    [([], "which command?"), (["fly"], "there is no command 'fly'"), (["trian"], "'trian'; did you mean train?")],
)
def test_a_wrong_command_is_an_error(arguments, error, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sb3-nbsp", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    output = capsys.readouterr()
    assert "usage: sb3-nbsp COMMAND" in output.err and error in output.err
    assert not output.out


def test_words_need_no_quotes(monkeypatch, capsys):
    """As in benchmark; Python is evaluated as before."""
    import argparse

    from rl_zoo3.utils import StoreDict

    monkeypatch.setattr(StoreDict, "__call__", StoreDict.__call__)  # to be put back
    cli._accept_words()
    parser = argparse.ArgumentParser()
    parser.add_argument("-params", nargs="+", action=StoreDict)
    given = ["mask_type:hard", "name:'a:b'", "flag:True", "nothing:None", "rate:1e-3", "kwargs:dict(a=[1])", "data:step-data"]
    given += ["ent_coef:auto_0.1", "learning_rate:lin_2.5e-4"]
    expected = {"mask_type": "hard", "name": "a:b", "flag": True, "nothing": None, "rate": 1e-3, "kwargs": {"a": [1]}}
    assert parser.parse_args(["-params", *given]).params == {
        **expected,
        "data": "step-data",
        "ent_coef": "auto_0.1",
        "learning_rate": "lin_2.5e-4",
    }
    for wrong in ["a:1 +", "a", "a:", "a:torch.nn.ReLU"]:
        with pytest.raises(SystemExit):
            parser.parse_args(["-params", "b:1", wrong])
        assert f"error: -params {wrong}: give name:value, where value is a word or Python code" in capsys.readouterr().err


def test_the_version(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sb3-nbsp", "--version"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert not stopped.value.code and capsys.readouterr().out == f"{sb3_nbsp_version}\n"


def test_benchmark_is_one_of_the_commands(monkeypatch, capsys):
    for arguments, code, text in (
        (["--help"], 0, "usage: sb3-nbsp benchmark [-h]"),
        (["table", "nowhere"], 2, "sb3-nbsp benchmark table: "),
    ):
        monkeypatch.setattr("sys.argv", ["sb3-nbsp", "benchmark", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        output = capsys.readouterr()
        assert (stopped.value.code or 0) == code and text in output.out + output.err


def test_the_help_of_a_command_names_the_algorithms(command, capsys):
    with pytest.raises(SystemExit):
        command("train", "--help")
    output = capsys.readouterr().out
    assert output.startswith("usage: sb3-nbsp train")
    assert "nbsp_sac" in output and "continual_sac" in output


def test_the_module_runs_as_a_command(tmp_path):
    sb3_nbsp("train", "--algo", "nbsp_sac", "--env", "Pendulum-v1", "-n", "120", *PLAIN, cwd=tmp_path)
    assert NBSPSAC.load(tmp_path / "logs" / "nbsp_sac" / "Pendulum-v1_1" / "Pendulum-v1.zip").num_timesteps == 120


def test_the_console_script_is_the_same_function():
    tomllib = pytest.importorskip("tomllib")
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, function = scripts["sb3-nbsp"].split(":")
    assert getattr(importlib.import_module(module), function) is cli.main
    script = Path(sys.executable).with_name("sb3-nbsp")
    if script.exists():  # installed
        done = subprocess.run([script], env=environment(), capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and "usage: sb3-nbsp COMMAND" in done.stderr


def test_without_rl_zoo3_the_error_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "sb3_nbsp.zoo.registration", raising=False)
    monkeypatch.setitem(sys.modules, "rl_zoo3", None)
    with pytest.raises(SystemExit, match=r"pip install 'sb3_nbsp\[zoo\]'"):
        cli.train()


def test_an_unknown_algorithm_is_an_error(tmp_path):
    output = train_py("--algo", "nbsp_sacc", "--env", "Pendulum-v1", cwd=tmp_path, expected=2)
    assert "invalid choice: 'nbsp_sacc'; did you mean nbsp_sac" in output
    assert "nbsp_sac'" in output.split("choose from")[1]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["train", "--algo", "nbsp_sac", "--env", "Pendulum-v1", "-params", "memory_size:0"], "memory_size must be"),
        (["train", "--algo", "nbsp_sac", "--env", "CartPole-v1"], "The algorithm only supports"),
        (["enjoy", "--algo", "nbsp_sac", "--env", "Pendulum-v1", "-f", ".", "--no-render"], "nbsp_sac folder was not found"),
    ],
)
def test_an_error_in_what_is_given_is_one_line(arguments, error, tmp_path):
    output = sb3_nbsp(*arguments, cwd=tmp_path, expected=1)
    assert "Traceback" not in output
    assert output.splitlines()[-1].startswith(f"sb3-nbsp {arguments[0]}: error: ") and error in output.splitlines()[-1]


def test_other_errors_keep_their_traceback(capsys):
    def learn():
        check_option("a", 1, (2,))

    def show(function):
        try:
            function()
        except Exception as error:
            cli._say_what_is_wrong(type(error), error, error.__traceback__)
        return capsys.readouterr().err

    assert "Traceback" in show(learn) and "Traceback" in show(lambda: int("x"))
    one_line = show(lambda: check_option("a", 1, (2,)))
    assert one_line.startswith(f"{sys.argv[0]}: error: a must be") and one_line.count("\n") == 1


def test_an_unknown_environment_is_an_error(command):
    with pytest.raises(ValueError, match="you maybe meant MW-CoffeeButton-DrawerClose-laptop-v0"):
        command("train", "--algo", "nbsp_sac", "--env", "MW-CoffeButton-DrawerClose-laptop-v0")
    assert not os.listdir()


@pytest.mark.parametrize("option", ["memory_size:0", "memry_size:9"])
def test_a_wrong_hyperparameter_is_an_error_that_names_it(option, command):
    with pytest.raises(ValueError, match=option.split(":")[0]):
        command("train", "--algo", "nbsp_sac", "--env", "Pendulum-v1", "--eval-freq", "-1", "-params", option)


def test_a_wrong_task_is_an_error_that_names_the_closest(command):
    with pytest.raises(ValueError, match="no task 'drawer-clos'; did you mean 'drawer-close'"):
        command("train", "--algo", "sac", "--env", "MW-Cycle-v0", "--env-kwargs", "tasks:['drawer-clos']", "--eval-freq", "-1")


# --- hyperparameters


@pytest.mark.parametrize(
    "algo, env_id, params",
    [("ppo", "CartPole-v1", ["n_steps:16", "batch_size:16"]), ("sac", "Pendulum-v1", ["learning_starts:10"])],
)
def test_zoo_algorithms_keep_the_zoos_hyperparameters(algo, env_id, params, command, capsys):
    command("train", "--algo", algo, "--env", env_id, "-n", "40", "--eval-freq", "-1", "-params", *params)
    zoo = Path(rl_zoo3.__file__).parent / "hyperparams" / f"{algo}.yml"
    assert f"Loading hyperparameters from: {zoo}" in capsys.readouterr().out
    expected = yaml.safe_load(zoo.read_text())[env_id]
    assert saved_config(algo, env_id)["learning_rate"] == expected["learning_rate"]


def test_an_environment_without_an_entry_gets_the_default(command, capsys):
    command("train", "--algo", "nbsp_sac", "--env", "Pendulum-v1", "-n", "150", *PLAIN)
    assert "Using 'default' hyperparameters" in capsys.readouterr().out
    # No sequence: nothing of a sequence is written
    folder = Path("logs") / "nbsp_sac" / "Pendulum-v1_1"
    assert (folder / "Pendulum-v1.zip").exists() and not (folder / "success_matrix.csv").exists()


def test_a_configuration_file_of_ones_own(command, capsys):
    entry = {"policy": "MlpPolicy", "n_timesteps": 30, "learning_starts": 20, "mask_type": "hard", "batch_size": 8}
    Path("mine.yml").write_text(yaml.safe_dump({ENV_ID: entry}))
    arguments = ["--algo", "nbsp_sac", *SEQUENCE, "--eval-freq", "-1", "-conf", "mine.yml", "-params", "batch_size:16"]
    with pytest.warns(UserWarning, match="n_timesteps=30"):
        command("train", *arguments)
    assert "Loading hyperparameters from: mine.yml" in capsys.readouterr().out
    assert saved_config("nbsp_sac", ENV_ID) == {**entry, "batch_size": 16}
    model = NBSPSAC.load(Path("logs") / "nbsp_sac" / f"{ENV_ID}_1" / f"{ENV_ID}.zip")
    assert (model.num_timesteps, model.mask_type, model.batch_size, model.memory_size) == (30, "hard", 16, 100_000)


def test_tasks_from_the_command_line(command, played, capsys):
    kwargs = ["tasks:['reach','drawer-close']", "steps_per_task:25", "cycles:1", "horizon:25"]
    command("train", "--algo", "continual_sac", "--env", "MW-Cycle-v0", "--env-kwargs", *kwargs, "--eval-freq", "-1",
            "-params", *SAC_PARAMS)  # fmt: skip
    assert played == {"reach": 25, "drawer-close": 25}
    header = (Path("logs") / "continual_sac" / "MW-Cycle-v0_1" / "success_matrix.csv").read_text().splitlines()[0]
    assert header == "phase,task,reach,drawer-close"


@pytest.mark.parametrize(
    "algo, env, own",
    [
        ("nbsp_sac", ["--env", "Pendulum-v1"], {"skill_proportion", "mask_alpha", "mask_side", "replay_interval"}),
        ("continual_sac", ["--env", ENV_ID, "--env-kwargs", "steps_per_task:400", "cycles:1", "horizon:50"], set()),
    ],
)
def test_hyperparameter_search(algo, env, own, command, capsys):
    arguments = ["-optimize", "--n-trials", "1", "--n-jobs", "1", "--n-evaluations", "1", "--eval-episodes", "2", "-n", "250"]
    # A seed whose network is small
    command("train", "--algo", algo, *env, *arguments, "--seed", "6", "--no-optim-plots", "-params", "learning_starts:50")
    output = capsys.readouterr().out
    assert "Number of finished trials:  1" in output
    (report,) = (Path("logs") / algo).glob("report_*.csv")
    trials = pd.read_csv(report)
    assert list(trials["state"]) == ["COMPLETE"]
    sampled = {name.removeprefix("params_"): trials[name].item() for name in trials if name.startswith("params_")}
    assert own < set(sampled) and {"learning_rate", "net_arch"} < set(sampled)
    assert sampled["net_arch"] != "big", "choose another seed: this test is to be quick"
    # What was found can be trained with
    converted = HYPERPARAMS_CONVERTER[algo](sampled)
    model = rl_zoo3.ALGOS[algo]("MlpPolicy", gym.make("Pendulum-v1"), buffer_size=100, **converted)
    for name in own:
        assert getattr(model, name) == sampled[name]


@pytest.mark.slow
def test_tracking_with_weights_and_biases(tmp_path):
    pytest.importorskip("wandb")
    sequence = ["--env", ENV_ID, "--env-kwargs", "steps_per_task:25", "cycles:1", "horizon:25"]
    output = train_py("--algo", "nbsp_sac", *sequence, *PLAIN, "--track", "-tags", "test", cwd=tmp_path, WANDB_MODE="offline")
    assert "wandb sync" in output
    (offline,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"eval/ASR" in offline.read_bytes(), "what goes to TensorBoard goes there too"
    assert list((tmp_path / "runs").rglob("events.out.tfevents.*"))


# --- watching


def test_enjoy_plays_all_tasks_in_turn(trained, command, played, capsys):
    command("enjoy", "--algo", "nbsp_sac", "--env", ENV_ID, "-f", str(trained.logs), "--no-render", "-n", "200")
    # The run's own env_kwargs, episodes of 50 steps, still hold
    assert played == dict.fromkeys(TASKS, 100)
    output = capsys.readouterr().out
    assert "4 Episodes" in output and "Success rate: " in output
    assert re.findall("^Task: (.*)$", output, re.MULTILINE)[:4] == TASKS * 2


@pytest.mark.parametrize("more", [["--env-kwargs", "horizon:25"], [f"--env={ENV_ID}", "--env-kwargs=horizon:25"]])
def test_enjoy_adds_to_given_arguments_of_the_environment(more, trained, command, played):
    arguments = ["--algo", "nbsp_sac", "--env", ENV_ID, "-f", str(trained.logs), "--no-render", "-n", "50"]
    command("enjoy", *arguments, *more)
    assert played == dict.fromkeys(TASKS, 25)


def test_enjoy_tells_the_agent_which_task_it_plays(command, monkeypatch, recwarn):
    run = ["--algo", "packnet_sac", "--env", ENV_ID]
    command(
        "train",
        *run,
        "--env-kwargs",
        "steps_per_task:100",
        "cycles:1",
        "horizon:50",
        "--eval-freq",
        "-1",
        "-params",
        *SAC_PARAMS,
        "retrain_steps:0",
    )
    told, step = [], TaskSequence.step

    def compare(self, action):
        told[-1].add(self.task)
        return step(self, action)

    monkeypatch.setattr(TaskSequence, "step", compare)
    monkeypatch.setattr(PackNetSAC, "set_task", lambda self, task: told.append({task}) or ContinualSAC.set_task(self, task))
    command("enjoy", *run, "-f", "logs", "--no-render", "-n", "200")
    in_turn = [tasks for tasks, _ in itertools.groupby(told)]  # in one process, commands before this one tell tasks, too
    assert in_turn[:4] == [{TASKS[0]}, {TASKS[1]}] * 2, "each task is told before it is played"
    assert not [each for each in recwarn if "told" in str(each.message)]


@pytest.mark.parametrize(("name", "number"), [("enjoy", "-5"), ("enjoy", "0"), ("record_video", "0")])
def test_no_steps_to_play_are_an_error(name, number, command):
    with pytest.raises(ValueError, match=f"--n-timesteps must be 1 or more, not {number}"):
        command(name, "--algo", "nbsp_sac", "--env", "Pendulum-v1", "-n", number)


def test_enjoy_plays_the_sequence_on_demand(trained, command, played):
    arguments = ["--algo", "nbsp_sac", "--env", ENV_ID, "-f", str(trained.logs), "--no-render", "-n", "100"]
    command("enjoy", *arguments, "--env-kwargs", "rotate:False")
    assert played == {TASKS[0]: 100}


@pytest.mark.parametrize("which", [["--load-best"], ["--load-checkpoint", "300"], ["--load-last-checkpoint"]])
def test_enjoy_other_models_of_the_run(which, trained, command, capsys):
    command("enjoy", "--algo", "nbsp_sac", "--env", ENV_ID, "-f", str(trained.logs), "--no-render", "-n", "50", *which)
    assert "Mean reward: " in capsys.readouterr().out


@pytest.mark.parametrize("below", ["nbsp_sac", f"nbsp_sac/{ENV_ID}_1"])
def test_enjoy_says_which_folder_was_meant(below, trained, command):
    arguments = ["--algo", "nbsp_sac", "--env", ENV_ID, "-f", str(trained.logs / below), "--no-render"]
    with pytest.raises(ValueError, match=re.escape(f"folder was not found; did you mean -f {trained.logs.resolve()}, which")):
        command("enjoy", *arguments)


def test_enjoy_in_a_process_of_its_own(trained, tmp_path):
    arguments = ["--algo", "nbsp_sac", "--env", ENV_ID, "-f", str(trained.logs), "--no-render", "-n", "100"]
    output = sb3_nbsp("enjoy", *arguments, cwd=tmp_path)
    assert "2 Episodes" in output and "Success rate: " in output


@pytest.mark.slow
def test_record_video(trained, tmp_path):
    pytest.importorskip("moviepy")
    rendering = {"MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl")}
    probe = "import mujoco; mujoco.GLContext(64, 64).make_current()"
    done = subprocess.run(
        [sys.executable, "-c", probe], env=environment(**rendering), capture_output=True, text=True, timeout=60
    )
    if done.returncode != 0:
        pytest.skip(f"MuJoCo cannot render here: {done.stderr.strip().splitlines()[-1]}")
    arguments = ["--algo", "nbsp_sac", "--env", ENV_ID, "-f", str(trained.logs), "-o", "videos", "-n", "12"]
    sb3_nbsp("record_video", *arguments, "--env-kwargs", "horizon:6", cwd=tmp_path)
    (video,) = (tmp_path / "videos").glob("*.mp4")
    assert video.stat().st_size > 5_000
    from moviepy import VideoFileClip

    with VideoFileClip(str(video)) as clip:
        first, last = clip.get_frame(0), clip.get_frame(clip.duration - 1 / clip.fps)
    assert first.std() > 10, "not an empty picture"
    assert abs(first.astype(float) - last).mean() > 1, "another task at the end"
