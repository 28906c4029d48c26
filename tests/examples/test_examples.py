"""The examples, run as a reader of the README runs them."""

import csv
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from matplotlib.image import imread
from stable_baselines3 import PPO

from sb3_nbsp import P3O
from sb3_nbsp.tasks import SuccessMatrix, latest_checkpoint

ROOT = Path(__file__).parents[2]
METHODS = ["nbsp_sac", "continual_sac"]


def command(example: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "examples" / f"{example}.py"), *arguments]


def environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "COLUMNS": "80"}


def run(*arguments: str, cwd: Path, expected: int = 0) -> str:
    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=840,
    )
    assert done.returncode == expected, done.stdout[-6000:]
    return done.stdout


def processes_of(folder: Path) -> list[str]:
    """Command lines of the running processes that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [line for line in found if str(folder) in line and "sb3_nbsp.benchmark.train" in line]


def wait_for(condition, process: subprocess.Popen, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quick_demo_interrupted_and_started_again(tmp_path):
    folder = tmp_path / "out" / "demo-quick-seed2"
    arguments = ("demo", "--quick", "--seed", "2", "--out", "out")
    process = subprocess.Popen(
        command(*arguments),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    try:
        wait_for(lambda: all(latest_checkpoint(folder / algo / "seed_2") for algo in METHODS), process)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Interrupted. Start the demo again" in output and "Traceback" not in output
    deadline = time.monotonic() + 30
    while processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_of(folder), "it stops the runs that it has started"
    assert not (folder / "demo.png").exists()
    earlier = {algo: (folder / algo / "seed_2" / "training.csv").read_text().splitlines()[:2] for algo in METHODS}

    output = run(*arguments, cwd=tmp_path)
    # It says plainly, before and after, that this is no result
    assert re.search(r"NOTHING HAS BEEN\s+LEARNED", output.split("NBSP: success rate")[0])
    assert re.search(r"NOTHING HAS BEEN\s+LEARNED", output.split("Picture:")[1])
    # A table of each method, and the metrics of both
    for title in ("NBSP: success rate on each task", "vanilla SAC: success rate on each task"):
        assert title in output
    tasks = SuccessMatrix.load(folder / "nbsp_sac" / "seed_2" / "success_matrix.csv").tasks
    for phase, task in enumerate(tasks * 2):
        rows = re.findall(rf"^│ {phase + 1} \({task}\)\s+│ (\d\.\d\d)\s+│ (\d\.\d\d)\s+│$", output, re.MULTILINE)
        expected = [SuccessMatrix.load(folder / algo / "seed_2" / "success_matrix.csv").rows[phase] for algo in METHODS]
        assert [[float(rate) for rate in row] for row in rows] == [[round(rate, 2) for rate in row] for row in expected]
    for name, algo in (("NBSP", "nbsp_sac"), ("vanilla SAC", "continual_sac")):
        result = json.loads((folder / algo / "seed_2" / "result.json").read_text())
        metrics = r"\s+│ ".join(f"{result[metric]:.2f}" for metric in ("ASR", "FM", "FWT"))
        assert re.search(rf"^│ {name}\s+│ {metrics}\s+│ 800\s+│$", output, re.MULTILINE)
    # Nothing is cut off at 80 columns
    assert "…" not in output
    for algo in METHODS:
        with (folder / algo / "seed_2" / "training.csv").open() as file:
            steps = [int(row["step"]) for row in csv.DictReader(file)]
        assert steps == [200, 400, 600, 800]
        # The first start's episodes are not played again
        assert (folder / algo / "seed_2" / "training.csv").read_text().splitlines()[:2] == earlier[algo]
    assert imread(folder / "demo.png").shape[1] == 11 * 150

    # Started a third time it has nothing left to train
    start = time.monotonic()
    again = run(*arguments, cwd=tmp_path)
    assert again[again.index("NBSP: success rate") :] == output[output.index("NBSP: success rate") :]
    assert time.monotonic() - start < 60


def test_the_demo_says_why_a_run_failed(tmp_path):
    folder = tmp_path / "demo-quick-seed1"
    for algo in METHODS:
        checkpoint = folder / algo / "seed_1" / "checkpoint_200_steps"
        checkpoint.mkdir(parents=True)
        (checkpoint / "model.zip").write_text("not a zip")
    output = run("demo", "--quick", "--out", str(tmp_path), cwd=tmp_path, expected=1)
    for title in ("NBSP", "vanilla SAC"):
        assert f"{title}, seed 1: failed:" in output
    assert "has lost its config.json" in output.replace("\n", " ")
    assert not processes_of(tmp_path)


@pytest.fixture
def parsed(monkeypatch, capfd, tmp_path):
    """Run an example with arguments at which it ends, in this process: what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run_example(example: str, *arguments: str, expected: int = 0) -> str:
        monkeypatch.setattr("sys.argv", command(example, *arguments)[1:])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / "examples" / f"{example}.py"), run_name="__main__")
        assert (stopped.value.code or 0) == expected
        return "".join(capfd.readouterr())

    return run_example


