"""Tables of hand-made comparisons."""

import csv
import io
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handmade import TASKS, kept, write_comparison, write_run
from rich.console import Console

from sb3_nbsp.benchmark import statistics
from sb3_nbsp.benchmark.__main__ import main
from sb3_nbsp.benchmark.comparison import Comparison
from sb3_nbsp.benchmark.frames import load_results
from sb3_nbsp.benchmark.rendering import Table, render
from sb3_nbsp.benchmark.table import SEQUENCE_MEASURES, _fill, build_tables
from sb3_nbsp.tasks import SuccessMatrix

# kept(x): ASR 0.625 + 0.375 x, FM 1 - x, FWT 1
FIVE = [0.0, 1.0, 0.2, 0.6, 0.4]
HEADER = ["method", "seeds", "ASR ↑", "FM ↓", "FWT ↑", "steps"]
IQM = ["ASR ↑: IQM [95 %]", "FM ↓: IQM [95 %]", "FWT ↑: IQM [95 %]"]


def tables_of(*folders: Path, paper: bool = False) -> list[Table]:
    return build_tables([load_results(folder) for folder in folders], paper)


def numbers(table: Table, method: str, measure: str) -> dict[str, float]:
    of = table.numbers
    (number,) = of[(of.method == method) & (of.measure == measure)].to_dict("records")
    return number


def row(table: Table, number: int) -> list[str]:
    return list(table.cells.iloc[number])


def bold(table: Table) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for i, j in np.argwhere(table.bold)}


