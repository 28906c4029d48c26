from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from zoo_commands import ENV_ID, NBSP_PARAMS, SEQUENCE, train_py

from sb3_nbsp.zoo import cli


@dataclass
class TrainedRun:
    """What ``python train.py --algo nbsp_sac`` left behind."""

    cwd: Path

    @property
    def logs(self) -> Path:
        return self.cwd / "logs"

    @property
    def folder(self) -> Path:
        return self.logs / "nbsp_sac" / f"{ENV_ID}_1"

    @property
    def output(self) -> str:
        return (self.cwd / "output.txt").read_text()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> TrainedRun:
    """One run of two phases, trained once for all tests; not to be written to."""
    shared = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        shared = shared.parent
    run = TrainedRun(shared / "zoo-trained")
    with FileLock(shared / "zoo-trained.lock"):
        if not (run.cwd / "output.txt").exists():
            run.cwd.mkdir()
            arguments = ["--algo", "nbsp_sac", *SEQUENCE, "-params", *NBSP_PARAMS, "--seed", "3", "-P", "--save-freq", "300"]
            arguments += ["--save-replay-buffer", "--tensorboard-log", "tb", "--eval-freq", "250", "--eval-episodes", "2"]
            output = train_py(*arguments, cwd=run.cwd)
            (run.cwd / "output.txt").write_text(output)
    return run


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run a command of the zoo in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run_command(name: str, *arguments: str) -> None:
        monkeypatch.setattr("sys.argv", ["sb3-nbsp", name, *arguments])
        cli.main()

    return run_command
