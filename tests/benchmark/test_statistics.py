"""Mean, standard error and interquartile mean, by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from sb3_nbsp.benchmark.statistics import summarize


def column(*scores: float) -> np.ndarray:
    return np.array(scores)[:, None]


def test_five_seeds_by_hand() -> None:
    result = summarize(column(0.0, 1.0, 0.2, 0.6, 0.4))
    assert result["n"] == 5
    assert result["mean"] == pytest.approx(0.44)
    # Deviations -0.44, 0.56, -0.24, 0.16, -0.04: squares 0.1936 + 0.3136 + 0.0576 + 0.0256 + 0.0016 = 0.592;
    # sample variance 0.592 / 4 = 0.148; standard error sqrt(0.148 / 5)
    assert result["se"] == pytest.approx(math.sqrt(0.0296))
    # A quarter of 5, rounded down, is cut off at either end: 0 and 1 go
    assert result["iqm"] == pytest.approx((0.2 + 0.4 + 0.6) / 3)
    assert 0 <= result["low"] < result["iqm"] < result["high"] <= 1


def test_two_seeds_have_the_interval_of_all_their_resamples() -> None:
    result = summarize(column(0.2, 0.8))
    # |0.8 - 0.2| / sqrt(2) is the deviation, over sqrt(2) the error
    assert (result["mean"], result["se"], result["iqm"]) == pytest.approx((0.5, 0.3, 0.5))
    # A quarter of the resamples is (0.2, 0.2) and a quarter (0.8, 0.8)
    assert (result["low"], result["high"]) == pytest.approx((0.2, 0.8))


def test_sequences_are_strata() -> None:
    # Seeds agree within each sequence: whatever is resampled within it, the mean of 0, 0, 1, 1 is left
    result = summarize(np.array([[0.0, 1.0], [0.0, 1.0]]))
    assert tuple(result.values()) == pytest.approx((0.5, 0, 0.5, 0.5, 0.5, 2))
    # Across sequences they would not agree
    assert summarize(column(0.0, 1.0))["high"] == 1


def test_mean_over_sequences_first_then_error_over_seeds() -> None:
    # Means of the seeds: 0.5 and 0.7; the error is half their distance
    result = summarize(np.array([[0.2, 0.8], [0.6, 0.8]]))
    assert (result["mean"], result["se"]) == pytest.approx((0.6, 0.1))
    # Of the four scores, one is cut off at either end: 0.2 and one of the 0.8
    assert result["iqm"] == pytest.approx(0.7)


def test_one_seed_has_no_interval() -> None:
    result = summarize(column(0.3))
    assert (result["mean"], result["iqm"], result["n"]) == pytest.approx((0.3, 0.3, 1))
    assert all(math.isnan(value) for value in (result["se"], result["low"], result["high"]))


def test_nan_stays_nan() -> None:
    result = summarize(column(0.3, float("nan")))
    assert result["n"] == 2 and all(math.isnan(value) for value in list(result.values())[:5])


def test_reproducible_and_no_draw_from_the_global_generator() -> None:
    scores = column(*np.random.default_rng(0).random(7))
    np.random.seed(5)
    first = summarize(scores)
    drawn = np.random.random()
    second = summarize(scores)
    assert first == second
    np.random.seed(5)
    assert drawn == np.random.random()


# FM of docs/results/table2: the interquartile mean and its interval as rliable 1.2 found them, with as many resamples
PUBLISHED = {
    "continual_sac": (0.3778, 0.1167, 0.5667),
    "nbsp_replay_only": (0.1889, -0.0667, 0.5667),
    "nbsp_masks_only": (0.4722, 0.2833, 0.7167),
    "nbsp_hard_masks": (0.4556, 0.2667, 0.7167),
    "nbsp_sac": (0.1333, -0.0833, 0.4833),
    "nbsp_gradient_mask": (0.7222, 0.6667, 0.7667),
}


@pytest.mark.parametrize("method", PUBLISHED)
def test_the_published_intervals_are_found(method: str) -> None:
    results = Path(__file__).parents[2] / "docs" / "results" / "table2"
    found = [json.loads(path.read_text())["FM"] for path in sorted(results.glob(f"{method}/*/result.json"))]
    result = summarize(column(*found))
    assert (result["iqm"], result["low"], result["high"]) == pytest.approx(PUBLISHED[method], abs=0.01)
