"""What tasks may be called, and that any such name comes through files and logs."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scripted_tasks import ScriptedTask
from stable_baselines3 import PPO
from stable_baselines3.common.logger import configure

from sb3_nbsp import ContinualSAC
from sb3_nbsp.tasks import (
    SequenceCheckpoint,
    SequenceEvaluation,
    SuccessMatrix,
    TaskSequence,
    latest_checkpoint,
    load_checkpoint,
)
from sb3_nbsp.tasks.episode_log import read_rows

LONG = "a-name-of-more-than-thirty-characters-that-ends-with-{}"


def sequence(names: Sequence[Any]) -> TaskSequence:
    makers = {name: lambda render_mode: ScriptedTask(success=lambda *_: True) for name in names}
    return TaskSequence(makers, mastery_window=3)


@pytest.mark.parametrize(
    "names",
    [
        ("goal (0, 1)", "goal (1, 0)"),
        ('12" arm', "it's"),
        (" near", "far "),
        (0, 1),
        (1.5, True),
        ("door/open", "door/close"),
        ("Tür auf", "Tür zu"),
        ("task", "success"),
        (LONG.format("a"), LONG.format("b")),
    ],
)
def test_a_run_with_these_names_continues_from_its_checkpoint(tmp_path: Path, names: Sequence[Any]) -> None:
    def callbacks() -> list[Any]:
        return [SequenceEvaluation(tmp_path, 1, progress_bar=False), SequenceCheckpoint(4, tmp_path)]

    options = {"learning_starts": 4, "batch_size": 4, "buffer_size": 99, "policy_kwargs": {"net_arch": [4]}, "device": "cpu"}
    ContinualSAC("MlpPolicy", sequence(names), **options).learn(15, callbacks())
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    model = load_checkpoint(ContinualSAC, checkpoint, sequence(names), device="cpu")
    model.set_logger(configure(str(tmp_path / "log"), ["stdout", "csv", "log"]))
    model.learn(100, callbacks(), reset_num_timesteps=False)

    written = [str(name) for name in names]
    matrix = SuccessMatrix.load(tmp_path / "success_matrix.csv")
    assert (matrix.tasks, matrix.phase_tasks, matrix.rows) == (written, written * 2, [[1, 1]] * 4)
    tasks = [written[0]] * 3 + [written[1]] * 3
    assert [row[2] for row in read_rows(tmp_path / "training.csv")] == tasks * 2
    assert model.phase.task == written[1]
    header = (tmp_path / "log" / "progress.csv").read_text(encoding="utf-8").splitlines()[0]
    assert all(f"eval/{name}" in header for name in written)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", ""], "printable text in one line, not ''"),
        (["a", "  "], "printable text in one line, not '  '"),
        (["a", "b\nc"], r"printable text in one line, not 'b\\nc'"),
        (["a", "b\tc"], "printable text in one line"),
        ([1, "1"], r"\['1'\] are there more than once"),
    ],
)
def test_names_that_files_and_logs_cannot_hold_are_refused(names: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sequence(names)


def test_a_name_that_a_metric_has_is_refused_at_the_start() -> None:
    model = PPO("MlpPolicy", sequence(["ASR", "b"]), n_steps=4, batch_size=4, device="cpu")
    with pytest.raises(ValueError, match=r"No task can have the name 'ASR'"):
        model.learn(8, SequenceEvaluation(progress_bar=False))
    assert model.num_timesteps == 0


def test_a_text_is_no_list_of_tasks() -> None:
    with pytest.raises(ValueError, match="tasks must be a list of task names, not 'ab'"):
        TaskSequence({"a": ScriptedTask, "b": ScriptedTask}, tasks="ab")


def test_tasks_may_be_given_as_numbers() -> None:
    env = TaskSequence({0: ScriptedTask, 1: ScriptedTask}, tasks=[1, 0, 1])
    assert env.tasks == ["1", "0", "1"]
    assert env.reset()[1]["task"] == "1"


WITHOUT_UTF8 = """
import warnings
from pathlib import Path
from sb3_nbsp.benchmark.folder import RunFolder
from sb3_nbsp.benchmark.frames import episodes_frame
from sb3_nbsp.files import atomic_write
from sb3_nbsp.tasks.episode_log import EpisodeLog, read_rows
name = "T\\u00fcr"
log = EpisodeLog("training.csv")
log.add([2, 0, name, True, 1.0, 2])
assert [row[2] for row in read_rows("training.csv")] == [name]
assert EpisodeLog("training.csv", 1) and episodes_frame(RunFolder(".")).task[0] == name
assert name in Path("training.csv").read_text(encoding="utf-8")
"""


def test_names_with_umlauts_are_written_where_the_system_is_not_utf8(tmp_path: Path) -> None:
    environment = {"PATH": "", "PYTHONPATH": ":".join(sys.path), "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-W", "error::EncodingWarning:sb3_nbsp", "-X", "warn_default_encoding", "-c", WITHOUT_UTF8]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_text_file_is_opened_without_an_encoding() -> None:
    import ast

    import sb3_nbsp

    root = Path(sb3_nbsp.__file__).parent
    found = []
    for path in root.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(call.func, "attr", getattr(call.func, "id", "")) if isinstance(call, ast.Call) else ""
            if name in ("read_text", "write_text", "open"):
                modes = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
                is_binary = any("b" in mode for mode in modes)
                is_binary |= getattr(getattr(call.func, "value", None), "id", "") == "archive"  # members of a zip are bytes
                if not is_binary and "encoding" not in [keyword.arg for keyword in call.keywords]:
                    found.append(f"{path.relative_to(root)}:{call.lineno}")
    assert found == []
