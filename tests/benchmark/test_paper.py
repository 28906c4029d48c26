"""The paper's numbers hang together, and belong to methods and sequences that there are."""

import pytest

from sb3_nbsp.benchmark.methods import ABLATIONS, METHODS
from sb3_nbsp.benchmark.paper import NEAREST, PAPER, ROWS, paper_row
from sb3_nbsp.tasks.registration import PAPER_CYCLES

BASELINES = {"EWC", "NPC", "ANCL", "CoTASP", "CReLU", "CBP", "PI"}


def test_every_sequence_of_table_1_and_every_row() -> None:
    assert list(PAPER) == list(PAPER_CYCLES)
    for sequence, rows in PAPER.items():
        # The ablations are on two tasks only
        ablations = set(ROWS.values()) if len(PAPER_CYCLES[sequence]) == 2 else {"NBSP"}
        assert set(rows) == BASELINES | ablations


def test_methods_of_the_ablations_have_rows() -> None:
    # The score corrected for chance is not the paper's
    assert set(ROWS) == {name for table in ("table2", "table3", "table4") for name in ABLATIONS[table]} - {"nbsp_balanced"}
    assert set(ROWS) <= set(METHODS)


def test_numbers_are_rates_and_nbsp_is_best_as_the_paper_has_it() -> None:
    for rows in PAPER.values():
        for numbers in rows.values():
            assert list(numbers) == ["ASR", "FM", "FWT"]
            assert all(0 <= mean <= 1 and 0 <= error < 0.5 for mean, error in numbers.values())
        # Bold in all of the paper's tables
        assert max(rows, key=lambda name: rows[name]["ASR"]) == "NBSP"


def test_some_numbers() -> None:
    # Table 2, vanilla SAC; table 3, weight; table 4, critic; table 9, only experience replay; table 10, hard masks
    pair = PAPER["ButtonPressTopdown-WindowOpen"]
    assert pair["vanilla SAC"] == {"ASR": (0.62, 0.01), "FM": (0.99, 0.02), "FWT": (0.98, 0.02)}
    assert pair["weight"] == {"ASR": (0.93, 0.06), "FM": (0.15, 0.12), "FWT": (0.98, 0.02)}
    assert pair["critic"] == {"ASR": (0.85, 0.16), "FM": (0.35, 0.38), "FWT": (0.95, 0.03)}
    assert PAPER["WindowOpen-WindowClose"]["only experience replay"]["ASR"] == (0.81, 0.08)
    assert PAPER["DrawerOpen-DrawerClose"]["NBSP with hard gradient masking"]["FM"] == (0.52, 0.35)
    # Table 1, the last sequence
    assert PAPER["ButtonPressTopdown-WindowClose-DoorOpen-DrawerClose"]["NBSP"]["ASR"] == (0.74, 0.07)


def test_a_row_is_of_the_sequence_or_of_the_nearest() -> None:
    own = paper_row("nbsp_sac", "WindowOpen-WindowClose")
    assert own is not None and own.numbers["ASR"] == (0.90, 0.04)
    assert own.label == "paper: NBSP (window-open → window-close, 3×768, 1e6 steps)"
    nearest = paper_row("continual_sac", "CoffeeButton-HandlePress")
    assert nearest is not None and nearest.sequence == NEAREST
    assert nearest.label == "paper: vanilla SAC (button-press-topdown → window-open, 3×768, 1e6 steps)"


@pytest.mark.parametrize("method", ["sac", "nbsp_proportion_0.5", "nbsp_gradient_mask", "no method"])
def test_other_methods_have_no_row(method: str) -> None:
    assert paper_row(method, NEAREST) is None


def test_no_ablation_on_four_tasks() -> None:
    assert paper_row("nbsp_actor", "WindowOpen-WindowClose-DrawerOpen-DrawerClose") is None
