"""
Try each extra alone: a fresh environment, the wheel, what pip finds today, and one real step or command.

``python tools/extras.py`` tries all of them, ``python tools/extras.py dmc plots`` these two, ``--in-turn`` one, another one
every day. The tests run where every extra is installed in the versions of ``constraints.txt``: a package that an extra forgets
to name, or a new release that breaks it, shows only here.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
NO_EXTRA = "none"

_STEP = """
import gymnasium as gym, sb3_nbsp
env = gym.make({env_id!r})
env.reset(seed=0)
env.step(env.action_space.sample())
"""
_BENCHMARK = """
import subprocess, sys
run = [sys.executable, "-m", "sb3_nbsp.benchmark", "run", "--envs", "CoffeeButton-HandlePress", "--methods",
       "continual_sac", "--seeds", "1", "--jobs", "1", "--env-kwargs", "steps_per_task:50", "horizon:25", "cycles:1",
       "--n-eval-episodes", "1", "--hyperparams", "learning_starts:20", "batch_size:16", "policy_kwargs:{'net_arch':[8]}",
       "--out", "out", *sys.argv[1:]]
"""
# By extra: Python code that has to work with it alone, run in an empty folder
TRIALS: dict[str, str] = {
    NO_EXTRA: """
import subprocess, sys
from sb3_nbsp import NBSPSAC, P3O
NBSPSAC("MlpPolicy", "Pendulum-v1", learning_starts=10, batch_size=8, policy_kwargs={"net_arch": [8]}).learn(20)
P3O("MlpPolicy", "CartPole-v1", n_steps=16, batch_size=8, n_epochs=1, policy_kwargs={"net_arch": [8]}).learn(16)
# What is missing is said, with the extra that has it
make = "import gymnasium, sb3_nbsp; gymnasium.make({!r})".format
for extra, command in (
    ("benchmark", ["-m", "sb3_nbsp.benchmark", "--help"]),
    ("benchmark", ["-c", "import sb3_nbsp.benchmark.comparison"]),
    ("plots", ["-c", "import sb3_nbsp.diagnostics.figure"]),
    ("zoo", ["-m", "sb3_nbsp.zoo.cli", "train", "--help"]),
    ("metaworld", ["-c", make("MW-WindowOpen-WindowClose-v0")]),
    ("mujoco", ["-c", make("CycleFriction-Hopper-v5")]),
    ("dmc", ["-c", make("DMC-hopper-hop-v0")]),
):
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert f"pip install 'sb3_nbsp[{extra}]'" in done.stderr, (command, done.stderr)
""",
    "zoo": """
import sys
from sb3_nbsp.zoo import cli
sys.argv = ["sb3-nbsp", "train", "--algo", "nbsp_sac", "--env", "Pendulum-v1", "-n", "30", "--eval-freq", "20",
            "--eval-episodes", "1", "-params", "learning_starts:10", "batch_size:8"]
cli.main()
""",
    "mujoco": _STEP.format(env_id="CycleFriction-Hopper-v5"),
    "metaworld": _STEP.format(env_id="MW-WindowOpen-WindowClose-v0"),
    "atari": """
import ale_py, gymnasium as gym
from stable_baselines3.common.env_util import make_atari_env
from sb3_nbsp import ContinualPPO
gym.register_envs(ale_py)
ContinualPPO("CnnPolicy", make_atari_env("PongNoFrameskip-v4"), n_steps=8, batch_size=8, n_epochs=1).learn(8)
""",
    "minatar": _STEP.format(env_id="MinAtar-Asterix-Freeway-v0"),
    "dmc": _STEP.format(env_id="DMC-hopper-hop-v0"),
    "plots": """
from pathlib import Path
from sb3_nbsp import P3O, PlasticityCallback
P3O("MlpPolicy", "Pendulum-v1", n_steps=16, batch_size=8, n_epochs=1).learn(32, PlasticityCallback(16, "run"))
assert Path("run/plasticity.png").stat().st_size > 1000
""",
    "benchmark": f"""{_BENCHMARK}
