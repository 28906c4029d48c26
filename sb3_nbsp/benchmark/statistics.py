"""Statistics over seeds: the interquartile mean and its interval."""

import numpy as np
from scipy.stats import trim_mean

RESAMPLES = 2_000
LEVELS = (2.5, 97.5)  # percentiles: an interval of 95 %


def interquartile_mean(scores: np.ndarray) -> tuple[float, float, float]:
    """
    Interquartile mean over seeds and sequences, with the 95 % interval of a stratified percentile bootstrap: seeds are
    resampled within each sequence (Agarwal et al. 2021, Deep Reinforcement Learning at the Edge of the Statistical Precipice).

    :param scores: shape (seeds, sequences)
    :return: the mean and the ends of the interval; nan where a score is not known, and for the ends with a single seed
    """
    if not np.isfinite(scores).all() or not len(scores):
        return np.nan, np.nan, np.nan
    mean = float(trim_mean(scores, 0.25, axis=None))
    if len(scores) == 1:
        return mean, np.nan, np.nan
    draws = np.random.default_rng(0).integers(len(scores), size=(RESAMPLES, *scores.shape))
    resampled = np.take_along_axis(scores[None], draws, axis=1).reshape(RESAMPLES, -1)
    low, high = np.percentile(trim_mean(resampled, 0.25, axis=1), LEVELS)
    return mean, float(low), float(high)


def summarize(scores: np.ndarray) -> dict[str, float]:
    """
    :param scores: the scores of a method, shape (seeds, sequences)
    :return: ``mean`` over seeds of the mean over sequences, its standard error ``se``, the interquartile mean ``iqm`` with the
        ends ``low`` and ``high`` of its interval, and the number ``n`` of seeds; what is not known is nan
    """
    per_seed, n = scores.mean(axis=1), len(scores)
    se = float(per_seed.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan
    iqm, low, high = interquartile_mean(scores)
    return {"mean": float(per_seed.mean()), "se": se, "iqm": iqm, "low": low, "high": high, "n": n}
