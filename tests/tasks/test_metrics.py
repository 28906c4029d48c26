"""ASR, FM and FWT: what the paper's tables imply, a matrix by hand, a slow version."""

import math
from pathlib import Path

import numpy as np
import pytest

from sb3_nbsp.tasks import SuccessMatrix, average_success_rate, forgetting_measure, forward_transfer


def cycled(n_tasks: int, cycles: int = 2) -> np.ndarray:
    return np.tile(np.arange(n_tasks), cycles)


def forgets_everything(n_tasks: int) -> np.ndarray:
    """Always masters the new task and forgets all the others."""
    return np.eye(n_tasks)[cycled(n_tasks)]


def slow_metrics(matrix: np.ndarray, phase_tasks: np.ndarray) -> tuple[float, float, float]:
    """The definitions of the metrics, loop by loop."""
    asr, fm, fwt = [], [], []
    for i, own in enumerate(phase_tasks):
        seen = []
        for task in phase_tasks[: i + 1]:
            if task not in seen:
                seen.append(task)
        asr.append(sum(matrix[i][j] for j in seen) / len(seen))
        fwt.append(matrix[i][own])
        drops = []
        for j in seen:
            first = next(phase for phase, task in enumerate(phase_tasks) if task == j)
            if first < i and j != own:
                drops.append(max(matrix[phase][j] for phase in range(first, i)) - matrix[i][j])
        if drops:
            fm.append(sum(drops) / len(drops))
    return sum(asr) / len(asr), sum(fm) / len(fm), sum(fwt) / len(fwt)


def test_total_forgetting_two_tasks() -> None:
    matrix, tasks = forgets_everything(2), cycled(2)
    assert average_success_rate(matrix, tasks) == 0.625  # (1 + 0.5 + 0.5 + 0.5) / 4
    assert forgetting_measure(matrix, tasks) == 1
    assert forward_transfer(matrix, tasks) == 1


def test_total_forgetting_four_tasks() -> None:
    matrix, tasks = forgets_everything(4), cycled(4)
    # (1 + 1/2 + 1/3 + 1/4 + 4 * 1/4) / 8
    assert round(average_success_rate(matrix, tasks), 3) == 0.385
    assert forgetting_measure(matrix, tasks) == 1
    assert forward_transfer(matrix, tasks) == 1


@pytest.mark.parametrize("n_tasks", [2, 4])
def test_masters_and_never_forgets(n_tasks: int) -> None:
    tasks = cycled(n_tasks)
    # What has not been met yet is at 0, and does not count
    matrix = np.array([[float(j <= i) for j in range(n_tasks)] for i in range(2 * n_tasks)])
    assert average_success_rate(matrix, tasks) == 1
    assert forgetting_measure(matrix, tasks) == 0
    assert forward_transfer(matrix, tasks) == 1


def test_by_hand() -> None:
    matrix = np.array(
        [
            [0.8, 0.9],  # A; B is not met yet: its 0.9 counts neither for ASR nor as its best
            [0.3, 0.6],  # B
            [1.0, 0.2],  # A
            [0.9, 0.7],  # B
        ]
    )
    tasks = np.array([0, 1, 0, 1])
    # (0.8 + 0.45 + 0.6 + 0.8) / 4
    assert average_success_rate(matrix, tasks) == pytest.approx(0.6625)
    # A: 0.8 - 0.3; B: 0.6 - 0.2, not 0.9 - 0.2; A: max(0.8, 0.3, 1.0) - 0.9
    assert forgetting_measure(matrix, tasks) == pytest.approx((0.5 + 0.4 + 0.1) / 3)
    assert forward_transfer(matrix, tasks) == pytest.approx((0.8 + 0.6 + 1.0 + 0.7) / 4)


def test_improvement_is_negative_forgetting() -> None:
    matrix = np.array([[0.5, 0.0], [0.75, 1.0]])
    assert forgetting_measure(matrix, np.array([0, 1])) == -0.25


def test_three_tasks_average_over_tasks_before_phases() -> None:
    matrix = np.array([[1, 0, 0], [0.5, 1, 0], [0.25, 0.5, 1]])
    # Phase 2: 0.5. Phase 3: 0.75 of A and 0.5 of B
    assert forgetting_measure(matrix, np.arange(3)) == pytest.approx((0.5 + 0.625) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_equals_slow_version(seed: int) -> None:
    generator = np.random.default_rng(seed)
    n_tasks = int(generator.integers(2, 5))
    # A task may come several times in a cycle, also twice in a row
    tasks = np.concatenate([np.arange(n_tasks), generator.integers(n_tasks, size=6)])
    matrix = generator.random((len(tasks), n_tasks))
    measured = [metric(matrix, tasks) for metric in (average_success_rate, forgetting_measure, forward_transfer)]
    np.testing.assert_allclose(measured, slow_metrics(matrix, tasks), rtol=1e-12)


def test_nothing_to_forget() -> None:
    assert math.isnan(forgetting_measure(np.array([[1.0, 0.0]]), np.array([0])))
    assert math.isnan(forgetting_measure(np.array([[1.0], [0.5]]), np.array([0, 0])))  # its own task only
    matrix = SuccessMatrix(["a", "b"])
    matrix.set_row(0, "a", [0.75, 0.5])
    metrics = matrix.metrics()
    assert (metrics["ASR"], metrics["FWT"]) == (0.75, 0.75)
    assert math.isnan(metrics["FM"])


def filled() -> SuccessMatrix:
    matrix = SuccessMatrix(["b", "a"])
    for phase, (task, row) in enumerate([("b", [0.1, 1 / 3]), ("a", [0.95, 0]), ("b", [1, float("nan")])]):
        matrix.set_row(phase, task, row)
    return matrix


def test_matrix_to_arrays() -> None:
    array, tasks = filled().as_arrays()
    np.testing.assert_array_equal(array, [[0.1, 1 / 3], [0.95, 0], [1, np.nan]])
    assert tasks.tolist() == [0, 1, 0]


def test_set_row_overwrites_later_phases() -> None:
    matrix = filled()
    matrix.set_row(1, "a", [0.25, 0.5])
    assert matrix.rows == [[0.1, 1 / 3], [0.25, 0.5]]
    assert matrix.phase_tasks == ["b", "a"]
    with pytest.raises(ValueError, match="Phase 4 cannot be entered: only 2 phases"):
        matrix.set_row(3, "a", [0, 0])


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "matrix.csv"
    matrix = filled()
    matrix.save(path)
    loaded = SuccessMatrix.load(path)
    assert loaded.tasks == matrix.tasks
    assert loaded.phase_tasks == matrix.phase_tasks
    np.testing.assert_array_equal(loaded.rows, matrix.rows)  # not rounded
    assert path.read_text().splitlines()[:2] == ["phase,task,b,a", f"0,b,0.1,{1 / 3}"]
    assert [file.name for file in path.parent.iterdir()] == ["matrix.csv"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"step,phase,task,success\n0,0,a,1.0\n",
        b"phase,task,a,b\n0,a,1.0\n",
        b"phase,task,a,b\n0,a,1.0,half\n",
        b"phase,task,a,b\n0,c,1.0,1.0\n",
        b"phase,task,a,b\n1,a,1.0,1.0\n",
        b"phase,task,a,b\n0\n",
        b"phase,task,a,b\nzero,a,1.0,1.0\n",
        b"\x00" * 100,
        bytes(range(128, 256)),
        b"phase,task,a\n0,a," + b"1" * 200_000 + b"\n",
    ],
)
def test_corrupt_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "success_matrix.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"success_matrix\.csv is no success matrix"):
        SuccessMatrix.load(path)
