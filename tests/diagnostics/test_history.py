"""The rows of plasticity.csv: continued, cut off, killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import gymnasium as gym
import numpy as np
import pytest
from callback_checks import callback, ppo, steps
from stable_baselines3 import PPO

from sb3_nbsp.diagnostics.figure import plot_plasticity
from sb3_nbsp.diagnostics.history import open_history, read_history


def test_continuing_a_run(tmp_path):
    model = ppo()
    model.learn(400, callback(tmp_path))
    first = (tmp_path / "plasticity.csv").read_text()
    model.learn(400, callback(tmp_path), reset_num_timesteps=False)
    assert (tmp_path / "plasticity.csv").read_text().startswith(first)
    assert steps(tmp_path) == [0, 200, 400, 600, 800]
    # A loaded checkpoint: rows behind it are of a future that did not happen
    model.save(tmp_path / "model")
    model.learn(400, callback(tmp_path), reset_num_timesteps=False)
    assert steps(tmp_path)[-1] == 1200
    loaded = PPO.load(tmp_path / "model", gym.make("Pendulum-v1"))
    loaded.learn(200, callback(tmp_path), reset_num_timesteps=False)
    assert steps(tmp_path) == [0, 200, 400, 600, 800, 1000]
    # From step 0 it begins anew
    ppo().learn(200, callback(tmp_path))
    assert steps(tmp_path) == [0, 200]


def test_the_same_callback_twice(tmp_path):
    model, again = ppo(), callback(tmp_path)
    model.learn(300, again)
    model.learn(300, again, reset_num_timesteps=False)
    assert steps(tmp_path) == [0, 200, 300, 400, 600]


def test_half_a_row_is_not_read_and_not_continued(tmp_path):
    ppo().learn(400, callback(tmp_path))
    path = tmp_path / "plasticity.csv"
    whole = path.read_text()
    last = whole.splitlines()[-1]
    for half in (last[:-1], last[: len(last) // 2], last):
        path.write_text(whole + half)
        assert read_history(tmp_path)["step"].tolist() == [0, 200, 400]
        open_history(tmp_path, 400)
        assert path.read_text() == whole


@pytest.mark.timeout(120)
def test_a_killed_run_keeps_its_rows(tmp_path):
    code = f"""
from stable_baselines3 import PPO
from sb3_nbsp import PlasticityCallback
model = PPO("MlpPolicy", "Pendulum-v1", n_steps=64, batch_size=64, n_epochs=1, device="cpu")
model.learn(10_000_000, PlasticityCallback(64, {str(tmp_path)!r}, n_states=64, n_gradient_states=4))
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        path, deadline = tmp_path / "plasticity.csv", time.monotonic() + 100
        while not path.exists() or path.read_text().count("\n") < 5:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    history = read_history(tmp_path)
    assert len(history["step"]) >= 4
    assert history["step"].tolist() == [64 * i for i in range(len(history["step"]))]
    assert np.isfinite(history["weight_norm"]).all()
    plot_plasticity({"killed": tmp_path}, tmp_path / "killed.png")
    assert (tmp_path / "killed.png").exists()


@pytest.mark.parametrize("text", ["step,phase,task\n1,2,3\n", ""])
def test_another_file_of_that_name_is_not_overwritten(text, tmp_path):
    (tmp_path / "plasticity.csv").write_text(text)
    with pytest.raises(ValueError, match=r"plasticity.csv is no history of plasticity"):
        open_history(tmp_path, 10)
    assert (tmp_path / "plasticity.csv").read_text() == text
