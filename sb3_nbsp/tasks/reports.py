"""What a task says of its success, in the forms that environments give it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def as_number(report: Any) -> float | None:
    """
    :param report: true or false, a number, or an array or tensor of one
    :return: as a number; None if it is None or NaN, which say nothing
    :raises TypeError: if it is anything else, a text or a dictionary for instance
    """
    if report is None:
        return None
    try:
        number = float(report.item() if hasattr(report, "item") else report)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{report!r} is not one number") from error
    if isinstance(report, str):
        raise TypeError(f"{report!r} is a text")
    return None if math.isnan(number) else number


def step_success(info: Mapping[str, Any]) -> bool | None:
    """
    :param info: what a task says of a step
    :return: whether the step is a success (``info["success"]``, or else ``info["is_success"]``); None if the task does not
        say, as with NaN
    :raises ValueError: if the report is neither true nor false nor a number
    """
    for name in ("success", "is_success"):
        try:
            number = as_number(info.get(name))
        except TypeError as error:
            raise ValueError(f"info[{name!r}] must be true or false, not {info[name]!r}") from error
        if number is not None:
            return bool(number)
    return None
