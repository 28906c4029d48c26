"""The picture of plasticity."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from callback_checks import callback, ppo, steps
from matplotlib.figure import Figure
from matplotlib.image import imread

from sb3_nbsp import P3O, PlasticityCallback
from sb3_nbsp.diagnostics.figure import TITLES, _draw_curves, plot_plasticity
from sb3_nbsp.diagnostics.history import COLUMNS, add_record, open_history, read_history


def test_a_dashed_line_marks_the_start_in_the_picture(tmp_path):
    images = []
    for name, first in (("with", 0), ("without", 50)):
        (tmp_path / name).mkdir()
        open_history(tmp_path / name)
        for step, height in ((first, 3.0), (100, 1.0), (200, 2.0)):
            add_record(tmp_path / name, step, {"weight_norm": height, "share_ever_reset": height / 10}, np.eye(3))
        histories = {name: read_history(tmp_path / name)}
        for measure in ("weight_norm", "share_ever_reset"):
            panel = Figure().subplots()
            _draw_curves(panel, histories, measure)
            dashed = [line for line in panel.lines if line.get_linestyle() == "--"]
            images.append([line.get_ydata()[0] for line in dashed])
    assert images == [[3.0], [], [], []]  # counts start at zero anyway


def test_the_picture(tmp_path):
    ppo(P3O, reset_frequency=100, max_distill_epochs=2).learn(300, callback(tmp_path / "new", 100, plot=True))
    image = imread(tmp_path / "new" / "plasticity.png")
    assert image.shape[0] > 600 and image.shape[1] > 1_000
    assert image[..., :3].std() > 0.05  # not empty


def test_several_runs_in_one_picture(tmp_path):
    for name, height in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).mkdir()
        open_history(tmp_path / name)
        for step in (100, 200):
            add_record(tmp_path / name, step, {"weight_norm": height, "dormant_ratio": None}, np.eye(3))
    runs = {name: tmp_path / name for name in ("a", "b")}
    history = read_history(tmp_path / "b")
    assert history["weight_norm"].tolist() == [2.0, 2.0] and np.isnan(history["dormant_ratio"]).all()
    plot_plasticity(runs, tmp_path / "both.png", measures=["weight_norm", "dormant_ratio"], title="both")
    plot_plasticity(runs, tmp_path / "all.png")
    assert imread(tmp_path / "both.png").shape == imread(tmp_path / "all.png").shape  # what no run has is left out
    assert set(TITLES) == {*COLUMNS} - {"step", "resets"}
    with pytest.raises(ValueError, match=r"measures must be among ep_rew_mean, .* not weight"):
        plot_plasticity(runs, tmp_path / "no.png", measures=["weight"])
    with pytest.raises(FileNotFoundError):
        plot_plasticity({"c": tmp_path / "c"}, tmp_path / "no.png")
    assert not (tmp_path / "no.png").exists()


def test_a_run_without_records_can_be_drawn(tmp_path):
    open_history(tmp_path)
    plot_plasticity({"empty": tmp_path}, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").exists()


def test_without_matplotlib(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib" or name == "sb3_nbsp.diagnostics.figure"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"PlasticityCallback\(plot=True\) needs matplotlib: pip install 'sb3_nbsp\[plots\]'"):
        PlasticityCallback(folder=tmp_path)
    ppo().learn(200, callback(tmp_path))
    assert steps(tmp_path) == [0, 200]


def test_importing_the_package_does_not_import_matplotlib():
    code = "import sys, sb3_nbsp; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
