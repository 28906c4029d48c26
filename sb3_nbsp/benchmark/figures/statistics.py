"""Mean over seeds and how sure it is."""

from __future__ import annotations

import numpy as np


def mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""
    Mean over seeds and its standard error, :math:`s / \sqrt n`, as the tables of NBSP have it. Unknown values (nan) do not
    count; without a known value the mean is nan, with fewer than two the standard error.

    :param values: shape (seeds, ...)
    :return: the mean and the standard error, both of shape (...)
    """
    known = np.isfinite(values)
    n = known.sum(axis=0)
    mean = np.where(known, values, 0).sum(axis=0) / np.where(n > 0, n, np.nan)
    squares = np.where(known, (values - mean) ** 2, 0).sum(axis=0)
    return mean, np.sqrt(squares / np.where(n > 1, n - 1, np.nan) / np.where(n > 0, n, np.nan))