@pytest.mark.parametrize("example", ["demo", "p3o_halfcheetah", "plasticity", "skill_neurons"])
def test_help_shows_the_defaults(example, parsed, tmp_path):
    output = parsed(example, "--help")
    options = re.findall(r"^  (--[a-z-]+)", output, re.MULTILINE)
    assert options
    for option in options:
        assert re.search(rf"{option}\s[^(]*\(default:\s+\S", output), f"{option} has no default"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "example, arguments, error",
    [
        ("demo", ["--seed", "one"], "argument --seed: invalid int value: 'one'"),
        ("demo", ["--quik"], "unrecognized arguments: --quik"),
        ("plasticity", ["--algo", "sac"], "argument --algo: invalid choice: 'sac'"),
        ("p3o_halfcheetah", ["--steps", "many"], "argument --steps: invalid int value: 'many'"),
        ("skill_neurons", ["--tasks", "drawer-close"], "argument --tasks: expected 2 arguments"),
    ],
)
def test_a_wrong_argument_is_an_error(example, arguments, error, parsed, tmp_path):
    output = parsed(example, *arguments, expected=2)
    assert f"{example}.py: error: {error}" in output
    assert not list(tmp_path.iterdir())


def test_skill_neurons_prints_what_it_found(tmp_path):
    arguments = [
        "--tasks",
        "reach",
        "drawer-close",
        "--steps-per-task",
        "300",
        "--learning-starts",
        "200",
        "--identification-steps",
        "400",
        "--eval-episodes",
        "1",
    ]
    output = run("skill_neurons", *arguments, cwd=tmp_path)
    assert "phase 1 of 2 (reach) is over" in output and "phase 2 of 2 (drawer-close) is over" in output
    networks = {}
    for line in re.findall(r"^\w+: \d+ skill neurons .*$", output, re.MULTILINE):
        network, rest = line.split(": ")
        networks[network] = [int(number) for number in re.findall(r"\d+", rest)]
    # 20 % of 512, or fewer where the others are dead
    assert set(networks) == {"actor", "qf0", "qf1"}
    for first, second, shared in networks.values():
        assert 0 < first <= 102 and 0 < second <= 102 and 0 <= shared <= min(first, second)


@pytest.mark.slow
def test_plasticity_of_a_trained_and_of_a_loaded_agent(tmp_path):
    output = run("plasticity", "--env", "Pendulum-v1", "--steps", "1000", "--out", "out", cwd=tmp_path)
    assert "PPO on Pendulum-v1: 512 hidden neurons, 2048 states" in output
    assert re.search(r"│ dormant_ratio\s+│ 0", output) and re.search(r"│ gradient_norm\s+│ \d", output)
    assert "Picture: out/plasticity.png" in output
    imread(tmp_path / "out" / "plasticity.png")

    p3o = P3O("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [7, 5]})
    p3o.save(tmp_path / "agent")
    arguments = ("--env", "Pendulum-v1", "--algo", "p3o", "--model", "agent.zip", "--out", "loaded")
    output = run("plasticity", *arguments, cwd=tmp_path)
    assert "agent on Pendulum-v1: 12 hidden neurons, 2048 states" in output
    imread(tmp_path / "loaded" / "plasticity.png")


@pytest.mark.slow
def test_p3o_against_ppo(tmp_path):
    output = run("p3o_halfcheetah", "--steps", "600", "--out", "out", cwd=tmp_path)
    assert "HalfCheetah-v5 after 600 steps, one seed" in output
    # Three rollouts of 256, a reset of 5 % of each layer after each but the last one's row
    assert re.search(r"│ PPO │ .* │ 0\.00\s+│", output) and re.search(r"│ P3O │ .* │ 0\.10\s+│", output)
    imread(tmp_path / "out" / "p3o_halfcheetah.png")
    for name, kind in (("PPO", PPO), ("P3O", P3O)):
        assert kind.load(tmp_path / "out" / name / "model").num_timesteps == 768
    # The same start, and the same first rollout
    rows = [(tmp_path / "out" / name / "plasticity.csv").read_text().splitlines()[1] for name in ("PPO", "P3O")]
    assert rows[0].split(",")[:8] == rows[1].split(",")[:8]
