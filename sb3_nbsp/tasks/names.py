"""What a task may be called: its name becomes a column of CSV files, a key of SB3's logger and a word in messages."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any


def check_task_names(names: Sequence[Any], tasks: Sequence[Any] | None) -> None:
    """
    :param names: names of the distinct tasks
    :param tasks: the names of those to play, in order; None for all
    :raises ValueError: if a name is empty or not printable, two are the same when written, or a task is unknown
    """
    if tasks is not None:
        check_is_list(tasks)
    written = [str(name) for name in names]
    for name in written:
        if not name.strip() or not name.isprintable():
            raise ValueError(f"task_makers: a task's name must be printable text in one line, not {name!r}")
    twice = sorted({name for name in written if written.count(name) > 1})
    if twice:
        raise ValueError(f"task_makers: names must differ when they are written as text: {twice} are there more than once")
    if (tasks is not None and len(tasks) == 0) or not written:
        raise ValueError("tasks must name at least one task")
    unknown = [task for task in tasks or [] if str(task) not in written]
    if unknown:
        raise ValueError(f"tasks: {unknown} are not among {written}")


def check_is_list(tasks: object) -> None:
    """
    :param tasks: names of tasks
    :raises ValueError: if it is none, such as a single name, whose letters would be taken for names
    """
    if isinstance(tasks, str) or not isinstance(tasks, Collection):
        raise ValueError(f"tasks must be a list of task names, not {tasks!r}")
