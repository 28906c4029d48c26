"""The speed script measures what it says."""

import re

import numpy as np
import pytest
from stable_baselines3 import SAC

from sb3_nbsp import NBSPSAC, ContinualSAC
from sb3_nbsp.benchmark import speed
from sb3_nbsp.benchmark.__main__ import main
from sb3_nbsp.interventions import ExperienceReplay, GradientMasking


@pytest.mark.parametrize("cls", [SAC, ContinualSAC, NBSPSAC])
def test_models_have_full_buffers(cls):
    model = speed.make(cls, [16, 16])
    assert model.replay_buffer.size() == 10_000
    assert np.std(model.replay_buffer.observations) == pytest.approx(1, abs=0.01)
    before = [parameter.detach().clone() for parameter in model.actor.parameters()]
    model.train(gradient_steps=1, batch_size=16)
    assert all((old != new).any() for old, new in zip(before, model.actor.parameters(), strict=True))


def test_the_masked_model_has_masks_and_memory():
    model = speed.make(NBSPSAC, [16, 16], masked=True)
    masks = model.hooks.find(GradientMasking).masks
    assert len(masks) == 6 and all((mask < 1).any() for mask in masks.values())
    assert model.hooks.find(ExperienceReplay).memory.size() == 10_000


def test_the_script_prints_ratios(monkeypatch, capsys):
    monkeypatch.setattr(speed.th, "set_num_threads", lambda number: None)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["speed", "--net-arch", "16", "--rounds", "3", "--steps", "1"]) == 0
    output = capsys.readouterr().out
    for name in ("SB3 SAC", "ContinualSAC", "NBSPSAC with masks"):
        assert re.search(rf"{name}.*\d\.\d\d", output)
    assert re.search(r"SB3 SAC.* 1\.00 \(1\.00 to 1\.00\)", output), "SB3 is the unit"
    assert "3 rounds" in output
