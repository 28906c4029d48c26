"""``train.py`` from end to end: what a run on a task sequence leaves behind, and how it is continued."""

import csv
import math
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch as th
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from zoo_commands import ENV_ID, NBSP_PARAMS, ROOT, SAC_PARAMS, SEQUENCE, TASKS, environment, train_py

from sb3_nbsp import NBSPSAC
from sb3_nbsp.interventions import ExperienceReplay, GradientMasking
from sb3_nbsp.tasks import SuccessMatrix, TaskSequence

EPISODE_ENDS = list(range(50, 801, 50))
CHECKPOINTS = ["rl_model_300_steps.zip", "rl_model_600_steps.zip"]


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def masks(model: NBSPSAC) -> dict[str, th.Tensor]:
    return model.all_interventions.find(GradientMasking).masks


def as_if_killed(trained, folder: Path) -> Path:
    """The run's folder as it was after its last checkpoint, in phase 2."""
    shutil.copytree(trained.folder, folder)
    (folder / f"{ENV_ID}.zip").unlink()
    (folder / "replay_buffer.pkl").unlink()
    return folder


def test_a_run_writes_its_files(trained):
    found = {path.name for path in trained.folder.iterdir()}
    expected = {f"{ENV_ID}.zip", "replay_buffer.pkl", "success_matrix.csv", "training.csv", "0.monitor.csv"}
    expected |= {"evaluations.npz", "best_model.zip", ENV_ID, *CHECKPOINTS}
    # Of the checkpoints' buffers only the last one stays
    expected.add("rl_model_replay_buffer_600_steps.pkl")
    assert found == expected
    assert {path.name for path in (trained.folder / ENV_ID).iterdir()} == {"args.yml", "config.yml", "command.txt"}
    assert not list(trained.cwd.rglob(".*")), "leftovers of files that were being written"


def test_the_evaluation_after_a_phase_has_as_many_episodes_as_given(trained):
    """Two for each task."""
    assert re.search(r"evaluation after phase 1:.* 0/4 \[", trained.output)


def test_a_run_keeps_its_arguments(trained):
    arguments = dict(yaml.unsafe_load((trained.folder / ENV_ID / "args.yml").read_text()))
    assert (arguments["algo"], arguments["env"], arguments["seed"]) == ("nbsp_sac", ENV_ID, 3)
    assert arguments["env_kwargs"] == {"steps_per_task": 400, "cycles": 1, "horizon": 50}
    config = dict(yaml.unsafe_load((trained.folder / ENV_ID / "config.yml").read_text()))
    # From the command line, and from the YAML
    assert (config["memory_size"], config["learning_starts"]) == (150, 100)
    assert (config["reset_ent_coef"], config["goal_metric"]) == (True, "step_success")


def test_success_matrix_has_a_row_per_phase(trained):
    rows = read_rows(trained.folder / "success_matrix.csv")
    assert [row["phase"] for row in rows] == ["0", "1"]
    assert [row["task"] for row in rows] == TASKS
    for row in rows:
        assert all(0 <= float(row[task]) <= 1 for task in TASKS)


def test_training_log_has_every_episode(trained):
    rows = read_rows(trained.folder / "training.csv")
    assert [int(row["step"]) for row in rows] == EPISODE_ENDS
    assert [row["task"] for row in rows] == [TASKS[0]] * 8 + [TASKS[1]] * 8
    assert [row["phase"] for row in rows] == ["0"] * 8 + ["1"] * 8
    assert {row["length"] for row in rows} == {"50"}
    assert {row["success"] for row in rows} <= {"True", "False"}
    # The same episodes as in the zoo's own log
    monitor = [float(line.split(",")[0]) for line in (trained.folder / "0.monitor.csv").read_text().splitlines()[2:]]
    np.testing.assert_allclose([float(row["return"]) for row in rows], monitor)


def test_tensorboard_has_the_metrics_of_every_phase(trained):
    (events,) = (trained.cwd / "tb" / ENV_ID / "NBSPSAC_1").iterdir()
    log = EventAccumulator(str(events))
    log.Reload()
    expected = SuccessMatrix.load(trained.folder / "success_matrix.csv")
    for name in ("ASR", "FWT", "FM"):
        scalars = log.Scalars(f"eval/{name}")
        assert [scalar.step for scalar in scalars] == [400, 800]
        assert scalars[1].value == pytest.approx(expected.metrics()[name], abs=1e-6)
    assert math.isnan(log.Scalars("eval/FM")[0].value)  # nothing could be forgotten yet
    for column, task in enumerate(TASKS):
        assert [scalar.value for scalar in log.Scalars(f"eval/{task}")] == pytest.approx(
            [row[column] for row in expected.rows]
        )
    # Skill neurons are found at the end of both phases: 20 % of those of the 64 that are eligible
    assert all(0 < scalar.value <= 13 for scalar in log.Scalars("nbsp/actor_skill_neurons"))
    assert len(log.Scalars("nbsp/actor_skill_neurons")) == 2
    assert [scalar.value for scalar in log.Scalars("nbsp/memory_size")] == [150, 150]
    assert "train/actor_loss" in log.Tags()["scalars"]


