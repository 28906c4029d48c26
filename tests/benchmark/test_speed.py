"""The speed script measures what it says."""

import re

import numpy as np
import pytest
from stable_baselines3 import SAC

from sb3_nbsp import NBSPSAC, P3O, ContinualSAC
from sb3_nbsp.benchmark import speed
from sb3_nbsp.benchmark.__main__ import main
from sb3_nbsp.interventions import ExperienceReplay, GradientMasking, InnerDistillation

PPO_OPTIONS = ["--ppo-env", "Pendulum-v1", "--ppo-net-arch", "8", "--ppo-steps", "256", "--ppo-rounds", "2"]


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
    assert len(masks) == 6 and sum(int((mask < 1).sum()) for mask in masks.values()) == 3 * 6
    assert model.hooks.find(ExperienceReplay).memory.size() == 10_000


def test_the_script_prints_ratios(monkeypatch, capsys):
    monkeypatch.setattr(speed.th, "set_num_threads", lambda number: None)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["speed", "--net-arch", "16", "--rounds", "3", "--steps", "1", *PPO_OPTIONS]) == 0
    output = capsys.readouterr().out
    for name in ("SB3 SAC", "ContinualSAC", "NBSPSAC with masks"):
        assert re.search(rf"{name}.*\d\.\d\d", output)
    assert re.search(r"SB3 SAC.* 1\.00 \(1\.00 to 1\.00\)", output), "SB3 is the unit"
    assert "3 and 2 rounds" in output
    for name in ("P3O, rollout", "P3O, update", "P3O, iteration", "P3O, epoch", "P3O, distillation epoch"):
        assert re.search(rf"{name}.*\d\.\d\d", output)
    assert len(re.findall(r"SB3 PPO, \w+.* 1\.00 \(1\.00 to 1\.00\)", output)) == 4
    assert "Pendulum-v1, rollouts of 256 steps" in output


def test_the_parts_of_an_iteration():
    seconds = speed.measure_ppo("Pendulum-v1", [8], 256, 2)
    for name in ("SB3 PPO", "P3O"):
        rollout, update, iteration, epoch = (
            seconds[f"{name}, {part}"] for part in ("rollout", "update", "iteration", "epoch")
        )
        assert (rollout > 0).all() and (update > 0).all()
        assert np.allclose(iteration, rollout + update) and np.allclose(epoch, update / 10)
    assert (seconds["P3O, distillation epoch"] > 0).all()


def test_ppo_learns_and_distils():
    kwargs = {"reset_frequency": 10**9, "distill_threshold": 0, "min_distill_epochs": 3, "max_distill_epochs": 3}
    model = speed.make_ppo(P3O, "Pendulum-v1", [8], 256, **kwargs)
    speed.collect(model)
    assert model.rollout_buffer.full
    speed.distil(model)
    assert model.hooks.find(InnerDistillation).epochs == 3
