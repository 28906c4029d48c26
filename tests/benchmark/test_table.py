"""Tables of hand-made comparisons."""

import argparse
import csv
import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from handmade import TASKS, kept, write_comparison, write_run

from sb3_nbsp.benchmark import summary
from sb3_nbsp.benchmark.plan import Plan
from sb3_nbsp.benchmark.results import load_results
from sb3_nbsp.benchmark.table import Table, add_arguments, build_tables, main
from sb3_nbsp.tasks import SuccessMatrix

# kept(x): ASR 0.625 + 0.375 x, FM 1 - x, FWT 1
FIVE = [0.0, 1.0, 0.2, 0.6, 0.4]
HEADER = ["method", "seeds", "ASR ↑", "FM ↓", "FWT ↑", "steps"]
IQM = ["IQM of ASR ↑ (95 %)", "IQM of FM ↓ (95 %)", "IQM of FWT ↑ (95 %)"]


def tables_of(*folders: Path, paper: bool = False) -> list[Table]:
    return build_tables([load_results(folder) for folder in folders], paper)


def numbers(table: Table, method: str, metric: str, source: str = "ours") -> dict[str, float]:
    (number,) = [n for n in table.numbers if (n.method, n.metric, n.source) == (method, metric, source)]
    return vars(number)


def run_main(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    main(parser.parse_args(arguments))


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the time; test_summary.py has them all."""
    monkeypatch.setattr(summary, "RESAMPLES", 200)


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    return write_comparison(tmp_path / "one", {"continual_sac": [0, 0, 0, 0, 0], "nbsp_sac": FIVE})


def test_metrics_by_hand(comparison: Path) -> None:
    (table,) = tables_of(comparison)
    asr, fm = numbers(table, "nbsp_sac", "ASR"), numbers(table, "nbsp_sac", "FM")
    # The mean of FIVE is 0.44, its standard error sqrt(0.592 / 4 / 5) (see test_summary.py), its interquartile mean 0.4
    error = math.sqrt(0.0296)
    assert asr["mean"] == pytest.approx(0.625 + 0.375 * 0.44)  # 0.79
    assert asr["se"] == pytest.approx(0.375 * error)  # 0.0645
    assert asr["iqm"] == pytest.approx(0.625 + 0.375 * 0.4)  # 0.775
    assert asr["low"] < asr["iqm"] < asr["high"]
    assert (fm["mean"], fm["se"], fm["iqm"]) == pytest.approx((0.56, error, 0.6))
    assert asr["n"] == 5 and asr["steps"] == 3000  # 1000, 2000, ... 5000
    fwt = numbers(table, "nbsp_sac", "FWT")
    assert [fwt[name] for name in ("mean", "se", "iqm", "low", "high")] == [1, 0, 1, 1, 1]


def test_cells(comparison: Path) -> None:
    (table,) = tables_of(comparison)
    assert table.header == HEADER + IQM
    first = table.rows[0]
    assert first[:6] == ["continual_sac", "5", "0.62 ± 0.00", "1.00 ± 0.00", "1.00 ± 0.00", "3\u00a0000"]
    assert first[6:] == ["0.62 (0.62 to 0.62)", "1.00 (1.00 to 1.00)", "1.00 (1.00 to 1.00)"]
    assert table.rows[1][:6] == ["nbsp_sac", "5", "0.79 ± 0.06", "0.56 ± 0.17", "1.00 ± 0.00", "3\u00a0000"]
    assert table.rows[1][6].startswith("0.78 (0.6") and table.rows[1][7].startswith("0.60 (0.")


def test_best_is_bold_and_ties_too(comparison: Path) -> None:
    (table,) = tables_of(comparison)
    # nbsp_sac has the higher ASR and the lower FM; FWT is a tie; steps have no best
    assert table.best == {(1, 2), (1, 3), (0, 4), (1, 4), (1, 6), (1, 7), (0, 8), (1, 8)}
    assert "**0.79 ± 0.06**" in table.markdown() and r"\textbf{0.79 $\pm$ 0.06}" in table.latex()


def test_what_looks_equal_is_a_tie(tmp_path: Path) -> None:
    # FM 0.502 and 0.498: both are shown as 0.50
    (table,) = tables_of(write_comparison(tmp_path, {"continual_sac": [0.498], "nbsp_sac": [0.502]}))
    assert {(0, 3), (1, 3)} <= table.best


def test_one_method_has_no_best(tmp_path: Path) -> None:
    (table,) = tables_of(write_comparison(tmp_path, {"nbsp_sac": FIVE}), paper=True)
    assert len(table.rows) == 2 and table.best == set()


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    (table,) = tables_of(write_comparison(tmp_path, {"continual_sac": [0], "nbsp_sac": [0.5]}))
    assert table.rows[1][:6] == ["nbsp_sac", "1", "0.81 (n=1)", "0.50 (n=1)", "1.00 (n=1)", "1\u00a0000"]
    assert table.rows[1][6:] == ["0.81 (n=1)", "0.50 (n=1)", "1.00 (n=1)"]
    assert any(note.startswith("One seed (n=1)") for note in table.notes)
    assert math.isnan(numbers(table, "nbsp_sac", "ASR")["se"])


def test_fm_of_a_single_task_is_a_dash(tmp_path: Path) -> None:
    one = {"tasks": ["coffee-button"], "cycles": 1}
    Plan("CoffeeButton-HandlePress", "laptop", ["continual_sac", "nbsp_sac"], [1, 2], env_kwargs=one).save(tmp_path)
    for method in ("continual_sac", "nbsp_sac"):
        for seed in (1, 2):
            matrix = SuccessMatrix(["coffee-button"])
            matrix.set_row(0, "coffee-button", [0.5])
            write_run(tmp_path, method, seed, matrix)
    (table,) = tables_of(tmp_path)
    assert [row[3] for row in table.rows] == ["–", "–"] and [row[7] for row in table.rows] == ["–", "–"]
    assert table.rows[0][2] == "0.50 ± 0.00"
    assert not {column for _, column in table.best} & {3, 7}


def corrupt_matrix(folder: Path) -> None:
    (folder / "success_matrix.csv").write_text("phase,task,coffee-button,handle-press\n0,coffee-button,1.0\n")


def corrupt_result(folder: Path) -> None:
    (folder / "result.json").write_text('{"steps": 10')


def nan_matrix(folder: Path) -> None:
    matrix = kept(1)
    matrix.rows[1][0] = float("nan")
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
        (nan_matrix, "has phases whose success is not known"),
        (fail, "failed: ValueError: [bold]out of memory[/bold]"),
        (lose_a_phase, "has 3 phases instead of 4"),
    ],
)
def test_a_run_without_a_result_is_named_and_left_out(tmp_path: Path, damage: Callable[[Path], object], reason: str) -> None:
    # Seed 3 would change every number if it counted, as itself or as zero
    folder = write_comparison(tmp_path, {"continual_sac": [0, 0, 0], "nbsp_sac": [0.5, 0.7, 1.0]})
    damage(folder / "nbsp_sac" / "seed_3")
    (table,) = tables_of(folder)
    (note,) = [note for note in table.notes if "is left out" in note]
    assert note.startswith("nbsp_sac, seed 3 is left out: ") and reason in note
    fm = numbers(table, "nbsp_sac", "FM")
    # 0.5 and 0.3: the mean, and half their distance
    assert (fm["n"], fm["mean"], fm["se"]) == pytest.approx((2, 0.4, 0.1))
    assert numbers(table, "continual_sac", "FM")["n"] == 3
    assert note in table.html().replace("&#x27;", "'").replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">")


def test_a_method_without_any_result_has_no_row(tmp_path: Path) -> None:
    (table,) = tables_of(write_comparison(tmp_path, {"continual_sac": [0.5, 0.5], "nbsp_sac": [None, None]}))
    assert [row[0] for row in table.rows] == ["continual_sac"]
    assert [note for note in table.notes if "left out" in note] == [
        "nbsp_sac, seed 1 is left out: not started",
        "nbsp_sac, seed 2 is left out: not started",
    ]


def test_nothing_done_yet(tmp_path: Path) -> None:
    (table,) = tables_of(write_comparison(tmp_path, {"nbsp_sac": [None]}), paper=True)
    assert table.rows == [] and table.numbers == []
    assert "nbsp_sac, seed 1 is left out: not started" in table.notes


def test_a_result_without_steps_shows_a_dash(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path, {"nbsp_sac": [0.5]})
    (folder / "nbsp_sac" / "seed_1" / "result.json").write_text("{}")
    (table,) = tables_of(folder)
    assert table.rows[0][2] == "0.81 (n=1)" and table.rows[0][5] == "–"


def test_the_setting_is_told(tmp_path: Path) -> None:
    folder = write_comparison(
        tmp_path, {"nbsp_sac": [0.5]}, env_kwargs={"steps_per_task": 500}, hyperparams={"batch_size": 64}, n_eval_episodes=7
    )
    (table,) = tables_of(folder)
    assert table.caption == "CoffeeButton-HandlePress (laptop)"
    assert table.notes[0] == (
        "Setting: MW-CoffeeButton-HandlePress-laptop-v0, coffee-button → handle-press, cycles 2, steps_per_task 500, "
        "mastery_threshold 0.9, horizon 200, 7 evaluation episodes per task after each phase, "
        'hyper-parameters {"batch_size": 64}.'
    )


def test_the_same_folder_gives_the_same_table(comparison: Path) -> None:
    first, second = tables_of(comparison), tables_of(comparison)
    assert first == second
    # Nor does it depend on which other methods there are
    Plan("CoffeeButton-HandlePress", "laptop", ["nbsp_random"], [1]).save(comparison)
    write_run(comparison, "nbsp_random", 1, kept(0.3))
    (third,) = tables_of(comparison)
    assert third.rows[:2] == first[0].rows


def test_several_sequences(tmp_path: Path) -> None:
    methods = ["continual_sac", "nbsp_sac"]
    one = write_comparison(tmp_path / "one", dict(zip(methods, ([0, 0], [0.4, 0.8]), strict=True)))
    two = write_comparison(tmp_path / "two", dict(zip(methods, ([0, 0], [0.6, 1.0]), strict=True)), "WindowOpen-WindowClose")
    tables = tables_of(one, two)
    assert [table.caption for table in tables] == [
        "CoffeeButton-HandlePress (laptop)",
        "WindowOpen-WindowClose (laptop)",
        "All 2 sequences: CoffeeButton-HandlePress (laptop); WindowOpen-WindowClose (laptop)",
    ]
    assert tables[:2] == [*tables_of(one), *tables_of(two)]
    fm = numbers(tables[2], "nbsp_sac", "FM")
    # FM of the seeds: (0.6, 0.4) and (0.2, 0), so 0.5 and 0.1 over the sequences: 0.3 ± 0.2
    assert (fm["mean"], fm["se"], fm["n"]) == pytest.approx((0.3, 0.2, 2))
    # One of the four is cut off at either end: 0.4 and 0.2 stay
    assert fm["iqm"] == pytest.approx(0.3)
    # Strata: each sequence is resampled on its own. The lowest resample is (0.2, 0.2) with (0, 0), the highest
    # (0.6, 0.6) with (0.4, 0.4); each is one of sixteen, more than 2.5 %
    assert (fm["low"], fm["high"]) == pytest.approx((0.1, 0.5))
    assert {(1, 2), (1, 3)} <= tables[2].best


def test_a_seed_that_one_sequence_lacks_is_named(tmp_path: Path) -> None:
    one = write_comparison(tmp_path / "one", {"continual_sac": [0.2, 0.2], "nbsp_sac": [0.4, 0.8], "nbsp_weight": [0.1, None]})
    two = write_comparison(tmp_path / "two", {"continual_sac": [0.2, 0.2], "nbsp_sac": [0.6, None]}, "WindowOpen-WindowClose")
    overall = tables_of(one, two)[2]
    assert [row[:2] for row in overall.rows] == [["continual_sac", "2"], ["nbsp_sac", "1"]]
    # Seed 1: 0.6 and 0.4
    assert numbers(overall, "nbsp_sac", "FM")["mean"] == pytest.approx(0.5)
    left_out = [note for note in overall.notes if "left out" in note]
    assert left_out == [
        "nbsp_sac, seed 2 is left out: it has no result of WindowOpen-WindowClose (laptop)",
        "nbsp_weight, seed 1 is left out: it has no result of WindowOpen-WindowClose (laptop)",
        "nbsp_weight is left out: it has no seed that is done on all sequences",
        "CoffeeButton-HandlePress (laptop): nbsp_weight, seed 2 is left out: not started",
        "WindowOpen-WindowClose (laptop): nbsp_sac, seed 2 is left out: not started",
    ]


def test_one_sequence_in_two_folders(tmp_path: Path) -> None:
    folders = [
        write_comparison(tmp_path / name, {"nbsp_sac": [0.5]}, env_kwargs={"cycles": n}) for n, name in ((2, "a"), (3, "b"))
    ]
    captions = [table.caption for table in tables_of(*folders)]
    assert captions[:2] == [f"CoffeeButton-HandlePress (laptop), {folder}" for folder in folders]


def test_a_folder_given_twice_is_an_error(comparison: Path) -> None:
    with pytest.raises(ValueError, match="A folder is given twice"):
        tables_of(comparison, comparison / ".." / "one")
    with pytest.raises(ValueError, match="at least one comparison"):
        build_tables([])


def test_paper_rows_of_the_same_sequence(tmp_path: Path) -> None:
    folder = write_comparison(
        tmp_path, {"continual_sac": [0, 0], "nbsp_sac": [0.1, 0.1], "sac": [0, 0]}, "WindowOpen-WindowClose"
    )
    (table,) = tables_of(folder, paper=True)
    assert [row[0] for row in table.rows] == [
        "continual_sac",
        "paper: vanilla SAC (window-open → window-close, 3×768, 1e6 steps)",
        "nbsp_sac",
        "paper: NBSP (window-open → window-close, 3×768, 1e6 steps)",
        "sac",
    ]
    # Table 1: 0.90 ± 0.04, 0.18 ± 0.01, 0.96 ± 0.02
    assert table.rows[3][1:] == ["3", "0.90 ± 0.04", "0.18 ± 0.01", "0.96 ± 0.02", "–", "–", "–", "–"]
    # The paper's ASR is higher than 0.6625, but ours is the best of ours
    assert (2, 2) in table.best and not {row for row, _ in table.best} & {1, 3}
    assert "The paper has no numbers here of: sac." in table.notes
    assert not any("nearest" in note for note in table.notes)
    paper = numbers(table, "nbsp_sac", "ASR", table.rows[3][0])
    assert (paper["mean"], paper["se"], paper["n"]) == (0.90, 0.04, 3) and math.isnan(paper["iqm"])
    assert numbers(table, "nbsp_sac", "ASR")["mean"] == pytest.approx(0.6625)
    assert len(tables_of(folder)[0].rows) == 3, "only if asked for"


def test_paper_rows_of_the_nearest_sequence(comparison: Path) -> None:
    (table,) = tables_of(comparison, paper=True)
    assert table.rows[3][0] == "paper: NBSP (button-press-topdown → window-open, 3×768, 1e6 steps)"
    assert table.rows[3][2] == "0.95 ± 0.05"
    (note,) = [note for note in table.notes if "nearest" in note]
    assert "does not have the sequence CoffeeButton-HandlePress" in note
    assert "button-press-topdown → window-open (table 2)" in note


def test_the_table_over_all_has_no_paper_rows(comparison: Path, tmp_path: Path) -> None:
    other = write_comparison(tmp_path / "two", {"nbsp_sac": FIVE}, "WindowOpen-WindowClose")
    overall = tables_of(comparison, other, paper=True)[2]
    assert [row[0] for row in overall.rows] == ["nbsp_sac"]
    assert any("The paper has no numbers over several sequences" in note for note in overall.notes)


def test_a_wrong_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no comparison: benchmark\.json is missing"):
        run_main(str(tmp_path))
    (tmp_path / "benchmark.json").write_text("{")
    with pytest.raises(ValueError, match=r"benchmark\.json is damaged"):
        run_main(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"benchmark.json"}


def test_by_default_it_prints_and_writes(comparison: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(comparison / "nbsp_sac" / "seed_2")
    run_main(str(comparison))
    output = capsys.readouterr().out
    assert "CoffeeButton-HandlePress (laptop)" in output and "nbsp_sac, seed 2 is left out: not started" in output
    (table,) = tables_of(comparison)
    assert (comparison / "table.md").read_text() == table.markdown()
    assert (comparison / "table.tex").read_text() == table.latex()
    assert (comparison / "table.csv").read_text() == table.csv()
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
    assert capsys.readouterr().out == getattr(table, form)()
    assert not list(comparison.glob("table*"))


def test_csv_on_stdout_of_several_folders(comparison: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_comparison(tmp_path / "two", {"nbsp_sac": FIVE}, "WindowOpen-WindowClose")
    run_main(str(comparison), str(other), "--format", "csv")
    text = capsys.readouterr().out
    frame = pd.read_csv(io.StringIO(text))
    # Three metrics of two methods, of one, and of one over all
    assert len(frame) == 3 * (2 + 1 + 1) and frame["table"].nunique() == 3
    asr = frame[(frame.method == "nbsp_sac") & (frame.metric == "ASR")]
    assert list(asr["mean"]) == pytest.approx([0.79] * 3)
    assert {len(row) for row in csv.reader(io.StringIO(text))} == {11}


def test_an_unknown_format_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_main("x", "--format", "word")
    assert "markdown" in capsys.readouterr().err


def test_the_metrics_of_the_hand_made_matrices() -> None:
    assert kept(0.5).tasks == TASKS
    assert kept(0.5).metrics() == {"ASR": 0.8125, "FM": 0.5, "FWT": 1.0}
    assert json.dumps(kept(0).metrics()) == '{"ASR": 0.625, "FM": 1.0, "FWT": 1.0}'
