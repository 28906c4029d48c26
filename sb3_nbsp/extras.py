"""The extras of this package: where one is missing, the message names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """
    Around imports of what an extra brings along.

    :param extra: the extra's name
    :param what: what needs it
    :raises ModuleNotFoundError: if it is not installed, with the way to install it
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("sb3_nbsp"):
            raise
        raise ModuleNotFoundError(f"{what} needs {error.name}: pip install 'sb3_nbsp[{extra}]'", name=error.name) from error
