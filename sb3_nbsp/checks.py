"""Checks of options that every part of the package may use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
        interval = f"of at least {low}" if np.isinf(high) else f"from {low} to {high:.0f}"
        raise ValueError(f"{name} must be a whole number {interval}, not {value!r}")
    return int(value)


def check_option(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """
    :param name: name of the option
    :param value: its value
    :param allowed: the values that it may have
    :raises ValueError: if it has another
    """
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")


def check_range(
    name: str, value: float, low: float, high: float = np.inf, low_open: bool = False, infinite: bool = False
) -> None:
    """
    :param name: name of the option
    :param value: its value
    :param low: smallest allowed value
    :param high: largest allowed value
    :param low_open: exclude the smallest value itself
    :param infinite: whether the value may be infinite, where the range is
    :raises ValueError: if the value is outside the range, or no number
    """
    interval = f"{'(' if low_open else '['}{low:g}, {high:g}{')' if np.isinf(high) and not infinite else ']'}"
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    is_within = is_number and (low < value if low_open else low <= value) and value <= high
    if not is_within or (np.isinf(value) and not infinite):
        raise ValueError(f"{name} must be a number in {interval}, not {value!r}")
