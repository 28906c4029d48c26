import os
import re
from pathlib import Path

import pytest

from sb3_nbsp.benchmark.__main__ import main
from sb3_nbsp.machine import usable_cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be bound to cores here")
def test_jobs_are_as_many_as_the_cores_that_the_process_is_bound_to(capsys):
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        with pytest.raises(SystemExit):
            main(["run", "--help"])
        assert re.search(r"--jobs JOBS\s+local: number of runs at a time \(default: 1\)", capsys.readouterr().out)
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    "files, cores",
    [
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu.cfs_quota_us": "300000\n", "cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, 64),
        ({}, 64),
    ],
)
def test_a_containers_share_of_the_time_counts(files, cores, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert usable_cores(tmp_path) == cores
