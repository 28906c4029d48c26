"""What messages to users share: the line that a warning shows, and the name or choice that was probably meant."""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_RUNNERS, _SCRIPT = "<frozen runpy>", sys.argv[0]  # what starts a command: ``python -m``, or a script
_LIBRARIES = ("stable_baselines3", "sb3_contrib", "rl_zoo3")


def folders(*more: str) -> tuple[str, ...]:
    """Beginnings of the paths of this package's code, of that of the libraries it works with, and of more packages."""
    specs = [importlib.util.find_spec(name) for name in (*_LIBRARIES, *more)]
    origins = [Path(spec.origin).parent for spec in specs if spec is not None and spec.origin is not None]
    return _RUNNERS, *(f"{folder}{os.sep}" for folder in (Path(__file__).parent, *origins))


# Between a user's line and the place that warns
_PASSED_OVER = folders()


def warn(message: str) -> None:
    """
    Warn, with the user's own line as the place: the last one that is neither this package's nor that of a library between.

    :param message: what is wrong, and what to do
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PASSED_OVER):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def warn_without_place() -> None:
    """On a command line, a warning of :func:`warn` is the sentence alone: no line of the user's could be named."""
    usual = warnings.formatwarning

    def format_warning(message: Any, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
        if filename.startswith(_RUNNERS) or filename == _SCRIPT:
            return f"Warning: {message}\n"
        return usual(message, category, filename, lineno, line)

    warnings.formatwarning = format_warning


def did_you_mean(name: str, names: Iterable[str], n: int = 1, similarity: float = 0.6, beginnings: bool = False) -> str:
    """
    :param name: a name that is unknown
    :param names: those that there are
    :param n: how many of them to suggest at most
    :param similarity: how similar they have to be, from 0 to 1
    :param beginnings: where none is similar, suggest those that begin with the name ("nbsp": "nbsp_sac")
    :return: "; did you mean ...?", or nothing where none is similar. Upper and lower case do not matter
    """
    known = {each.lower(): each for each in names}
    close = [known[each] for each in difflib.get_close_matches(name.lower(), known, n=n, cutoff=similarity)]
    if name and beginnings and not close:
        close = [each for lower, each in known.items() if lower.startswith(name.lower())][:n]
    return f"; did you mean {' or '.join(close)}?" if close else ""


class ArgumentParser(argparse.ArgumentParser):
    """Says which choice was probably meant ahead of the list of all, which is long for the algorithms."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            hint = did_you_mean(str(value), map(str, action.choices or ()), n=3, beginnings=True)
            error.message = error.message.replace(repr(value), f"{value!r}{hint}", 1)
            raise
