"""The extra that figures need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_plots(what: str) -> Iterator[None]:
    """
    Around imports of what draws.

    :param what: what is to be done
    :raises ValueError: if matplotlib is not installed, with the way to install it
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise ValueError(f"{what} needs matplotlib: pip install 'sb3_nbsp[plots]'") from error