def test_a_run_says_what_it_does(trained):
    assert f"Loading hyperparameters from: {ROOT / 'hyperparams' / 'nbsp_sac.yml'}" in trained.output
    assert "Step 400: phase 1 of 2 (coffee-button) is over" in trained.output
    assert "Step 800: phase 2 of 2 (drawer-close) is over" in trained.output
    # -P: bars for the training, for the evaluation after a phase and for the identification of skill neurons
    for bar in ("800/800", "evaluation after phase 2", "identification"):
        assert bar in trained.output
    own = [line for line in trained.output.splitlines() if str(ROOT) in line and "Warning: " in line]
    assert not [line for line in own if "The goal metric" not in line]


def test_the_zoos_evaluation_is_there_too(trained):
    evaluations = np.load(trained.folder / "evaluations.npz")
    assert list(evaluations["timesteps"]) == [250, 500, 750]
    assert evaluations["successes"].shape == (3, 2)


@pytest.mark.parametrize(
    "more, expected",
    [
        ([], TASKS * 2),
        (["--n-eval-envs", "2"], [*TASKS, *reversed(TASKS)]),
        (["--n-eval-envs", "4"], TASKS * 2),
        (["--eval-env-kwargs", "rotate:False", "horizon:10"], TASKS[:1] * 4),
        (["--eval-env-kwargs", "rotate:False", "horizon:10", "--n-eval-envs", "2"], TASKS[:1] * 4),
    ],
)
def test_the_zoos_evaluation_plays_the_tasks_in_turn(more, expected, command, monkeypatch):
    episodes = []
    step = TaskSequence.step

    def recording_step(self, action):
        task, result = self.task, step(self, action)
        if result[3]:
            episodes.append((self, task))
        return result

    monkeypatch.setattr(TaskSequence, "step", recording_step)
    sequence = ["--env", ENV_ID, "--env-kwargs", "steps_per_task:400", "cycles:1", "horizon:10"]
    arguments = ["--algo", "sac", *sequence, "-params", *SAC_PARAMS, "--eval-freq", "15", "--eval-episodes", "4", "-n", "20"]
    command("train", *arguments, *more)
    # The training's first episode, the evaluation's, the training's second
    training = episodes[0][0]
    assert [task for env, task in episodes if env is not training] == expected
    assert [task for env, task in episodes if env is training] == [TASKS[0]] * 2


def test_the_final_model_has_masks_for_both_tasks(trained):
    model = NBSPSAC.load(trained.folder / f"{ENV_ID}.zip")
    masking = model.all_interventions.find(GradientMasking)
    assert set(masking.skill_neurons) == set(TASKS)
    assert model.num_timesteps == 800
    assert all(mask.shape == (32,) for mask in masking.masks.values())
    together = th.cat(list(masking.masks.values()))
    # Of three networks, at most 13 neurons each for each task
    assert 0 < (together < 1).sum() <= 2 * 3 * 13
    assert 0 <= together.min() <= together[together < 1].max() <= 0.1
    model.load_replay_buffer(trained.folder / "replay_buffer.pkl")
    assert model.all_interventions.find(ExperienceReplay).memory.tasks == {TASKS[0]: 75, TASKS[1]: 75}


