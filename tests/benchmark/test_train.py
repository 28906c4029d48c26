"""A benchmark run: killed, continued, finished, and not run again."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from filelock import FileLock, Timeout
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.vec_env import VecNormalize

from sb3_nbsp.benchmark import train as module
from sb3_nbsp.benchmark.callbacks import Progress
from sb3_nbsp.benchmark.folder import RunFolder
from sb3_nbsp.benchmark.settings import Settings
from sb3_nbsp.benchmark.train import continue_or_start, train
from sb3_nbsp.tasks import SuccessMatrix, latest_checkpoint

ROOT = Path(__file__).parents[2]
ENV_ID = "MW-CoffeeButton-DrawerClose-laptop-v0"
TASKS = ["coffee-button", "drawer-close"]
# Four phases of four episodes
ENV_KWARGS = {"steps_per_task": 200, "horizon": 50}
SAC = {"policy_kwargs": {"net_arch": [32, 32]}, "learning_starts": 50, "batch_size": 32, "buffer_size": 1000}
HYPERPARAMS = {"sac": SAC, "continual_sac": SAC, "nbsp_sac": {**SAC, "identification_steps": 100, "memory_size": 100}}
EPISODE_ENDS = list(range(50, 801, 50))


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def settings(
    algo: str, seed: int = 1, hyperparams: dict[str, Any] | None = None, n_eval_episodes: int = 1, **env_kwargs: Any
) -> Settings:
    options, kwargs = HYPERPARAMS[algo] if hyperparams is None else hyperparams, {**ENV_KWARGS, **env_kwargs}
    return Settings.resolve(algo, ENV_ID, seed, kwargs, options, n_eval_episodes=n_eval_episodes, save_freq=100)


def read_matrix(folder: Path) -> SuccessMatrix:
    return RunFolder(folder).matrix()


def command(algo: str, folder: Path) -> list[str]:
    plain = json.dumps(asdict(settings(algo)))
    return [sys.executable, "-m", "sb3_nbsp.benchmark.train", "--folder", str(folder), "--settings", plain]


def environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def steps(checkpoint: Path | None) -> int:
    return 0 if checkpoint is None else int(checkpoint.name.split("_")[1])


def kill_in_third_phase(algo: str, folder: Path) -> None:
    process = subprocess.Popen(command(algo, folder), env=environment())
    deadline = time.monotonic() + 120
    try:
        while steps(latest_checkpoint(folder)) < 500:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module", params=["nbsp_sac", "sac"])
def killed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """A run that was killed in its third phase, as it was then, and after it was started again. Not to be written to."""
    algo = request.param
    folder, then = (tmp_path_factory.mktemp(algo) / name for name in ("run", "then"))
    kill_in_third_phase(algo, folder)
    shutil.copytree(folder, then)
    train(settings(algo), RunFolder(folder))
    return algo, then, folder


def test_it_was_killed_in_the_middle(killed):
    algo, then, _ = killed
    assert not (then / "result.json").exists() and not (then / "model.zip").exists()
    assert len(read_matrix(then).rows) == 2
    assert 500 <= steps(latest_checkpoint(then)) < 800
    files = {"model.zip", "replay_buffer.pkl", "position.json", *(["random_states.pt"] if algo == "sac" else [])}
    assert {path.name for path in latest_checkpoint(then).iterdir()} == files


def test_started_again_it_has_all_phases_once(killed):
    _, then, folder = killed
    before, after = read_matrix(then), read_matrix(folder)
    assert after.phase_tasks == TASKS * 2
    assert after.rows[:2] == before.rows[:2], "phases that were over are not evaluated again"


def test_started_again_it_has_every_episode_once(killed):
    _, then, folder = killed
    rows = read_rows(folder / "training.csv")
    assert [int(row["step"]) for row in rows] == EPISODE_ENDS
    assert [int(row["phase"]) for row in rows] == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    assert [row["task"] for row in rows] == [TASKS[phase % 2] for phase in (0, 1, 2, 3) for _ in range(4)]
    start = steps(latest_checkpoint(then)) // 50
    assert rows[:start] == read_rows(then / "training.csv")[:start]


def test_the_result_is_that_of_the_matrix(killed):
    _, _, folder = killed
    result = json.loads((folder / "result.json").read_text())
    assert {name: result[name] for name in ("ASR", "FM", "FWT")} == read_matrix(folder).metrics()
    assert result["steps"] == 800
    assert (folder / "model.zip").exists()
    progress = json.loads((folder / "progress.json").read_text())
    assert progress["completed"] == progress["total"] == 4 and progress["step"] in (800, 801)  # SB3's SAC ends a step later
    assert len(list(folder.glob("checkpoint_*"))) == 1, "older checkpoints are removed"
    assert {path.name for path in folder.glob(".*")} == {".lock"}, "leftovers of the killed run are removed"


def test_a_finished_run_is_not_run_again(killed, monkeypatch):
    algo, _, folder = killed
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    monkeypatch.setattr(module, "continue_or_start", None)
    result = train(settings(algo), RunFolder(folder))
    assert result == json.loads((folder / "result.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_it_ends_as_if_it_had_not_been_killed(killed, tmp_path):
    algo, _, folder = killed
    train(settings(algo), RunFolder(tmp_path / "run"))
    for name in ("success_matrix.csv", "training.csv", *(["neurons.json"] if algo == "nbsp_sac" else [])):
        assert (folder / name).read_text() == (tmp_path / "run" / name).read_text()
    once, twice = (load_from_zip_file(path / "model.zip")[1] for path in (tmp_path / "run", folder))
    assert once["policy"].keys() == twice["policy"].keys()
    assert all(th.equal(tensor, twice["policy"][name]) for name, tensor in once["policy"].items())


def test_another_run_is_not_continued(killed, tmp_path):
    algo, then, _ = killed
    shutil.copytree(then, tmp_path / "run")
    before = (tmp_path / "run" / "training.csv").read_text()
    with pytest.raises(ValueError, match=r"holds a run with other settings \(seed, n_eval_episodes\)"):
        train(settings(algo, seed=2, n_eval_episodes=3), RunFolder(tmp_path / "run"))
    assert (tmp_path / "run" / "training.csv").read_text() == before


def test_only_one_process_is_at_a_run(killed, tmp_path):
    algo, then, _ = killed
    shutil.copytree(then, tmp_path / "run")
    with FileLock(tmp_path / "run" / ".lock"), pytest.raises(Timeout):
        train(settings(algo), RunFolder(tmp_path / "run"))
    with FileLock(tmp_path / "run" / ".lock"):
        busy = subprocess.run(command(algo, tmp_path / "run"), env=environment(), capture_output=True, text=True)
    assert busy.returncode == module.BUSY and "Another process is at this run" in busy.stderr
    assert not (tmp_path / "run" / "error.txt").exists()


def test_a_run_killed_before_its_result_was_written(killed, tmp_path):
    """After the last phase, the last checkpoint may or may not be of its end."""
    algo, _, folder = killed
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    (again / "result.json").unlink()
    result = train(settings(algo), RunFolder(again))
    assert result["steps"] == 800
    assert {name: result[name] for name in ("ASR", "FM", "FWT")} == read_matrix(again).metrics()
    assert read_matrix(again).phase_tasks == TASKS * 2
    assert [int(row["step"]) for row in read_rows(again / "training.csv")] == EPISODE_ENDS


class Killed(Exception):
    """In place of a signal."""


def run_until(
    step: int, given: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch, first_phase: RunFolder | None = None
) -> None:
    """Compute a run in this process, and break it off."""

    def on_step(self: Progress) -> bool:
        if self.num_timesteps >= step:
            raise Killed
        return True

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Progress, "_on_step", on_step)
        train(given, RunFolder(folder), first_phase)


def test_with_gsde_and_normalization_too_it_ends_as_if_it_had_not_been_killed(tmp_path, monkeypatch):
    """gSDE draws random numbers of its own at the start of every rollout, and every reset moves the normalization."""
    given = settings("continual_sac", hyperparams={**SAC, "use_sde": True, "normalize": True}, steps_per_task=100)
    for step in (135, 355):
        run_until(step, given, tmp_path / "killed", monkeypatch)
    train(given, RunFolder(tmp_path / "killed"))
    train(given, RunFolder(tmp_path / "whole"))
    once, twice = (load_from_zip_file(tmp_path / name / "model.zip")[1]["policy"] for name in ("whole", "killed"))
    assert all(th.equal(tensor, twice[name]) for name, tensor in once.items())
    folders = tmp_path / "whole", tmp_path / "killed"
    whole, killed = (VecNormalize.load(str(folder / "vecnormalize.pkl"), make_vec_env(ENV_ID)) for folder in folders)
    assert whole.gamma == 0.99 and 400 < whole.obs_rms.count == killed.obs_rms.count
    assert np.array_equal(whole.obs_rms.mean, killed.obs_rms.mean) and whole.ret_rms.var == killed.ret_rms.var


def test_a_setting_that_did_not_work_can_be_mended(tmp_path):
    short = {"steps_per_task": 50, "cycles": 1}
    with pytest.raises(ValueError, match="NoPolicy"):
        train(settings("sac", hyperparams={**SAC, "policy": "NoPolicy"}, **short), RunFolder(tmp_path))
    assert "NoPolicy" in (tmp_path / "error.txt").read_text()
    result = train(settings("sac", **short), RunFolder(tmp_path))
    assert result["steps"] == 100 and not (tmp_path / "error.txt").exists()
    assert "NoPolicy" not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("horizon", [100, 200])
def test_episodes_longer_than_phases_are_an_error(tmp_path, horizon):
    """The steps of a run are bounded by twice those of its phases, which suffice where an episode fits into a phase."""
    short = settings("nbsp_sac", steps_per_task=30, cycles=1, horizon=horizon)
    with pytest.raises(
        ValueError, match=r"in phase . after 120 steps, .* longer than its phases\. Give the phases more steps"
    ):
        train(short, RunFolder(tmp_path))
    assert "longer than its phases" in (tmp_path / "error.txt").read_text()
    assert not RunFolder(tmp_path).is_done


def test_a_new_error_takes_the_place_of_the_old_one(killed, tmp_path):
    algo, then, _ = killed
    shutil.copytree(then, tmp_path / "run")
    (tmp_path / "run" / "error.txt").write_text("something old")
    (tmp_path / "run" / ".99-model.zip").write_text("half a file")
    with pytest.raises(ValueError, match="other settings"):
        train(settings(algo, seed=2), RunFolder(tmp_path / "run"))
    assert "other settings" in (tmp_path / "run" / "error.txt").read_text()
    assert not (tmp_path / "run" / ".99-model.zip").exists()


@pytest.mark.parametrize("lost", ["config.json", "success_matrix.csv"])
def test_a_folder_that_lost_a_part_is_not_continued(lost, killed, tmp_path):
    algo, then, _ = killed
    shutil.copytree(then, tmp_path / "run")
    path = tmp_path / "run" / lost
    if lost == "config.json":
        path.unlink()
    else:
        path.write_text("\n".join(path.read_text().splitlines()[:2]) + "\n")
    with pytest.raises(ValueError, match=r"has lost .* delete the folder to begin anew"):
        train(settings(algo), RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_killed_run_continues_with_its_buffer_and_position(tmp_path, monkeypatch):
    """In one process, so that one can look inside: the run ends in phase 2, and its second start is where it was."""
    folder = tmp_path / "run"
    run_until(350, settings("nbsp_sac"), folder, monkeypatch)
    assert not (folder / "result.json").exists(), "a run that is not over has no result"
    model = continue_or_start(settings("nbsp_sac"), RunFolder(folder))
    assert model.num_timesteps == 300
    assert (model.phase.index, model.phase.task, model.phase_steps) == (1, TASKS[1], 100)
    assert model.replay_buffer.size() == 100, "emptied at the phase's start"
    masking, replay = model.all_interventions
    assert masking.masks and replay.memory.tasks == {TASKS[0]: 100}
    assert model.seed == 1, "of which the interventions' own random numbers follow"


def test_an_unknown_algorithm_is_an_error():
    with pytest.raises(ValueError, match=r"algo must be one of 'nbsp_sac', 'continual_sac', .*, not 'nbsp'"):
        Settings.resolve("nbsp", ENV_ID, 1)


def test_options_must_be_plain():
    with pytest.raises(ValueError, match="Options must be numbers, strings, lists or dictionaries"):
        Settings.resolve("sac", ENV_ID, 1, hyperparams={"policy": object()})


def test_a_tuple_survives_json():
    resolved = Settings.resolve("sac", ENV_ID, 1, hyperparams={"train_freq": (1, "episode")})
    assert resolved.hyperparams["train_freq"] == [1, "episode"]
    assert Settings(**json.loads(json.dumps(asdict(resolved)))).arguments()["train_freq"] == (1, "episode")


def test_the_command_line_takes_json(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train", "--folder", "x", "--settings", "{"])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    assert stopped.value.code == 2
    assert "--settings" in capsys.readouterr().err


def test_the_command_line_hands_everything_on(monkeypatch, tmp_path):
    handed_on = []
    monkeypatch.setattr(module, "train", lambda *given: handed_on.append((given[0], given[1].path, given[2])))
    monkeypatch.setattr(module.th, "set_num_threads", lambda number: handed_on.append(number))
    monkeypatch.setattr("sys.argv", command("sac", tmp_path)[2:])
    module.main()
    assert handed_on == [1, (settings("sac"), tmp_path, None)]
