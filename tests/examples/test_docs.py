"""The Python in the documentation's guides runs as it stands there, with fewer steps."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from matplotlib.image import imread

ROOT = Path(__file__).parents[2]
FEWER = {
    "getting_started": {"STEPS = 4_000": "STEPS = 550", "n_eval_episodes=20": "n_eval_episodes=2"},
    "from_sb3": {"STEPS = 2_000": "STEPS = 210"},
}


def run_page(name: str) -> dict[str, object]:
    """All Python blocks of a page, one after the other."""
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    code = "\n".join(blocks)
    for many, few in FEWER[name].items():
        assert code.count(many) == 1
        code = code.replace(many, few)
    names: dict[str, object] = {"__name__": name}
    exec(compile(code, f"{name}.md", "exec"), names)
    return names


def test_getting_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    evaluations = run_page("getting_started")["evaluations"]
    assert isinstance(evaluations, dict)
    for name, evaluation in evaluations.items():
        assert len(evaluation.matrix.rows) == 4 and (tmp_path / "runs" / name / "model.zip").exists()
    assert imread("success.png").std() > 0


@pytest.mark.filterwarnings("ignore:.*learns nothing in this call")
def test_from_sb3_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_page("from_sb3")
    model = names["model"]
    assert model.phase.index == 2 and model.phase.task == "earth"  # type: ignore[attr-defined]
    assert re.search(r"^earth: -\d+ ± \d+\nmoon: -\d+ ± \d+$", capsys.readouterr().out, flags=re.MULTILINE)
    # Where this package is not installed
    act = (
        "import sys; sys.modules['sb3_nbsp'] = None\n"
        "from stable_baselines3 import SAC\n"
        "print(SAC.load('plain_sac.zip').predict([0.6, 0.8, 1.0], deterministic=True)[0].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", act], cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = model.predict([0.6, 0.8, 1.0], deterministic=True)[0].tolist()  # type: ignore[attr-defined]
    assert eval(done.stdout) == pytest.approx(expected, abs=1e-6)
