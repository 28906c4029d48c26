"""The paper's numbers hang together, and belong to methods and sequences that there are."""

import pytest

from sb3_nbsp.benchmark.methods import ABLATIONS, METHODS, PAPER_ROWS
from sb3_nbsp.benchmark.table import NEAREST, NEAREST_GAMES, paper, paper_row, stand_in
from sb3_nbsp.tasks.registration import ATARI_CYCLES, PAPER_CYCLES

BASELINES = {"EWC", "NPC", "ANCL", "CoTASP", "CReLU", "CBP", "PI"}
METRICS = ["ASR", "FM", "FWT"]
GAMES = [f"Atari-{name}" for name in ATARI_CYCLES]


def test_every_sequence_of_tables_1_and_5_and_every_row() -> None:
    assert list(dict.fromkeys(sequence for sequence, _ in paper().index)) == [*PAPER_CYCLES, *GAMES]
    assert all(set(paper().loc[sequence].index) == {*BASELINES, "NBSP"} for sequence in GAMES)
    for sequence, tasks in PAPER_CYCLES.items():
        # The ablations are on two tasks only
        ablations = set(PAPER_ROWS.values()) if len(tasks) == 2 else {"NBSP"}
        rows = list(paper().loc[sequence].index)
        assert set(rows) == BASELINES | ablations and len(set(rows)) == len(rows)


def test_methods_of_the_ablations_have_rows() -> None:
    # The score corrected for chance is not the paper's
    tables = ("table1", "table2", "table3", "table4", "table5")
    assert set(PAPER_ROWS) == {name for table in tables for name in ABLATIONS[table]} - {"nbsp_balanced"}
    for table, suffix in (("table1", "_sac"), ("table5", "_discrete_sac")):
        assert {PAPER_ROWS[name] for name in ABLATIONS[table]} == {*BASELINES, "NBSP"}
        assert all(METHODS[name].algo.endswith(suffix) for name in ABLATIONS[table])
    assert set(PAPER_ROWS) <= set(METHODS)


def test_numbers_are_rates_and_nbsp_is_best_as_the_paper_has_it() -> None:
    assert list(paper()) == ["table", *(f"{metric}{part}" for metric in METRICS for part in ("", "_error"))]
    assert paper().drop(index=GAMES)[METRICS].stack().between(0, 1).all()
    assert paper().loc[GAMES, METRICS].stack().between(-0.2, 1).all()  # normalized scores
    assert paper()[[f"{metric}_error" for metric in METRICS]].stack().between(0, 0.5).all()
    # Bold in all of the paper's tables
    assert all(paper().loc[sequence].ASR.idxmax() == "NBSP" for sequence in [*PAPER_CYCLES, *GAMES])


@pytest.mark.parametrize(
    "sequence, row, numbers",
    [
        (NEAREST, "vanilla SAC", [2, 0.62, 0.01, 0.99, 0.02, 0.98, 0.02]),
        (NEAREST, "weight", [3, 0.93, 0.06, 0.15, 0.12, 0.98, 0.02]),
        (NEAREST, "critic", [4, 0.85, 0.16, 0.35, 0.38, 0.95, 0.03]),
        ("WindowOpen-WindowClose", "only experience replay", [9, 0.81, 0.08, 0.41, 0.13, 0.96, 0.01]),
        ("DrawerOpen-DrawerClose", "NBSP with hard gradient masking", [10, 0.59, 0.16, 0.52, 0.35, 0.82, 0.21]),
        ("Atari-Pong-Bowling", "NBSP", [5, 0.87, 0.01, 0.05, 0.03, 0.72, 0.01]),
        ("Atari-Pong-Bowling", "CoTASP", [5, -0.05, 0.02, 0.07, 0.01, -0.05, 0.05]),
        ("Atari-BankHeist-Alien", "CBP", [5, 0.12, 0.02, 0.44, 0.09, 0.30, 0.05]),
        ("ButtonPressTopdown-WindowClose-DoorOpen-DrawerClose", "NBSP", [1, 0.74, 0.07, 0.34, 0.15, 0.95, 0.06]),
    ],
)
def test_some_numbers(sequence: str, row: str, numbers: list[float]) -> None:
    assert list(paper().loc[(sequence, row)]) == numbers


def test_a_row_is_of_the_sequence_or_of_the_nearest() -> None:
    own, nearest = paper_row("nbsp_sac", "WindowOpen-WindowClose"), paper_row("continual_sac", "CoffeeButton-HandlePress")
    assert own is not None and own.ASR == 0.90
    assert nearest is not None and nearest.FM == 0.99
    assert stand_in("MinAtar-Asterix-Freeway") == stand_in("AtariCycle") == NEAREST_GAMES
    assert (stand_in("WindowOpen-WindowClose"), stand_in("CoffeeButton-HandlePress")) == ("WindowOpen-WindowClose", NEAREST)


@pytest.mark.parametrize("method", ["sac", "nbsp_proportion_0.5", "nbsp_gradient_mask", "no method"])
def test_other_methods_have_no_row(method: str) -> None:
    assert paper_row(method, NEAREST) is None


def test_no_ablation_on_four_tasks() -> None:
    assert paper_row("nbsp_actor", "WindowOpen-WindowClose-DrawerOpen-DrawerClose") is None
