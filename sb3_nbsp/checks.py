"""Checks of options that every part of the package may use."""

from __future__ import annotations

import numpy as np


def whole(name: str, value: float, low: int, high: float = np.inf) -> int:
    """
    A whole number, which may be written as a float: 1e4.

    :param name: name of the option
    :param value: its value
    :param low: smallest allowed value
    :param high: largest allowed value
    :return: the value as an integer
    :raises ValueError: if it is no whole number, or out of its range
    """
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not is_number or value != np.floor(value) or not low <= value <= high or np.isinf(value):
        interval = f"of at least {low}" if np.isinf(high) else f"from {low} to {high:g}"
        raise ValueError(f"{name} must be a whole number {interval}, not {value!r}")
    return int(value)
