"""The command that prints and writes tables."""

import csv
import io
import shutil
from pathlib import Path

import pandas as pd
import pytest
from handmade import write_comparison
from tables import FIVE, run_main, tables_of

from sb3_nbsp.benchmark.__main__ import main
from sb3_nbsp.benchmark.rendering import render

pytestmark = pytest.mark.usefixtures("few_resamples")  # tables need not have them all


def test_a_wrong_folder_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "benchmark.json").write_text("{")
    assert main(["table", str(tmp_path)]) == 2
    assert "benchmark.json is damaged" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"benchmark.json"}


def test_by_default_it_prints_and_writes(comparison: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(comparison / "nbsp_sac" / "seed_2")
    run_main(str(comparison))
    output = capsys.readouterr().out
    assert "CoffeeButton-HandlePress (laptop)" in output and "Left out: NBSP, seed 2: not started" in output
    (table,) = tables_of(comparison)
    assert (comparison / "table.md").read_text() == table.markdown()
    assert (comparison / "table.tex").read_text() == table.latex()
    assert (comparison / "table.csv").read_text() == render([table], "csv")
    assert {path.name for path in comparison.glob("table*")} == {"table.md", "table.tex", "table.csv"}


def test_several_folders_are_written_each_into_its_own(comparison: Path, tmp_path: Path) -> None:
    other = write_comparison(tmp_path / "two", {"nbsp_sac": FIVE}, "WindowOpen-WindowClose")
    run_main(str(comparison), str(other))
    tables = tables_of(comparison, other)
    assert (comparison / "table.md").read_text() == tables[0].markdown()
    assert (other / "table.md").read_text() == tables[1].markdown()
    assert (comparison / "table_all.md").read_text() == tables[2].markdown()
    assert not (other / "table_all.md").exists()


@pytest.mark.parametrize("form", ["markdown", "latex", "csv"])
def test_a_format_is_all_that_is_printed(comparison: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    run_main(str(comparison), "--format", form, "--paper")
    (table,) = tables_of(comparison, paper=True)
    assert capsys.readouterr().out == render([table], form)
    assert not list(comparison.glob("table*"))


def test_csv_on_stdout_of_several_folders(comparison: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_comparison(tmp_path / "two", {"nbsp_sac": FIVE}, "WindowOpen-WindowClose")
    run_main(str(comparison), str(other), "--format", "csv")
    text = capsys.readouterr().out
    frame = pd.read_csv(io.StringIO(text))
    # Three metrics of two methods, of one, and of one over all
    assert len(frame) == 3 * (2 + 1 + 1) and frame["table"].nunique() == 3
    asr = frame[(frame.method == "NBSP") & (frame.measure == "ASR")]
    assert list(asr["mean"]) == pytest.approx([0.79] * 3)
    assert {len(row) for row in csv.reader(io.StringIO(text))} == {11}


def test_an_unknown_format_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_main("x", "--format", "word")
    assert "markdown" in capsys.readouterr().err
