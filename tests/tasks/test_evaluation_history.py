"""What a success matrix and a log of episodes hold when training is taken up again in one way or another."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_nbsp import P3O, ContinualSAC
from sb3_nbsp.tasks import (
    SequenceCheckpoint,
    SequenceEvaluation,
    SuccessMatrix,
    TaskSequence,
    latest_checkpoint,
    load_checkpoint,
)
from sb3_nbsp.tasks.episode_log import EpisodeLog, read_rows

Makes = Callable[[], TaskSequence]
ON_POLICY = {"n_steps": 4, "batch_size": 4, "n_epochs": 1}
OFF_POLICY = {"learning_starts": 4, "batch_size": 4, "buffer_size": 200}
AGENTS = {PPO: ON_POLICY, P3O: ON_POLICY, ContinualSAC: OFF_POLICY}
MATRIX, LOG = "success_matrix.csv", "training.csv"


@pytest.fixture
def two_tasks(make_sequence: Callable[..., TaskSequence], easy: dict[str, Any], hard: dict[str, Any]) -> Makes:
    """Episodes of two steps; phases of 6 (a) and 12 steps (b), twice."""
    return lambda: make_sequence({"a": easy, "b": hard}, mastery_window=3, steps_per_task=12)


def agent(cls: type[BaseAlgorithm], env: TaskSequence) -> Any:
    return cls("MlpPolicy", env, policy_kwargs={"net_arch": [4]}, seed=0, device="cpu", **AGENTS[cls])


def evaluation(folder: Path | None = None) -> SequenceEvaluation:
    return SequenceEvaluation(folder, n_eval_episodes=1, progress_bar=False)


def episodes(folder: Path) -> list[tuple[int, str]]:
    """Phase and task of every episode."""
    return [(int(row[1]), row[2]) for row in read_rows(folder / LOG)]


PASS = [(0, "a")] * 3 + [(1, "b")] * 6 + [(2, "a")] * 3 + [(3, "b")] * 6


@pytest.mark.parametrize("cls", AGENTS)
@pytest.mark.parametrize("same_callback", [True, False])
def test_playing_the_sequence_again_adds_to_the_first_pass(
    two_tasks: Makes, tmp_path: Path, cls: type[BaseAlgorithm], same_callback: bool
) -> None:
    model, callback = agent(cls, two_tasks()), evaluation(tmp_path)
    model.learn(200, callback)
    before = (tmp_path / MATRIX).read_text(), (tmp_path / LOG).read_text()
    model.set_env(two_tasks())
    again = callback if same_callback else evaluation(tmp_path)
    model.learn(200, again)

    assert again.matrix is not None
    assert again.matrix == SuccessMatrix.load(tmp_path / MATRIX)
    assert again.matrix.phase_tasks == ["a", "b"] * 4
    assert [row for row in again.matrix.rows if row == [1, 0]] == again.matrix.rows
    assert (tmp_path / MATRIX).read_text().startswith(before[0])
    assert (tmp_path / LOG).read_text().startswith(before[1])
    assert [each for each in episodes(tmp_path) if each[0] < 8] == [(i + 4 * k, task) for k in (0, 1) for i, task in PASS]


@pytest.mark.parametrize("cls", AGENTS)
def test_a_phase_that_ended_without_the_callback_is_not_known(
    two_tasks: Makes, tmp_path: Path, cls: type[BaseAlgorithm]
) -> None:
    model = agent(cls, two_tasks())
    model.learn(8, evaluation(tmp_path))
    model.learn(12, reset_num_timesteps=False)  # into the third phase
    with pytest.warns(UserWarning, match=r"not known: they become nan\. Give SequenceEvaluation to every call of learn"):
        model.learn(200, evaluation(tmp_path), reset_num_timesteps=False)
    matrix = SuccessMatrix.load(tmp_path / MATRIX)
    assert matrix.phase_tasks == ["a", "b", "a", "b"]
    np.testing.assert_array_equal(matrix.rows, [[1, 0], [np.nan, np.nan], [1, 0], [1, 0]])


@pytest.mark.parametrize("cls", AGENTS)
def test_a_checkpoint_of_the_second_pass_continues_there(two_tasks: Makes, tmp_path: Path, cls: type[BaseAlgorithm]) -> None:
    uncut, killed = tmp_path / "uncut", tmp_path / "killed"
    for folder, n_steps in ((uncut, 200), (killed, 30)):
        model = agent(cls, two_tasks())
        model.learn(200, evaluation(folder))
        model.set_env(two_tasks())
        model.learn(n_steps, [evaluation(folder), SequenceCheckpoint(4, folder)])
    checkpoint = latest_checkpoint(killed)
    assert checkpoint is not None
    n_before = len(read_rows(killed / LOG))
    model = load_checkpoint(cls, checkpoint, two_tasks(), device="cpu")
    model.learn(200, evaluation(killed), reset_num_timesteps=False)
    assert len(read_rows(killed / LOG)) > n_before
    assert (killed / MATRIX).read_text() == (uncut / MATRIX).read_text()
    assert episodes(killed) == episodes(uncut)


def test_another_agent_begins_files_of_its_own(two_tasks: Makes, tmp_path: Path) -> None:
    callback = evaluation(tmp_path)
    for number in range(3):
        kept = {name: (tmp_path / name).read_text() for name in (MATRIX, LOG) if number}
        agent(PPO, two_tasks()).learn(8 + number, callback)
        assert callback.matrix is not None
        assert callback.matrix.rows == [[1, 0]]
        assert {name: (tmp_path / name.replace(".", f"-{number}.")).read_text() for name in kept} == kept
    assert len(list(tmp_path.iterdir())) == 6


ROW = '{step},{phase},"goal (0, 1)",True,0.5,2'


@pytest.mark.parametrize(
    ("lines", "position", "kept"),
    [
        ([(2, 0), (4, 0), (6, 1), (8, 1)], (1, 6), 3),
        ([(2, 0), (4, 0), (6, 1), (8, 2)], (1, 8), 3),
        ([(2, 0), (9, 1), (2, 2), (4, 2), (6, 3)], (2, 2), 3),  # the count of steps began anew
        ([(2, 0), (9, 0), (2, 0), (4, 0)], (0, 2), 3),
        ([(2, 0), (4, 0)], (0, float("inf")), 2),
        ([(2, 0), (4, 0)], (-1, 100), 0),  # another run
    ],
)
def test_a_log_is_continued_without_what_comes_after_the_checkpoint(
    tmp_path: Path, lines: list[tuple[int, int]], position: tuple[int, float], kept: int
) -> None:
    header = "step,phase,task,success,return,length"
    written = [ROW.format(step=step, phase=phase) for step, phase in lines]
    (tmp_path / LOG).write_text("\n".join([header, *written]) + "\n")
    EpisodeLog(tmp_path / LOG, *position)
    assert (tmp_path / LOG).read_text().splitlines() == [header, *written[:kept]]


def test_a_line_that_a_killed_run_did_not_finish_is_left_out(tmp_path: Path) -> None:
    (tmp_path / LOG).write_text('step,phase,task,success,return,length\n2,0,"a, b",True,1.0,2\n4,0,"a, b",True,1.0,1')
    assert read_rows(tmp_path / LOG) == [["2", "0", "a, b", "True", "1.0", "2"]]


@pytest.mark.parametrize("damage", ["4,0,a,b,True,1.0,2", "four,0,a,True,1.0,2", "4,0,a"])
def test_a_damaged_log_is_an_error_and_stays(tmp_path: Path, damage: str) -> None:
    content = f"step,phase,task,success,return,length\n{damage}\n6,0,a,True,1.0,2\n"
    (tmp_path / LOG).write_text(content)
    with pytest.raises(ValueError, match=r"training\.csv is damaged in line 2"):
        EpisodeLog(tmp_path / LOG, 1)
    assert (tmp_path / LOG).read_text() == content


def open_phases(warned: pytest.WarningsRecorder) -> list[str]:
    """Where warnings say that training ended."""
    found = [re.search("Training ended in (phase . of .), although", str(each.message)) for each in warned]
    return [each[1] for each in found if each]


@pytest.mark.filterwarnings("ignore:The tasks do not report")
@pytest.mark.parametrize(
    ("horizon", "options", "n_steps", "place"),
    [
        # Two phases of 12 steps end with episodes of five, at steps 15 and 30
        (5, {"cycles": 1}, 23, None),
        (5, {"cycles": 1}, 24, "phase 2 of 2"),
        (5, {"cycles": 1}, 29, "phase 2 of 2"),
        (5, {"cycles": 1}, 30, None),
        (5, {"cycles": 1}, 60, None),
        # Four, at 22, 44, ...
        (11, {}, 48, "phase 3 of 4"),
        # The last phase is short, and its steps are used up
        (5, {"cycles": 1, "last_phase_steps": 3}, 19, "phase 2 of 2"),
        (5, {"cycles": 1, "last_phase_steps": 3}, 20, None),
    ],
)
def test_steps_that_do_not_suffice_for_the_last_episodes_of_phases_warn(
    make_sequence: Callable[..., TaskSequence],
    horizon: int,
    options: dict[str, Any],
    n_steps: int,
    place: str | None,
    recwarn: pytest.WarningsRecorder,
) -> None:
    task = {"horizon": horizon}
    env = make_sequence({"a": task, "b": task}, steps_per_task=12, mastery_threshold=None, **options)
    callback = evaluation()
    agent(ContinualSAC, env).learn(n_steps, callback)
    assert callback.matrix is not None
    assert open_phases(recwarn) == ([] if place is None else [place])
    if place is not None:
        assert len(callback.matrix.rows) == int(place[6]) - 1


@pytest.mark.parametrize("cls", [SAC, ContinualSAC])
@pytest.mark.filterwarnings("ignore:The tasks do not report")
def test_the_matrix_is_complete_when_the_first_environment_is_through(
    make_sequence: Callable[..., TaskSequence], cls: type[BaseAlgorithm], recwarn: pytest.WarningsRecorder
) -> None:
    makes = [partial(make_sequence, {"a": {"horizon": n}, "b": {"horizon": n}}, cycles=1, steps_per_task=8) for n in (8, 7)]
    callback = evaluation()
    cls("MlpPolicy", DummyVecEnv(makes), policy_kwargs={"net_arch": [4]}, device="cpu", **OFF_POLICY).learn(32, callback)
    assert callback.matrix is not None and len(callback.matrix.rows) == 2
    assert open_phases(recwarn) == []
