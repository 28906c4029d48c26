"""Write files so that a killed run leaves the old file or the new one, never half of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """
    A temporary path beside ``path`` which takes its place when the block ends without an error.

    :param path: the file to write; missing folders are made
    :return: where to write
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{os.getpid()}-{final.name}")
    try:
        yield temporary
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path: str | os.PathLike[str], text: str) -> None:
    """
    Write a text file.

    :param path: the file to write
    :param text: its content
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text)
