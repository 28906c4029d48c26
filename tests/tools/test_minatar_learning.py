"""The tool that compares agents on MinAtar trains each run once, and draws a line for each."""

from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("minatar", reason="MinAtar is not installed: pip install 'sb3_nbsp[minatar]'")

from tools import minatar_learning

SMALL = [
    "--games",
    "Breakout",
    "--agents",
    "discrete_sac",
    "dqn",
    "--steps",
    "60",
    "--eval-freq",
    "30",
    "--eval-episodes",
    "1",
]


def test_curves_of_each_run_are_kept_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minatar_learning.main([str(tmp_path), *SMALL, "--seeds", "1"])
    first = pd.read_csv(tmp_path / "curves.csv")
    assert first[["agent", "step"]].values.tolist() == [["discrete_sac", 30], ["discrete_sac", 60], ["dqn", 30], ["dqn", 60]]
    assert (tmp_path / "curves.png").stat().st_size > 1_000

    trained = []
    for name, make in minatar_learning.AGENTS.items():
        monkeypatch.setitem(
            minatar_learning.AGENTS, name, lambda env, seed, steps, make=make: trained.append(seed) or make(env, seed, steps)
        )
    minatar_learning.main([str(tmp_path), *SMALL, "--seeds", "1", "2"])
    both = pd.read_csv(tmp_path / "curves.csv")
    assert trained == [2, 2], "the runs of seed 1 are complete"
    pd.testing.assert_frame_equal(both[both["seed"] == 1].reset_index(drop=True), first)


def test_a_missing_library_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(minatar_learning, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        minatar_learning.main([str(tmp_path / "runs")])
    assert "pip install sb3-soft" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
