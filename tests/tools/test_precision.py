"""The comparison of precisions writes a line for each run, skips those that are there, and draws the gradients' errors."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tools import precision


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    make_env, make_agent, _ = precision.TASKS["Pendulum-v1"]
    monkeypatch.setattr(precision, "TASKS", {"Pendulum-v1": (make_env, make_agent, 160)})
    monkeypatch.setattr(precision, "EPISODES", 1)


def test_runs_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "runs.csv"
    precision.compare(out, ["Pendulum-v1"], [1])
    first = out.read_text(encoding="utf-8")
    rows = list(csv.DictReader(first.splitlines()))
    assert [(row["precision"], row["seed"], row["steps"]) for row in rows] == [("highest", "1", "160"), ("medium", "1", "160")]
    assert all(float(row["return"]) < 0 for row in rows)
    precision.compare(out, ["Pendulum-v1"], [1, 2])
    text = out.read_text(encoding="utf-8")
    assert text.startswith(first) and len(text.splitlines()) == 5


def test_errors_of_gradients(tmp_path: Path) -> None:
    errors = precision.GradientErrors(40)
    env, make, steps = precision.TASKS["Pendulum-v1"]
    make(env(), seed=1).learn(steps, errors)
    assert {row["step"] for row in errors.rows} == {120, 160}
    found = {kind: [row["relative_error"] for row in errors.rows if row["precision"] == kind] for kind in precision.PRECISIONS}
    assert 0 < max(found["highest"]) < 1e-3 < max(found["medium"]) < 1
    path = tmp_path / "errors.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(errors.rows[0]))
        writer.writeheader()
        writer.writerows(errors.rows)
    precision.draw(path)
    assert path.with_suffix(".png").stat().st_size > 10_000