subprocess.run(run, check=True)
for command in ("table", "plot", "report"):
    subprocess.run([sys.executable, "-m", "sb3_nbsp.benchmark", command, "out"], check=True)
""",
    "full": _STEP.format(env_id="MW-WindowOpen-WindowClose-v0") + _STEP.format(env_id="Atari-Pong-Bowling-v0"),
    "ray": f"""{_BENCHMARK}
subprocess.run([*run, "--launcher", "ray"], check=True)
""",
    "tests": f"""
import subprocess, sys
subprocess.run([sys.executable, "-m", "pytest", "-q", "-n", "1", "{ROOT}/tests/neurons/test_scores.py"], check=True)
subprocess.run([sys.executable, "-m", "ruff", "check", "{ROOT}"], check=True)
""",
    "docs": f"""
import subprocess, sys
build = ["build", "--strict", "--quiet", "--config-file", "{ROOT}/mkdocs.yml", "--site-dir", "site"]
subprocess.run([sys.executable, "-m", "mkdocs", *build], check=True)
""",
}


def build(folder: str) -> Path:
    """
    Build the source distribution, and the wheel from that.

    :param folder: where to
    :return: the wheel
    """
    python = Path(folder) / "env" / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", f"{folder}/env"],
        [python, "-m", "pip", "install", "--quiet", "build"],
        [python, "-m", "build", "--outdir", f"{folder}/dist", ROOT],
    ):
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    (sdist,) = Path(folder, "dist").glob("*.tar.gz")
    (wheel,) = Path(folder, "dist").glob("*.whl")
    print(f"built {sdist.name} and {wheel.name}", flush=True)
    return wheel


def try_extra(name: str, constraint: str | None, wheel: Path) -> bool:
    """
    Install the package with one extra into an environment of its own and run its trial there, in an empty folder.

    :param name: one of ``TRIALS``
    :param wheel: the package
    :param constraint: a requirement that pip has to keep to, such as "torch==2.13.0"
    :return: whether it worked
    """
    if name == "dmc" and sys.version_info >= (3, 13):
        print("dmc: not tried, as this Python has no wheel of labmaze")
        return True
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"extra-{name}-") as folder:
        python = Path(folder) / "env" / "bin" / "python"
        (Path(folder) / "constraints.txt").write_text(f"{constraint or ''}\n", encoding="utf-8")
        (Path(folder) / "run").mkdir()
        (Path(folder) / "trial.py").write_text(TRIALS[name], encoding="utf-8")
        target = str(wheel) if name == NO_EXTRA else f"{wheel}[{name}]"
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PIP_CONSTRAINT")}
        steps = (
            [sys.executable, "-m", "venv", f"{folder}/env"],
            [python, "-m", "pip", "install", "--quiet", "--constraint", f"{folder}/constraints.txt", target],
            [python, f"{folder}/trial.py"],
        )
        for step in steps:
            done = subprocess.run(
                list(map(str, step)),
                cwd=f"{folder}/run",
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if done.returncode:
                print(f"{name}: FAILED after {time.monotonic() - start:.0f} s\n{done.stdout[-4000:]}", flush=True)
                return False
    print(f"{name}: works ({time.monotonic() - start:.0f} s)", flush=True)
    return True


def main() -> None:
    """Try the extras that the command line names; exit status 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help=f"some of {', '.join(TRIALS)} (default: all)")
    parser.add_argument("--in-turn", action="store_true", help="one of them, another one every day")
    parser.add_argument("--constraint", help="a requirement that pip has to keep to, such as torch==2.13.0")
    args = parser.parse_args()
    names: list[str] = args.extras or list(TRIALS)
    unknown = sorted(set(names) - set(TRIALS))
    if unknown:
        parser.error(f"there is no extra {', '.join(unknown)}; extras: {', '.join(TRIALS)}")
    if args.in_turn:
        names = [names[int(time.time() // 86_400) % len(names)]]
    with tempfile.TemporaryDirectory(prefix="wheel-") as folder:
        wheel = build(folder)
        failed = [name for name in names if not try_extra(name, args.constraint, wheel)]
    sys.exit(f"Failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
