from collections.abc import Iterator
from pathlib import Path

import fake_comparison
import handmade
import pytest
from filelock import FileLock
from matplotlib import rc_context
from small_comparison import run, small_comparison
from tables import FIVE

from sb3_nbsp.benchmark import statistics
from sb3_nbsp.benchmark.comparison import Comparison
from sb3_nbsp.figure_style import STYLE


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The small comparison, computed on this machine in one go. Not to be written to."""
    shared = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        shared = shared.parent
    folder = shared / "uninterrupted"
    with FileLock(shared / "uninterrupted.lock"):
        if not (shared / "uninterrupted.txt").exists():
            (shared / "uninterrupted.txt").write_text(run(small_comparison(), folder))
    return folder


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the time; test_statistics.py has them all."""
    monkeypatch.setattr(statistics, "RESAMPLES", 200)


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    """Of two methods with five seeds each, whose metrics can be worked out by hand."""
    return handmade.write_comparison(tmp_path / "one", {"continual_sac": [0, 0, 0, 0, 0], "nbsp_sac": FIVE})


@pytest.fixture
def style() -> Iterator[None]:
    """As figures are drawn."""
    with rc_context(STYLE):
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three methods, three seeds; only nbsp_sac has neurons.json."""
    methods = Comparison(["CoffeeButton-HandlePress"], fake_comparison.COMPARED)
    fake_comparison.write_comparison(tmp_path / "one", methods, fake_comparison.TASKS, episodes=30)
    return tmp_path / "one"
