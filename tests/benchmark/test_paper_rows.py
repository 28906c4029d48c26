"""The paper's rows in a table."""

import math
from pathlib import Path

import pytest
from handmade import write_comparison
from tables import FIVE, bold, numbers, row, tables_of

pytestmark = pytest.mark.usefixtures("few_resamples")  # tables need not have them all


def test_paper_rows_of_the_same_sequence(tmp_path: Path) -> None:
    folder = write_comparison(
        tmp_path, {"continual_sac": [0, 0], "nbsp_sac": [0.1, 0.1], "sac": [0, 0]}, "WindowOpen-WindowClose"
    )
    (table,) = tables_of(folder, paper=True)
    titles = ["vanilla SAC", "paper: vanilla SAC", "NBSP", "paper: NBSP", "SB3's SAC"]
    assert list(table.cells.method) == titles
    # Table 1: 0.90 ± 0.04, 0.18 ± 0.01, 0.96 ± 0.02
    assert row(table, 3)[1:] == ["3", "0.90 ± 0.04", "0.18 ± 0.01", "0.96 ± 0.02", "–", "–", "–", "–"]
    assert "The paper has no numbers here of: SB3's SAC." in table.notes
    assert any("window-open → window-close, mean ± standard error over 3 seeds, 3×768" in note for note in table.notes)
    assert any("two cycles; never counted as best" in note for note in table.notes)
    assert not any("nearest" in note for note in table.notes)
    paper = numbers(table, "paper: NBSP", "ASR")
    assert (paper["mean"], paper["se"], paper["n"]) == (0.90, 0.04, 3) and math.isnan(paper["iqm"])
    assert paper["source"] == "paper, table 1: NBSP"
    assert numbers(table, "NBSP", "ASR")["mean"] == pytest.approx(0.6625)
    assert len(tables_of(folder)[0].cells) == 3, "only if asked for"


def test_a_row_of_the_paper_is_never_the_best(tmp_path: Path) -> None:
    # The paper's ASR is higher than 0.6625 to 0.7, but ours is the best of ours
    runs = {"continual_sac": [0, 0], "nbsp_sac": [0.1, 0.2]}
    (table,) = tables_of(write_comparison(tmp_path, runs, "WindowOpen-WindowClose"), paper=True)
    assert (2, 2) in bold(table) and not {number for number, _ in bold(table)} & {1, 3}


def test_paper_rows_of_the_nearest_sequence(comparison: Path) -> None:
    (table,) = tables_of(comparison, paper=True)
    assert row(table, 3)[0] == "paper: NBSP" and row(table, 3)[2] == "0.95 ± 0.05"
    (note,) = [note for note in table.notes if "nearest" in note]
    assert "does not have the sequence CoffeeButton-HandlePress" in note
    assert "button-press-topdown → window-open (table 2)" in note
    assert not any("scores" in note for note in table.notes)


def test_paper_rows_beside_other_games_are_in_other_units(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path, {"nbsp_discrete_sac": [0.5]}, "MinAtar-Breakout-SpaceInvaders-v0")
    (table,) = tables_of(folder, paper=True)
    assert any("The paper's are scores, 0 for random play and 1 for a human" in note for note in table.notes)


def test_the_table_over_all_has_no_paper_rows(comparison: Path, tmp_path: Path) -> None:
    other = write_comparison(tmp_path / "two", {"nbsp_sac": FIVE}, "WindowOpen-WindowClose")
    overall = tables_of(comparison, other, paper=True)[2]
    assert list(overall.cells.method) == ["NBSP"]
    assert any("The paper has no numbers over several sequences" in note for note in overall.notes)
