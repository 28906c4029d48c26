"""Sequences of small tasks whose course is known beforehand."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from scripted_tasks import ScriptedTask, SignTask

from sb3_nbsp.tasks import TaskSequence


def always(_episode: int, _step: int) -> bool:
    return True


def never(_episode: int, _step: int) -> bool:
    return False


@pytest.fixture
def make_sequence() -> Callable[..., TaskSequence]:
    """Makes a sequence from names and the options of their :class:`ScriptedTask`; the markers are 1, 2, 3, ..."""

    def make(scripted: dict[str, dict[str, Any]], **options: Any) -> TaskSequence:
        makers = {}
        for index, (name, task) in enumerate(scripted.items()):
            cls = SignTask if task.get("success") == "sign" else ScriptedTask
            kwargs = {key: value for key, value in task.items() if value != "sign"}
            makers[name] = partial(cls, marker=index + 1.0, **kwargs)
        return TaskSequence(makers, **options)

    return make


@pytest.fixture
def easy() -> dict[str, Any]:
    """Options of a task on which every step is a success."""
    return {"success": always}


@pytest.fixture
def hard() -> dict[str, Any]:
    """Options of a task on which no step is a success."""
    return {"success": never}
