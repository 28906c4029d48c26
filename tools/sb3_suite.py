"""
Run Stable-Baselines3's own tests with this package's agents in the place of its SAC and PPO.

The tests come from SB3's source distribution, of the version that is installed. What fails is run again with SB3's own agents:
a test that they pass and ours do not is a difference, and has to be one of those that are listed here with their reason.

Both pairs of agents run the same tests; ``--in-turn`` takes one of them, the other one on the next day.

As a plugin of pytest this module exchanges the names before SB3's tests import them.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from stable_baselines3 import PPO as RealPPO
from stable_baselines3 import SAC as RealSAC
from stable_baselines3.common.base_class import BaseAlgorithm

ROOT = Path(__file__).parent.parent
REPORT = "SB3_SUITE_REPORT"  # file for the tests that fail
AGENTS = "SB3_SUITE_AGENTS"  # names of the agents in the place of SAC and PPO; unset: SB3's own

# By agents: how they differ from SB3, as a regular expression that finds test and error, and why
DIFFERENCES: dict[tuple[str, str], dict[str, str]] = {
    ("ContinualSAC", "ContinualPPO"): {
        r"You are trying to run ContinualPPO on the GPU": "SB3's message has the name of the class",
    },
    ("NBSPSAC", "P3O"): {
        r"You are trying to run P3O on the GPU": "SB3's message has the name of the class",
        r"no hidden layer": "masks and resets need a hidden layer of the actor's own",
        r"n_steps=\d needs transitions that follow each other": "n-step returns are refused with a memory",
        r"its running statistics belong to no neuron": "batch norms that belong to no neuron are refused with masks",
        r"test_vec_monitor_ppo.*renews no neuron": "the test wants no warning, and this budget is below reset_frequency",
        r"test_(warn|save_load_replay)_buffer.*1 = len\(": "the test wants no warning; without phases NBSPSAC does not act",
    },
}

if AGENTS in os.environ:
    import stable_baselines3
    import stable_baselines3.ppo
    import stable_baselines3.sac

    import sb3_nbsp

    sac, ppo = (getattr(sb3_nbsp, name) for name in os.environ[AGENTS].split(","))
    for module in (stable_baselines3, stable_baselines3.sac, stable_baselines3.ppo):
        vars(module).update({name: cls for name, cls in {"SAC": sac, "PPO": ppo}.items() if hasattr(module, name)})


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests that SAC or PPO take part in."""
    kept = [item for item in items if _takes_part(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write down what failed."""
    if report.failed and REPORT in os.environ and "PYTEST_XDIST_WORKER" not in os.environ:
        crash = getattr(report.longrepr, "reprcrash", None)
        with open(os.environ[REPORT], "a", encoding="utf-8") as file:
            file.write(json.dumps([report.nodeid, str(report.longrepr if crash is None else crash.message)[:1000]]) + "\n")


def _takes_part(item: pytest.Item) -> bool:
    """Whether a test has SAC or PPO among its parameters or names them in its body."""
    assert isinstance(item, pytest.Function)
    parameters = list(item.callspec.params.values()) if hasattr(item, "callspec") else []
    parameters += [part for value in parameters if isinstance(value, (tuple, list)) for part in value]
    agents = [value for value in parameters if isinstance(value, type) and issubclass(value, BaseAlgorithm)]
    if agents:
        return any(issubclass(agent, (RealSAC, RealPPO)) for agent in agents)
    body = inspect.getsource(item.function).split(f"def {item.function.__name__}(", 1)[-1]
    return re.search(r"\b(SAC|PPO)\b", body + str(parameters)) is not None


def fetch_tests(folder: Path) -> Path:
    """
    Download the source distribution of the installed SB3 and unpack its tests, unless they are there.

    :param folder: where to
    :return: the folder of the tests
    """
    name = f"stable_baselines3-{version('stable_baselines3')}"
    tests = folder / name / "tests"
    if not tests.is_dir():
        requirement = f"stable_baselines3=={version('stable_baselines3')}"
        download = ["download", "--quiet", "--no-binary", ":all:", "--no-deps", "--dest", str(folder), requirement]
        subprocess.run([sys.executable, "-m", "pip", *download], check=True)
        with tarfile.open(folder / f"{name}.tar.gz") as archive:
            members = [member for member in archive.getmembers() if member.name.startswith(f"{name}/tests/")]
            # The folder is complete or not there
            archive.extractall(folder / "unpacked", members, filter="data")
        tests.parent.mkdir(exist_ok=True)
        (folder / "unpacked" / name / "tests").rename(tests)
        shutil.rmtree(folder / "unpacked")
    return tests


def failures(tests: Path, agents: tuple[str, str] | None, chosen: list[str]) -> dict[str, str]:
    """
    Run tests.

    :param tests: the folder of SB3's tests
    :param agents: names of the agents in the place of SAC and PPO; None for SB3's own
    :param chosen: ids of tests; empty for all
    :return: id and error of each test that failed
    """
    paths = [str(ROOT), str(ROOT / "tools"), *filter(None, [os.environ.get("PYTHONPATH")])]
    options = ["-p", "sb3_suite", "-q", "-n", "2", "--tb=no", "-W", "ignore", "-o", "addopts=", "--rootdir", "."]
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as report:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", REPORT: report.name}
        environment.pop(AGENTS, None)
        if agents is not None:
            environment[AGENTS] = ",".join(agents)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *(chosen or ["."])],
            cwd=tests,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        found = dict(json.loads(line) for line in report)
    print(done.stdout.strip().splitlines()[-1], flush=True)
    if done.returncode not in (0, 1):
        sys.exit(done.stdout[-4000:])
    return found


def unlisted(tests: Path, agents: tuple[str, str], chosen: list[str]) -> list[str]:
    """
    Compare agents with SB3's own.

    :param tests: the folder of SB3's tests
    :param agents: names of the agents in the place of SAC and PPO
    :param chosen: files or ids of tests; empty for all
    :return: what should not be: tests that SB3's agents pass and these do not, for no listed reason; and listed reasons for
        which no test fails
    """
    print(f"{' and '.join(agents)} in the place of SAC and PPO: ", end="", flush=True)
    failed, reasons = {}, {pattern: 0 for pattern in DIFFERENCES[agents]}
    for test, error in failures(tests, agents, chosen).items():
        pattern = next((each for each in reasons if re.search(each, f"{test}: {error}", re.DOTALL)), None)
        if pattern is not None:
            reasons[pattern] += 1
            continue
        for name, sb3_name in zip(agents, ("SAC", "PPO"), strict=True):
            test = test.replace(name, sb3_name)
        failed[test] = error
    for pattern, number in reasons.items():
        print(f"  {number} tests: {DIFFERENCES[agents][pattern]}")
    wrong = (
        [] if chosen else [f"no test fails for this reason: {pattern}" for pattern, number in reasons.items() if not number]
    )
    if failed:
        print("  what else failed, with SB3's own: ", end="", flush=True)
        also_in_sb3 = failures(tests, None, list(failed))
        wrong += [f"{test}: {error}" for test, error in failed.items() if test not in also_in_sb3]
    return wrong


def main() -> None:
    """Run the tests for the pairs of agents; exit status 1 if a difference is not listed, or a listed one is none."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("tests", nargs="*", help="files or ids of tests (default: all)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "sb3", help="for the tests that are downloaded")
    parser.add_argument("--in-turn", action="store_true", help="one pair of agents, the other one on the next day")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    tests = fetch_tests(args.folder.resolve())
    pairs = list(DIFFERENCES)
    if args.in_turn:
        pairs = [pairs[int(time.time() // 86_400) % len(pairs)]]
    is_wrong = False
    for agents in pairs:
        for line in unlisted(tests, agents, args.tests):
            is_wrong = True
            print(f"  NOT LISTED: {line}", flush=True)
    sys.exit(is_wrong)


if __name__ == "__main__":
    main()
