"""Tables of hand-made comparisons."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from handmade import TASKS, kept, write_comparison, write_run
from tables import bold, numbers, row, tables_of

from sb3_nbsp.benchmark.comparison import Comparison
from sb3_nbsp.benchmark.table import build_tables
from sb3_nbsp.tasks import SuccessMatrix

pytestmark = pytest.mark.usefixtures("few_resamples")  # tables need not have them all

HEADER = ["method", "seeds", "ASR ↑", "FM ↓", "FWT ↑", "steps"]
IQM = ["ASR ↑: IQM [95 %]", "FM ↓: IQM [95 %]", "FWT ↑: IQM [95 %]"]


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
        'hyperparameters {"batch_size": 64}.'
    )


def test_a_setting_without_effect_is_not_told(tmp_path: Path) -> None:
    (table,) = tables_of(write_comparison(tmp_path, {"nbsp_sac": [0.5]}, env_kwargs={"mastery_threshold": None}))
    assert "mastery_threshold None, horizon 200" in table.notes[0]


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


def test_the_metrics_of_the_hand_made_matrices() -> None:
    assert kept(0.5).tasks == TASKS
    assert kept(0.5).metrics() == {"ASR": 0.8125, "FM": 0.5, "FWT": 1.0}
    assert json.dumps(kept(0).metrics()) == '{"ASR": 0.625, "FM": 1.0, "FWT": 1.0}'
