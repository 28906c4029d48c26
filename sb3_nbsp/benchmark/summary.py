"""A metric over seeds, and over task sequences: mean and standard error, interquartile mean and its interval."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

import numpy as np

# Enough for the two decimals that are shown, and a second per method
RESAMPLES = 2_000
NAN = float("nan")


@dataclass(frozen=True)
class Summary:
    """
    A metric of one method. What is not known is nan.

    :param mean: over the seeds
    :param se: standard error of the mean: sample standard deviation / √n; nan with one seed
    :param iqm: interquartile mean over seeds and sequences
    :param low: lower end of its 95 % interval; nan with one seed
    :param high: upper end
    :param n: number of seeds
    """

    mean: float
    se: float
    iqm: float
    low: float
    high: float
    n: int


def summarize(scores: np.ndarray, seed: int = 0) -> Summary:
    """
    :param scores: shape (seeds, sequences)
    :param seed: seed of the bootstrap, so that equal scores have equal intervals
    :return: the summary; all of it is nan if one of the scores is
    :raises ImportError: if rliable cannot be imported
    """
    n = len(scores)
    if not np.isfinite(scores).all():
        return Summary(NAN, NAN, NAN, NAN, NAN, n)
    per_seed = scores.mean(axis=1)
    se = float(per_seed.std(ddof=1)) / math.sqrt(n) if n > 1 else NAN
    iqm, low, high = _interquartile_mean(scores, seed)
    return Summary(float(per_seed.mean()), se, iqm, low, high, n)


def _interquartile_mean(scores: np.ndarray, seed: int) -> tuple[float, float, float]:
    """With the 95 % interval of the stratified bootstrap: resampled are the seeds, of each sequence on its own."""
    library, metrics = _rliable()

    def iqm(values: np.ndarray) -> np.ndarray:
        return np.array([metrics.aggregate_iqm(values)])

    if len(scores) == 1:
        return float(iqm(scores)[0]), NAN, NAN
    # rliable takes a random_state, but draws from numpy's global generator all the same
    with _global_seed(seed):
        points, intervals = library.get_interval_estimates({"": scores}, iqm, reps=RESAMPLES)
    low, high = intervals[""][:, 0]
    return float(points[""][0]), float(low), float(high)


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


def _rliable() -> tuple[ModuleType, ModuleType]:
    """Imported here, for it takes seconds."""
    try:
        from rliable import library, metrics
    except (ImportError, TypeError) as error:
        # arch 7, the newest that rliable allows, ends in a TypeError under pandas 3
        raise ImportError(f"Intervals need rliable: pip install rliable 'pandas<3' ({error})") from error
    return library, metrics
