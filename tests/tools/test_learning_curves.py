"""Learning curves are read from what the zoo writes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sb3_nbsp.zoo import cli
from tools import learning_curves

SMALL = "learning_starts:50 batch_size:16 buffer_size:1000 policy_kwargs:dict(net_arch=[8])"


def train(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (
        f"train --algo continual_discrete_sac --env CartPole-v1 --seed 1 -n 300 --eval-freq 100 --eval-episodes 2 -f {folder}"
    )
    arguments = [
        *words.split(),
        "--tensorboard-log",
        str(folder / "tensorboard"),
        "--log-interval",
        "1",
        "-params",
        *SMALL.split(),
    ]
    monkeypatch.setattr(sys, "argv", ["sb3-nbsp", *arguments])
    cli.main()


def test_curves_of_a_run_of_the_zoo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "1", monkeypatch)
    capsys.readouterr()
    learning_curves.main([str(tmp_path)])
    curves = pd.read_csv(tmp_path / "curves.csv", dtype={"run": str})
    assert set(curves["curve"]) == {"return", *learning_curves.RECORDS.values()}
    assert set(curves["env"]) == {"CartPole-v1"} and set(curves["run"]) == {"1"}
    returns = curves[curves["curve"] == "return"]
    assert returns["step"].tolist() == [100, 200, 300]
    with np.load(tmp_path / "1/continual_discrete_sac/CartPole-v1_1/evaluations.npz") as found:
        assert returns["value"].tolist() == pytest.approx(found["results"].mean(axis=1).tolist())
    assert curves.loc[curves["curve"] == "return in training", "value"].between(1, 500).all()
    entropy = curves.loc[curves["curve"] == "entropy of the policy", "value"]
    assert len(entropy) > 2 and entropy.between(0, np.log(2) + 1e-6).all()
    assert (curves.loc[curves["curve"] == "entropy coefficient", "value"] > 0).all()
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert f"CartPole-v1, 1: not solved; mean of the last 5 {returns['value'].mean():.1f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([500, 200, 480, 475], "475 reached from step 3 on"),
        ([500, 500, 500, 500], "475 reached from step 1 on"),
        ([500, 500, 500, 474], "not solved"),
    ],
)
def test_solved_is_solved_for_good(values: list[float], text: str) -> None:
    assert learning_curves.solved("CartPole-v1", pd.DataFrame({"step": [1, 2, 3, 4], "value": values})) == text
    for env_id in ("HalfCheetah-Directions-v0", "OfAPackageThatIsNotImported-v0"):
        assert learning_curves.solved(env_id, pd.DataFrame({"step": [1], "value": [1.0]})) == "no threshold"


def test_nothing_to_draw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        learning_curves.main([str(tmp_path)])
    assert "no evaluations.npz" in capsys.readouterr().err
