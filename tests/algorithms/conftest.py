"""What every test of an agent begins with."""

from collections.abc import Iterator

import pytest
from tagged_tasks import TaggedTask


@pytest.fixture(autouse=True)
def forget_what_was_played() -> Iterator[None]:
    TaggedTask.played.clear()
    yield
