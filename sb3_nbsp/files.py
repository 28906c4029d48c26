"""Write files so that a killed run leaves the old file or the new one, never half of one; read what was written."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """
    A temporary path beside ``path`` which takes its place when the block ends without an error.

    :param path: the file to write; missing folders are made. A symbolic link stays one: the file that it names is written
    :return: where to write
    """
    final = Path(os.path.realpath(path))
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
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], content: Any, indent: int | None = 2) -> None:
    """
    Write a JSON file.

    :param path: the file to write
    :param content: what it is to hold
    :param indent: spaces per level; None for one line
    """
    atomic_write(path, json.dumps(content, indent=indent) + "\n")


def read_json_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """
    Read a JSON file that holds an object.

    :param path: the file
    :return: the object
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if the file is damaged
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds {content!r}")
    return content
