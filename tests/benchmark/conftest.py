from pathlib import Path

import pytest
from filelock import FileLock
from small_comparison import run, small_comparison


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