def run_main(*arguments: str) -> None:
    assert main(["table", *arguments]) == 0


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the time; test_statistics.py has them all."""
    monkeypatch.setattr(statistics, "RESAMPLES", 200)


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    return write_comparison(tmp_path / "one", {"continual_sac": [0, 0, 0, 0, 0], "nbsp_sac": FIVE})


def test_metrics_by_hand(comparison: Path) -> None:
    (table,) = tables_of(comparison)
    asr, fm = numbers(table, "NBSP", "ASR"), numbers(table, "NBSP", "FM")
    # The mean of FIVE is 0.44, its standard error sqrt(0.592 / 4 / 5) (see test_statistics.py), its interquartile mean 0.4
    error = math.sqrt(0.0296)
    assert asr["mean"] == pytest.approx(0.625 + 0.375 * 0.44)  # 0.79
    assert asr["se"] == pytest.approx(0.375 * error)  # 0.0645
    assert asr["iqm"] == pytest.approx(0.625 + 0.375 * 0.4)  # 0.775
    assert asr["low"] < asr["iqm"] < asr["high"]
    assert (fm["mean"], fm["se"], fm["iqm"]) == pytest.approx((0.56, error, 0.6))
    assert asr["n"] == 5 and asr["steps"] == 3000  # 1000, 2000, ... 5000
    fwt = numbers(table, "NBSP", "FWT")
    assert [fwt[name] for name in ("mean", "se", "iqm", "low", "high")] == [1, 0, 1, 1, 1]


def test_cells(comparison: Path) -> None:
    (table,) = tables_of(comparison)
    assert list(table.cells) == HEADER + IQM
    first, second = row(table, 0), row(table, 1)
    assert first[:6] == ["vanilla SAC", "5", "0.63 ± 0.00", "1.00 ± 0.00", "1.00 ± 0.00", "3\u00a0000"]
    assert first[6:] == ["0.63 [0.63, 0.63]", "1.00 [1.00, 1.00]", "1.00 [1.00, 1.00]"]
    assert second[:6] == ["NBSP", "5", "0.79 ± 0.06", "0.56 ± 0.17", "1.00 ± 0.00", "3\u00a0000"]
    assert second[6].startswith("0.78 [0.6") and second[7].startswith("0.60 [0.")


def test_bold_is_what_no_other_interval_overlaps(tmp_path: Path) -> None:
    (table,) = tables_of(write_comparison(tmp_path, {"continual_sac": [0, 0.1, 0.2], "nbsp_sac": [0.7, 0.8, 0.9]}))
    # NBSP has the higher ASR and the lower FM; FWT is a tie; steps have no best
    assert bold(table) == {(1, 2), (1, 3), (1, 6), (1, 7)}
    assert "**0.93 ± 0.02**" in table.markdown() and r"\textbf{0.93 $\pm$ 0.02}" in table.latex()


@pytest.mark.parametrize(
    "runs",
    [
        {"continual_sac": [0, 0.1, 0.75], "nbsp_sac": [0.7, 0.8, 0.9]},  # the intervals overlap
        {"continual_sac": [0], "nbsp_sac": [1]},  # a single seed has none
        {"nbsp_sac": [0.2, 0.4, 0.6]},  # nothing to compare with
        {"continual_sac": [0, 0.1], "nbsp_sac": [0.7, 0.8], "nbsp_hard_masks": [0.75, 0.9]},  # the two best overlap
    ],
)
def test_otherwise_nothing_is_bold(runs: dict[str, list[float | None]], tmp_path: Path) -> None:
    (table,) = tables_of(write_comparison(tmp_path, runs), paper=True)
    assert bold(table) == set()


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    (table,) = tables_of(write_comparison(tmp_path, {"continual_sac": [0], "nbsp_sac": [0.5]}))
    assert row(table, 1)[:6] == ["NBSP", "1", "0.81 (n=1)", "0.50 (n=1)", "1.00 (n=1)", "1\u00a0000"]
    assert row(table, 1)[6:] == ["0.81 [n=1]", "0.50 [n=1]", "1.00 [n=1]"]
    assert any(note.startswith("One seed (n=1)") for note in table.notes)
    assert math.isnan(numbers(table, "NBSP", "ASR")["se"])


def test_fm_of_a_single_task_is_a_dash(tmp_path: Path) -> None:
    one = {"tasks": ["coffee-button"], "cycles": 1}
    Comparison(["CoffeeButton-HandlePress"], ["continual_sac", "nbsp_sac"], [1, 2], env_kwargs=one).save(tmp_path)
    for method in ("continual_sac", "nbsp_sac"):
        for seed in (1, 2):
            matrix = SuccessMatrix(["coffee-button"])
            matrix.set_row(0, "coffee-button", [0.5])
            write_run(tmp_path, method, seed, matrix)
    (table,) = tables_of(tmp_path)
    # Nor is there a column for what no run has
    assert list(table.cells) == [*HEADER[:3], *HEADER[4:], IQM[0], IQM[2]]
    assert row(table, 0)[2] == "0.50 ± 0.00"


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
    assert note.startswith("NBSP, seed 3 is left out: ") and reason in note
    fm = numbers(table, "NBSP", "FM")
    # 0.5 and 0.3: the mean, and half their distance
    assert (fm["n"], fm["mean"], fm["se"]) == pytest.approx((2, 0.4, 0.1))
    assert numbers(table, "vanilla SAC", "FM")["n"] == 3


def test_a_method_without_any_result_has_no_row(tmp_path: Path) -> None:
    (table,) = tables_of(write_comparison(tmp_path, {"continual_sac": [0.5, 0.5], "nbsp_sac": [None, None]}))
    assert list(table.cells.method) == ["vanilla SAC"]
    assert [note for note in table.notes if "left out" in note] == [
        "NBSP, seed 1 is left out: not started",
        "NBSP, seed 2 is left out: not started",
    ]


def test_nothing_done_yet(tmp_path: Path) -> None:
    (table,) = tables_of(write_comparison(tmp_path, {"nbsp_sac": [None]}), paper=True)
    assert table.cells.empty and table.numbers.empty
    assert {"No run is done yet.", "NBSP, seed 1 is left out: not started"} <= {*table.notes}
    assert table.markdown() and table.latex() and render([table], "csv")


def test_a_result_without_steps_shows_a_dash(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path, {"nbsp_sac": [0.5]})
    (folder / "nbsp_sac" / "seed_1" / "result.json").write_text("{}")
    (table,) = tables_of(folder)
    assert row(table, 0)[2] == "0.81 (n=1)" and row(table, 0)[5] == "–"


def test_the_setting_is_told(tmp_path: Path) -> None:
    folder = write_comparison(
        tmp_path, {"nbsp_sac": [0.5]}, env_kwargs={"steps_per_task": 500}, hyperparams={"batch_size": 64}, n_eval_episodes=7
    )
    (table,) = tables_of(folder)
    assert table.caption == "CoffeeButton-HandlePress (laptop)"
    assert table.notes[0] == (
        "Setting: MW-CoffeeButton-HandlePress-laptop-v0, coffee-button → handle-press, cycles 2, steps_per_task 500, "
        "mastery_threshold 0.96, mastery_window 30, horizon 200, 7 evaluation episodes per task after each phase, "
        'hyper-parameters {"batch_size": 64}.'
    )


def test_the_same_folder_gives_the_same_table(comparison: Path) -> None:
    (first,), (second,) = tables_of(comparison), tables_of(comparison)
    pd.testing.assert_frame_equal(first.numbers, second.numbers)
    # Nor does it depend on which other methods there are
    Comparison(["CoffeeButton-HandlePress"], ["nbsp_random"], [1]).save(comparison)
    write_run(comparison, "nbsp_random", 1, kept(0.3))
    (third,) = tables_of(comparison)
    assert [row(third, 0), row(third, 1)] == [row(first, 0), row(first, 1)]


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
    assert [table.markdown() for table in tables[:2]] == [table.markdown() for table in (*tables_of(one), *tables_of(two))]
    fm = numbers(tables[2], "NBSP", "FM")
    # FM of the seeds: (0.6, 0.4) and (0.2, 0), so 0.5 and 0.1 over the sequences: 0.3 ± 0.2
    assert (fm["mean"], fm["se"], fm["n"]) == pytest.approx((0.3, 0.2, 2))
    # One of the four is cut off at either end: 0.4 and 0.2 stay
    assert fm["iqm"] == pytest.approx(0.3)
    # Strata: each sequence is resampled on its own. The lowest resample is (0.2, 0.2) with (0, 0), the highest
    # (0.6, 0.6) with (0.4, 0.4); each is one of sixteen, more than 2.5 %
    assert (fm["low"], fm["high"]) == pytest.approx((0.1, 0.5))
    assert {(1, 2), (1, 3)} <= bold(tables[2])


def test_a_seed_that_one_sequence_lacks_is_named(tmp_path: Path) -> None:
    one = write_comparison(tmp_path / "one", {"continual_sac": [0.2, 0.2], "nbsp_sac": [0.4, 0.8], "nbsp_weight": [0.1, None]})
    two = write_comparison(tmp_path / "two", {"continual_sac": [0.2, 0.2], "nbsp_sac": [0.6, None]}, "WindowOpen-WindowClose")
    overall = tables_of(one, two)[2]
    assert overall.cells[["method", "seeds"]].to_numpy().tolist() == [["vanilla SAC", "2"], ["NBSP", "1"]]
    # Seed 1: 0.6 and 0.4
    assert numbers(overall, "NBSP", "FM")["mean"] == pytest.approx(0.5)
    left_out = [note for note in overall.notes if "left out" in note]
    assert left_out == [
        "NBSP, seed 2 is left out: it has no result of WindowOpen-WindowClose (laptop)",
        "by weight, seed 1 is left out: it has no result of WindowOpen-WindowClose (laptop)",
        "by weight is left out: it has no seed that is done on all sequences",
        "CoffeeButton-HandlePress (laptop): by weight, seed 2 is left out: not started",
        "WindowOpen-WindowClose (laptop): NBSP, seed 2 is left out: not started",
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
    titles = ["vanilla SAC", "paper: vanilla SAC", "NBSP", "paper: NBSP", "SB3's SAC"]
    assert list(table.cells.method) == titles
    # Table 1: 0.90 ± 0.04, 0.18 ± 0.01, 0.96 ± 0.02
    assert row(table, 3)[1:] == ["3", "0.90 ± 0.04", "0.18 ± 0.01", "0.96 ± 0.02", "–", "–", "–", "–"]
    assert "The paper has no numbers here of: SB3's SAC." in table.notes
    assert any("window-open → window-close, mean ± standard error over 3 seeds, 3×768" in note for note in table.notes)
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


def test_the_table_over_all_has_no_paper_rows(comparison: Path, tmp_path: Path) -> None:
    other = write_comparison(tmp_path / "two", {"nbsp_sac": FIVE}, "WindowOpen-WindowClose")
    overall = tables_of(comparison, other, paper=True)[2]
    assert list(overall.cells.method) == ["NBSP"]
    assert any("The paper has no numbers over several sequences" in note for note in overall.notes)


def test_a_wrong_folder_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "benchmark.json").write_text("{")
    assert main(["table", str(tmp_path)]) == 2
    assert "benchmark.json is damaged" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"benchmark.json"}


def test_by_default_it_prints_and_writes(comparison: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(comparison / "nbsp_sac" / "seed_2")
    run_main(str(comparison))
    output = capsys.readouterr().out
    assert "CoffeeButton-HandlePress (laptop)" in output and "NBSP, seed 2 is left out: not started" in output
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


def test_the_metrics_of_the_hand_made_matrices() -> None:
    assert kept(0.5).tasks == TASKS
    assert kept(0.5).metrics() == {"ASR": 0.8125, "FM": 0.5, "FWT": 1.0}
    assert json.dumps(kept(0).metrics()) == '{"ASR": 0.625, "FM": 1.0, "FWT": 1.0}'


NASTY = "a_b|c [red]<b>&50% {x} $5 #1 ~ ^ \\ *s*"


@pytest.fixture
def nasty() -> Table:
    """Text that the formats have their own ideas about."""
    rows = [
        {
            "method": NASTY,
            "source": "ours",
            "measure": "ASR",
            "mean": 0.5,
            "se": 0.1,
            "iqm": 1 / 3,
            "low": 0.25,
            "high": 0.3,
            "n": 3,
        },
        {
            "method": 'a, "b"',
            "source": "ours",
            "measure": "ASR",
            "mean": 0.2,
            "se": 0.1,
            "iqm": 0.2,
            "low": 0.1,
            "high": 0.2,
            "n": 3,
        },
    ]
    return _fill(f"caption {NASTY}", rows, SEQUENCE_MEASURES, [f"note {NASTY}\nsecond line", "a → b"])


def unescape_markdown(text: str) -> str:
    return re.sub(r"\\([\\`*|\[\]_])", r"\1", text).replace("&lt;", "<").replace("&amp;", "&")


def test_markdown_parses_back(nasty: Table) -> None:
    text = nasty.markdown()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert [len(each) for each in rows] == [5] * 4
    assert rows[0][:3] == ["method", "seeds", "ASR ↑"] and rows[1] == ["---"] * 5
    assert [unescape_markdown(cell) for cell in rows[2][:3]] == [NASTY, "3", "**0.50 ± 0.10**"]
    assert "**caption a_b" in text.splitlines()[0]
    notes = [line for line in text.splitlines() if line.startswith("- ")]
    assert [unescape_markdown(note) for note in notes] == [f"- note {NASTY} second line", "- a → b"]
    assert "<b>" not in text and "[red]" not in text.replace("\\[red\\]", "")


def test_markdown_underscores() -> None:
    table = _fill(
        "_c_", [{"method": "nbsp_sac", "source": "ours", "measure": "ASR", "mean": 1, "n": 1}], SEQUENCE_MEASURES, []
    )
    assert "| nbsp_sac |" in table.markdown() and table.markdown().startswith("**\\_c\\_**")


def test_latex(nasty: Table) -> None:
    text = nasty.latex()
    escaped = (
        r"a\_b\textbar{}c [red]\textless{}b\textgreater{}\&50\% \{x\} \$5 \#1 "
        r"\textasciitilde{} \textasciicircum{} \textbackslash{} *s*"
    )
    rows = text.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    cells = [each.strip().removesuffix(r" \\").split(" & ") for each in rows]
    assert cells == [[escaped, "3", r"\textbf{0.50 $\pm$ 0.10}"], ['a, "b"', "3", r"0.20 $\pm$ 0.10"]]
    assert r"method & seeds & ASR $\uparrow$ \\" in text
    assert rf"\caption{{caption {escaped}}}" in text
    assert rf"\par note {escaped} second line" in text and r"a $\rightarrow$ b" in text
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    # Braces are in balance, those that are escaped aside
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert text.isascii()


def test_latex_fits_a_column(comparison: Path) -> None:
    """At 8 points a character takes some 4 points, of the 250 of a column."""
    rows = tables_of(comparison, paper=True)[0].latex().split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert max(len(each.replace(r"$\pm$", "±").removesuffix(r" \\").replace(" & ", " ")) for each in rows) <= 62


def test_csv_parses_back(nasty: Table) -> None:
    frame = pd.read_csv(io.StringIO(render([nasty, nasty], "csv")))
    columns = ["method", "source", "measure", "mean", "se", "iqm", "low", "high", "n", "steps"]
    assert list(frame) == ["table", *columns] and len(frame) == 4, "one header"
    assert frame.table[0] == f"caption {NASTY}" and list(frame.method[:2]) == [NASTY, 'a, "b"']
    assert frame.iqm[0] == 1 / 3, "unrounded"
    assert frame.steps.isna().all()


def test_no_name_of_table_2_is_broken_on_a_terminal() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    (table,) = tables_of(Path(__file__).parents[2] / "docs" / "results" / "table2")
    table.print(console)
    assert console.export_text().count("NBSP, gradient masks ") == len(table.blocks)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_terminal(nasty: Table, comparison: Path, width: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    for table in (nasty, *tables_of(comparison, paper=True)):
        table.print(console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "0.50 ± 0.10" in text and "[bold]" not in text and text.count(NASTY) >= 3, "what looks like markup is shown"
    # No cell is broken into lines, and the paper's rows have no intervals
    assert "0.63 [0.63, 0.63]" in text and "0.79 ± 0.06" in text and text.count("paper: NBSP") == 1
