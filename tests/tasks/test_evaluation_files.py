"""evaluations.npz and the best model, as SB3's EvalCallback writes them, of an evaluation on several tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import SAC

from sb3_nbsp import ContinualSAC
from sb3_nbsp.tasks import SequenceEvaluation, SuccessMatrix, TaskSequence
from sb3_nbsp.tasks.evaluation_files import add_evaluation, save_if_best

MakeSequence = Callable[..., TaskSequence]


@pytest.mark.parametrize("cls", [ContinualSAC, SAC])
def test_a_sequence_writes_them(cls: Any, make_sequence: MakeSequence, easy: dict[str, Any], tmp_path: Path) -> None:
    env = make_sequence({"a": easy, "b": {"success": "sign"}}, mastery_threshold=None, steps_per_task=10, cycles=2)
    options = {"learning_starts": 4, "batch_size": 4, "buffer_size": 200, "policy_kwargs": {"net_arch": [8]}, "device": "cpu"}
    model = cls("MlpPolicy", env, seed=0, **options)
    evaluation = SequenceEvaluation(
        n_eval_episodes=3, progress_bar=False, best_model_save_path=tmp_path / "best", log_path=str(tmp_path / "log")
    )
    model.learn(1000, evaluation)
    file = np.load(tmp_path / "log" / "evaluations.npz")
    assert file["timesteps"].tolist() == [10, 20, 30, 40] and file["phases"].tolist() == [0, 1, 2, 3]
    assert evaluation.matrix is not None
    assert file["tasks"].tolist() == ["a", "b"] and file["results"].tolist() == evaluation.matrix.rows
    assert cls.load(tmp_path / "best" / "best_model").num_timesteps in (10, 20, 30, 40)


def test_a_resumed_run_continues_the_file(tmp_path: Path) -> None:
    for step, phase in ((10, 0), (20, 1), (30, 2)):
        add_evaluation(tmp_path, step, phase, {"a": step, "b": 0.5})
    add_evaluation(tmp_path, 21, 1, {"a": 0.25, "b": 0.75})  # the run was killed in phase 1, and goes through its end again
    file = np.load(tmp_path / "evaluations.npz")
    assert file["timesteps"].tolist() == [10, 21] and file["results"].tolist() == [[10.0, 0.5], [0.25, 0.75]]
    with pytest.raises(ValueError, match=r"of the tasks \['a', 'b'\], not \['c'\]"):
        add_evaluation(tmp_path, 30, 2, {"c": 1.0})


def test_the_best_is_by_the_tasks_that_were_met(tmp_path: Path) -> None:
    matrix, saved = SuccessMatrix(["a", "b"]), []

    class Model:
        def save(self, path: Path) -> None:
            saved.append((path.name, len(matrix.rows)))

    # Means over what was met: 0.5, 0.45, 0.5 (a tie), 0.7, and a nan
    rows = [("a", [0.5, 0.9]), ("b", [0.1, 0.8]), ("a", [0.9, 0.1]), ("b", [0.6, 0.8]), ("a", [float("nan"), 1.0])]
    for phase, (task, row) in enumerate(rows):
        matrix.set_row(phase, task, row)
        save_if_best(tmp_path, Model(), matrix)  # type: ignore[arg-type]
    assert saved == [("best_model", 1), ("best_model", 4)]
