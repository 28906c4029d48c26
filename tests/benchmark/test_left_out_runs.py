"""Runs without a result: left out of tables, and named below them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from handmade import kept, write_comparison
from tables import numbers, tables_of

from sb3_nbsp.benchmark.rendering import render

pytestmark = pytest.mark.usefixtures("few_resamples")  # tables need not have them all


def corrupt_matrix(folder: Path) -> None:
    (folder / "success_matrix.csv").write_text("phase,task,coffee-button,handle-press\n0,coffee-button,1.0\n")


def corrupt_result(folder: Path) -> None:
    (folder / "result.json").write_text('{"steps": 10')


def nan_matrix(folder: Path) -> None:
    matrix = kept(1)
    matrix.rows[1][0] = float("nan")
    matrix.save(folder / "success_matrix.csv")


def infinite_matrix(folder: Path) -> None:
    matrix = kept(1)
    matrix.rows[1][0] = float("inf")
    matrix.save(folder / "success_matrix.csv")


def fail(folder: Path) -> None:
    (folder / "error.txt").write_text("Traceback\n  line\nValueError: [bold]out of memory[/bold]\n")


def lose_a_phase(folder: Path) -> None:
    lines = (folder / "success_matrix.csv").read_text().splitlines()
    (folder / "success_matrix.csv").write_text("\n".join(lines[:-1]) + "\n")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (shutil.rmtree, "not started"),
        (lambda folder: (folder / "result.json").unlink(), "not finished"),
        (corrupt_matrix, "is no success matrix"),
        (lambda folder: (folder / "success_matrix.csv").write_bytes(b"\xff\xfe\x00"), "is no success matrix"),
        (lambda folder: (folder / "success_matrix.csv").write_text(""), "is no success matrix"),
        (lambda folder: (folder / "success_matrix.csv").unlink(), "success_matrix.csv"),
        (corrupt_result, "result.json is damaged"),
        (lambda folder: (folder / "result.json").write_text("[1]"), "result.json is damaged"),
        (lambda folder: (folder / "result.json").write_text('{"steps": "many"}'), "its steps is 'many', which is no number"),
        (nan_matrix, "has phases whose success is not known"),
        (infinite_matrix, "has phases whose success is not known"),
        (fail, "failed: ValueError: [bold]out of memory[/bold]"),
        (lose_a_phase, "has 3 phases instead of 4"),
    ],
)
def test_a_run_without_a_result_is_named_and_left_out(tmp_path: Path, damage: Callable[[Path], object], reason: str) -> None:
    # Seed 3 would change every number if it counted, as itself or as zero
    folder = write_comparison(tmp_path, {"continual_sac": [0, 0, 0], "nbsp_sac": [0.5, 0.7, 1.0]})
    damage(folder / "nbsp_sac" / "seed_3")
    (table,) = tables_of(folder)
    (note,) = [note for note in table.notes if "Left out" in note]
    assert note.startswith("Left out: NBSP, seed 3: ") and reason in note
    fm = numbers(table, "NBSP", "FM")
    # 0.5 and 0.3: the mean, and half their distance
    assert (fm["n"], fm["mean"], fm["se"]) == pytest.approx((2, 0.4, 0.1))
    assert numbers(table, "vanilla SAC", "FM")["n"] == 3


def test_a_method_without_any_result_has_no_row(tmp_path: Path) -> None:
    (table,) = tables_of(write_comparison(tmp_path, {"continual_sac": [0.5, 0.5], "nbsp_sac": [None, None]}))
    assert list(table.cells.method) == ["vanilla SAC"]
    assert [note for note in table.notes if "Left out" in note] == ["Left out: NBSP, seeds 1, 2: not started"]


def test_left_out_runs_are_named_by_method_and_reason(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path, {"continual_sac": [0.5, None, None, 0.5], "nbsp_sac": [None, 0.5, 0.5, None]})
    fail(folder / "nbsp_sac" / "seed_3")
    (table,) = tables_of(folder)
    assert [note for note in table.notes if "Left out" in note] == [
        "Left out: vanilla SAC, seeds 2, 3: not started",
        "Left out: NBSP, seeds 1, 4: not started",
        "Left out: NBSP, seed 3: failed: ValueError: [bold]out of memory[/bold]",
    ]


def test_nothing_done_yet(tmp_path: Path) -> None:
    (table,) = tables_of(write_comparison(tmp_path, {"nbsp_sac": [None]}), paper=True)
    assert table.cells.empty and table.numbers.empty
    assert {"No run is done yet.", "Left out: NBSP, seed 1: not started"} <= {*table.notes}
    assert table.markdown() and table.latex() and render([table], "csv")


def test_a_seed_that_one_sequence_lacks_is_named(tmp_path: Path) -> None:
    one = write_comparison(tmp_path / "one", {"continual_sac": [0.2, 0.2], "nbsp_sac": [0.4, 0.8], "nbsp_weight": [0.1, None]})
    two = write_comparison(tmp_path / "two", {"continual_sac": [0.2, 0.2], "nbsp_sac": [0.6, None]}, "WindowOpen-WindowClose")
    overall = tables_of(one, two)[2]
    assert overall.cells[["method", "seeds"]].to_numpy().tolist() == [["vanilla SAC", "2"], ["NBSP", "1"]]
    # Seed 1: 0.6 and 0.4
    assert numbers(overall, "NBSP", "FM")["mean"] == pytest.approx(0.5)
    left_out = [note for note in overall.notes if "Left out" in note]
    assert left_out == [
        "Left out: NBSP, seed 2: no result of WindowOpen-WindowClose (laptop)",
        "Left out: by weight, seed 1: no result of WindowOpen-WindowClose (laptop)",
        "Left out: by weight: no seed is done on all sequences",
        "Left out: CoffeeButton-HandlePress (laptop): by weight, seed 2: not started",
        "Left out: WindowOpen-WindowClose (laptop): NBSP, seed 2: not started",
    ]