@pytest.fixture(scope="module")
def continued(trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, killed in phase 2 and continued from its last checkpoint in another process."""
    cwd = tmp_path_factory.mktemp("continued")
    checkpoint = as_if_killed(trained, cwd / "logs" / "nbsp_sac" / f"{ENV_ID}_1") / "rl_model_600_steps.zip"
    arguments = ["--algo", "nbsp_sac", *SEQUENCE, "-params", *NBSP_PARAMS, "-i", str(checkpoint.relative_to(cwd))]
    arguments += ["--save-freq", "100", "--save-replay-buffer", "--eval-freq", "-1"]
    output = train_py(*arguments, cwd=cwd)
    (cwd / "output.txt").write_text(output)
    return cwd


def test_a_continued_run_stays_in_its_phase(trained, continued):
    output = (continued / "output.txt").read_text()
    assert "Loading replay buffer rl_model_replay_buffer_600_steps.pkl" in output
    assert "phase 2 of 2 (drawer-close) is over" in output
    assert "phase 1 of 2" not in output
    assert "starts empty" not in output
    folder = continued / "logs" / "nbsp_sac" / f"{ENV_ID}_2"
    before, after = (SuccessMatrix.load(run / "success_matrix.csv") for run in (trained.folder, folder))
    assert after.phase_tasks == TASKS and after.rows[0] == before.rows[0]
    assert (folder / f"{ENV_ID}.zip").exists()


def test_a_continued_run_has_one_history(trained, continued):
    rows = read_rows(continued / "logs" / "nbsp_sac" / f"{ENV_ID}_2" / "training.csv")
    assert [int(row["step"]) for row in rows] == EPISODE_ENDS
    assert [row["phase"] for row in rows] == ["0"] * 8 + ["1"] * 8
    assert rows[:12] == read_rows(trained.folder / "training.csv")[:12]


def test_a_continued_run_keeps_masks_memory_and_buffer(trained, continued):
    folder = continued / "logs" / "nbsp_sac" / f"{ENV_ID}_2"
    before = NBSPSAC.load(trained.folder / "rl_model_600_steps.zip")
    after = NBSPSAC.load(folder / "rl_model_700_steps.zip")
    assert (before.num_timesteps, after.num_timesteps) == (600, 700)
    assert (after.phase.index, after.phase.task) == (1, TASKS[1])
    # No second warm-up. Callbacks run before a step is stored and learned from: step 600 is in neither process
    assert after._n_updates == before._n_updates + 99
    # Masks change at the end of a phase only
    assert min(mask.min() for mask in masks(before).values()) < 1
    th.testing.assert_close(masks(after), masks(before))
    # The buffers of the model at step 700 are gone, those of step 800 are there: all of phase 2, though
    # half of it was played by the process that was killed
    assert sorted(path.name for path in folder.glob("*buffer*")) == [
        "replay_buffer.pkl",
        "rl_model_replay_buffer_800_steps.pkl",
    ]
    after.load_replay_buffer(folder / "rl_model_replay_buffer_800_steps.pkl")
    # Steps 401 to 599 and 601 to 799
    assert after.replay_buffer.size() == 398
    assert after.all_interventions.find(ExperienceReplay).memory.tasks == {TASKS[0]: 150}
    with (folder / "replay_buffer.pkl").open("rb") as file:
        assert pickle.load(file).intervention_memory is not None


def test_continuing_without_a_buffer_warns(trained, command, tmp_path):
    folder = as_if_killed(trained, tmp_path / "run")
    (folder / "rl_model_replay_buffer_600_steps.pkl").unlink()
    arguments = ["--algo", "nbsp_sac", *SEQUENCE, "-params", *NBSP_PARAMS, "-n", "60", "--eval-freq", "-1"]
    with pytest.warns(UserWarning, match=r"No replay buffer is saved with rl_model_600_steps\.zip"):
        command("train", *arguments, "-i", str(folder / "rl_model_600_steps.zip"))
    # It goes on all the same, in its phase and with its masks
    model = NBSPSAC.load(Path("logs") / "nbsp_sac" / f"{ENV_ID}_1" / f"{ENV_ID}.zip")
    assert (model.num_timesteps, model.phase.task) == (660, TASKS[1])
    assert masks(model)


def test_continuing_with_the_buffer_of_another_step_warns(trained, command):
    arguments = ["--algo", "nbsp_sac", *SEQUENCE, "-params", *NBSP_PARAMS, "-n", "20", "--eval-freq", "-1"]
    with pytest.warns(UserWarning, match=r"replay_buffer\.pkl is of the end of that run, not of rl_model_300_steps\.zip"):
        command("train", *arguments, "-i", str(trained.folder / "rl_model_300_steps.zip"))


def test_continuing_with_the_right_buffer_is_silent(trained, command, recwarn):
    arguments = ["--algo", "nbsp_sac", *SEQUENCE, "-params", *NBSP_PARAMS, "--eval-freq", "-1"]
    # The steps that are left of the sequence
    command("train", *arguments, "-n", "200", "-i", str(trained.folder / "rl_model_600_steps.zip"))
    assert not [str(warning.message) for warning in recwarn if re.search("buffer|n_timesteps|sequence", str(warning.message))]


def test_continuing_a_finished_run_begins_the_sequence_again(trained, command):
    arguments = ["--algo", "nbsp_sac", *SEQUENCE, "-params", *NBSP_PARAMS, "-n", "20", "--eval-freq", "-1"]
    with pytest.warns(UserWarning, match="The agent's sequence is over") as warned:
        command("train", *arguments, "-i", str(trained.folder / f"{ENV_ID}.zip"))
    assert not [str(warning.message) for warning in warned if "buffer" in str(warning.message)]
    model = NBSPSAC.load(Path("logs") / "nbsp_sac" / f"{ENV_ID}_1" / f"{ENV_ID}.zip")
    assert (model.num_timesteps, model.phase.index, model.phase.task) == (820, 2, TASKS[0])
    assert set(model.all_interventions.find(GradientMasking).skill_neurons) == set(TASKS)


def test_continuing_another_sequence_warns(trained, command):
    sequence = ["--env", ENV_ID, "--env-kwargs", "steps_per_task:400", "cycles:2", "horizon:50"]
    arguments = ["--algo", "nbsp_sac", *sequence, "-params", *NBSP_PARAMS, "-n", "20", "--eval-freq", "-1"]
    with pytest.warns(UserWarning, match="The agent's sequence is over, or was another one"):
        command("train", *arguments, "-i", str(trained.folder / "rl_model_600_steps.zip"))


def test_too_few_steps_for_the_sequence_warn(command):
    arguments = ["--algo", "sac", *SEQUENCE, "-params", *SAC_PARAMS, "--eval-freq", "-1"]
    with pytest.warns(UserWarning, match=r"n_timesteps=60 may end training before the sequence is over.*\(-n 800, or more"):
        command("train", *arguments, "-n", "60")


@pytest.mark.slow
def test_parallel_environments_in_processes(tmp_path):
    params = ["n_envs:2", *NBSP_PARAMS]
    sequence = ["--env", ENV_ID, "--env-kwargs", "steps_per_task:75", "cycles:1", "horizon:25"]
    train_py("--algo", "nbsp_sac", *sequence, "-params", *params, "--vec-env", "subproc", "--eval-freq", "-1", cwd=tmp_path)
    folder = tmp_path / "logs" / "nbsp_sac" / f"{ENV_ID}_1"
    assert [row["task"] for row in read_rows(folder / "success_matrix.csv")] == TASKS
    # rl-zoo3 closes the environments before it saves the agent, which has to know how far they were
    model = NBSPSAC.load(folder / f"{ENV_ID}.zip")
    assert model.num_timesteps == 2 * 2 * 75
    assert [progress["sequence_over"] for progress in model._sequence_progress] == [True, True]


@pytest.mark.slow
def test_an_interrupted_run_is_saved(tmp_path):
    # So long that it is not over before the signal arrives, however busy the machine is
    sequence = ["--env", ENV_ID, "--env-kwargs", "steps_per_task:100000", "cycles:1", "horizon:50"]
    arguments = ["--algo", "nbsp_sac", *sequence, "-params", *NBSP_PARAMS, "--eval-freq", "-1"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    log = tmp_path / "logs" / "nbsp_sac" / f"{ENV_ID}_1" / "training.csv"
    try:
        deadline = time.monotonic() + 120
        while not log.exists() or len(read_rows(log)) < 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
    model = NBSPSAC.load(log.with_name(f"{ENV_ID}.zip"))
    assert 150 <= model.num_timesteps < 200_000
    (progress,) = model._sequence_progress
    assert progress["phase"] == 0 and abs(progress["phase_steps"] - model.num_timesteps) <= 1


@pytest.mark.parametrize("algo", ["sac", "continual_sac"])
def test_other_algorithms_run_a_sequence(algo, command, capsys):
    sequence = ["--env", ENV_ID, "--env-kwargs", "steps_per_task:75", "cycles:1", "horizon:25"]
    command("train", "--algo", algo, *sequence, "-params", *SAC_PARAMS, "--eval-freq", "-1", "--tensorboard-log", "tb")
    output = capsys.readouterr().out
    assert f"Loading hyperparameters from: {ROOT / 'hyperparams' / f'{algo}.yml'}" in output
    assert "default" not in output.split("Default hyperparameters")[0], "an entry of its own"
    folder = Path("logs") / algo / f"{ENV_ID}_1"
    assert [row["task"] for row in read_rows(folder / "success_matrix.csv")] == TASKS
    assert (folder / f"{ENV_ID}.zip").exists()
    log = EventAccumulator(str(next(Path("tb").rglob("events.*"))))
    log.Reload()
    assert [scalar.step for scalar in log.Scalars("eval/ASR")] == [75, 150]
    # What the two differ in
    assert ("('reset_ent_coef', True)" in output) == (algo == "continual_sac")
