"""The switch protocol: the second of two tasks has a fixed length, with evaluations on both meanwhile."""

from pathlib import Path

import numpy as np
import points
import pytest
from small_comparison import SMALL
from stable_baselines3 import PPO
from test_train import run_until

from sb3_nbsp.benchmark.__main__ import make_parser
from sb3_nbsp.benchmark.callbacks import Retention
from sb3_nbsp.benchmark.comparison import Comparison
from sb3_nbsp.benchmark.figures import draw_figures, retention_figure
from sb3_nbsp.benchmark.first_phase import share_first_phases
from sb3_nbsp.benchmark.folder import RunFolder
from sb3_nbsp.benchmark.frames import load_results
from sb3_nbsp.benchmark.train import train
from sb3_nbsp.tasks import SequenceEvaluation, TaskSequence

METHODS = ["continual_sac", "nbsp_replay_only"]


def comparison(**changes) -> Comparison:
    options = {**SMALL, "env_kwargs": {"env_ids": points.IDS, "steps_per_task": 100, "mastery_threshold": None}}
    options["hyperparams"] = {**SMALL["hyperparams"], "identification_data": "training"}
    return Comparison(
        ["GymCycle-v0"], METHODS, **{**options, "seeds": [1, 2], "switch_steps": 200, "eval_freq": 60, **changes}
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison that is done. Not to be written to."""
    path = tmp_path_factory.mktemp("switch")
    comparison().save(path)
    settings = {run: comparison().settings(run) for run in comparison().runs(path)}
    for run, each in share_first_phases(settings, path)[0].items():
        assert run.first_phase is not None
        train(each, run.folder, RunFolder(run.first_phase))
    return path


def test_both_tasks_are_evaluated_over_the_steps_of_the_second(folder):
    run = RunFolder(folder / METHODS[0] / "seed_1")
    assert run.result()["steps"] == 300 and len(run.matrix().rows) == 2
    assert [row["step"] for row in run.retention()] == [60, 120, 180]
    assert all(row.keys() == {"step", *points.IDS} for row in run.retention())


def test_the_frame_begins_and_ends_with_the_success_matrix(folder):
    results = load_results(folder)
    assert not results.damaged and not results.left_out
    for (method, seed, task), frame in results.retention.groupby(["method", "seed", "task"], observed=True):
        assert list(frame.step) == [0, 60, 120, 180, 200]
        rows = results.success[(results.success.method == method) & (results.success.seed == seed)]
        expected = rows[rows.task == task].sort_values("phase").success
        assert [frame.success.iloc[0], frame.success.iloc[-1]] == list(expected)
    assert len(results.retention) == 2 * 2 * 2 * 5


def test_killed_it_has_every_evaluation_once(folder, tmp_path, monkeypatch):
    """Between an evaluation and the next checkpoint: it is made again, to the same result."""
    run = comparison().runs(folder)[0]
    run_until(290, comparison().settings(run), tmp_path, monkeypatch)
    assert [row["step"] for row in RunFolder(tmp_path).retention()] == [60, 120, 180]
    train(comparison().settings(run), RunFolder(tmp_path))
    assert RunFolder(tmp_path).retention() == run.folder.retention()
    assert RunFolder(tmp_path).matrix().rows == run.folder.matrix().rows


def test_evaluations_leave_training_alone(folder, tmp_path):
    run = comparison().runs(folder)[0]
    train(comparison(eval_freq=1000).settings(run), RunFolder(tmp_path))
    assert RunFolder(tmp_path).retention() == [] and RunFolder(tmp_path).episodes() == run.folder.episodes()


def test_the_figure(folder):
    results = load_results(folder)
    figure = retention_figure(results)
    assert [axis.get_title() for axis in figure.axes] == points.IDS
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == ["vanilla SAC (2 seeds)", "replay only (2 seeds)"]
    frame = results.retention[(results.retention.task == points.IDS[0]) & (results.retention.method == "vanilla SAC")]
    assert list(lines[0].get_xdata()) == [0, 60, 120, 180, 200]
    assert lines[0].get_ydata()[2] == pytest.approx(frame[frame.step == 120].success.mean()), "of two seeds, the mean"
    drawn, _ = draw_figures(results)
    assert drawn[0].name == "retention"


def test_the_last_phase_is_neither_mastered_nor_cut_short():
    makers = {name: lambda render_mode=None: points.Point(-1.0) for name in ("a", "b")}
    env = TaskSequence(makers, cycles=1, steps_per_task=100, mastery_threshold=0.01, mastery_window=1, last_phase_steps=150)
    env.reset(seed=0)
    ends = []
    while not env.sequence_over:
        _, _, _, truncated, info = env.step(np.array([np.sign(-1 - env.unwrapped._env().place[0]), 0.0]))  # always a success
        if info["boundary"]:
            ends.append(env.phase_steps)
        if truncated:
            env.reset()
    assert ends == [25, 150]


class Late(points.Point):
    """Says nothing of success until one happens, at the end of its 31st episode."""

    n_episodes = 0

    def step(self, action):
        observation, reward, terminated, truncated, _ = super().step(action)
        self.n_episodes += truncated
        return observation, reward, terminated, truncated, {"success": 1.0} if truncated and self.n_episodes == 31 else {}


def test_a_task_whose_first_success_comes_between_two_evaluations(tmp_path):
    """Until then its returns are written down; they were no successes, as in the matrix."""
    env = TaskSequence(
        {name: lambda render_mode=None: Late(-1.0) for name in ("a", "b")}, cycles=1, steps_per_task=25, last_phase_steps=1000
    )
    evaluation = SequenceEvaluation(tmp_path, n_eval_episodes=1, progress_bar=False)
    callbacks = [evaluation, Retention(RunFolder(tmp_path), evaluation, 300)]
    with pytest.warns(UserWarning, match="do not report success"):
        PPO("MlpPolicy", env, n_steps=32, batch_size=32, n_epochs=1).learn(2000, callback=callbacks)
    rows = RunFolder(tmp_path).retention()
    assert [row["step"] for row in rows] == [300, 600, 900]
    assert [row["b"] for row in rows] == [0, 0, 0] and all(row["a"] < 0 for row in rows)
    assert [row[1] for row in evaluation.matrix.rows] == [0, 0]


@pytest.mark.parametrize(
    "changes, error",
    [
        ({"switch_steps": 0}, "switch_steps must be at least 1"),
        ({"env_kwargs": {"env_ids": [points.IDS[0]]}}, "needs a sequence of two tasks, which GymCycle-v0 is not"),
        ({"env_kwargs": {"env_ids": points.IDS, "cycles": 2}}, "cycles of the environment follows from switch_steps"),
    ],
)
def test_what_is_no_switch(changes, error):
    with pytest.raises(ValueError, match=error):
        comparison(**changes)


def test_an_environment_that_is_no_sequence_has_no_switch():
    with pytest.raises(ValueError, match="needs a sequence of two tasks, which Pendulum-v1 is not"):
        Comparison(["Pendulum-v1"], ["sac"], switch_steps=100)


def test_the_command_line():
    words = "run --envs CoffeeButton-HandlePress --methods table2 --switch-steps 60000 --eval-freq 5000 --out x".split()
    given = Comparison.from_arguments(make_parser().parse_args(words))
    assert (given.switch_steps, given.eval_freq) == (60_000, 5_000)
    settings = given.settings(given.runs("x")[0])
    assert settings.env_kwargs == {"cycles": 1, "last_phase_steps": 60_000} and settings.eval_freq == 5_000
    assert given.n_phases(settings.env_id) == 2 and "--switch-steps 60000 --eval-freq 5000" in given.command()
