"""What is put back is what it was, and nothing of the agents stays changed."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch as th

from sb3_nbsp.benchmark.comparison import Comparison
from sb3_nbsp.benchmark.first_phase import share_first_phases
from sb3_nbsp.benchmark.folder import RunFolder
from sb3_nbsp.benchmark.train import train
from sb3_nbsp.interventions.networks import actor_of
from sb3_nbsp.zoo.algos import algorithm
from tools import put_back

HYPERPARAMS = {"policy_kwargs": {"net_arch": [16, 16]}, "learning_starts": 50, "batch_size": 32, "identification_steps": 100}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods that have gone from forwards to backwards."""
    path = tmp_path_factory.mktemp("switch")
    comparison = Comparison(
        ["HalfCheetah-Directions-v0"],
        ["continual_sac", "nbsp_sac"],
        [1],
        env_kwargs={"steps_per_task": 200, "horizon": 50, "distance": 0.1},
        hyperparams=HYPERPARAMS,
        n_eval_episodes=1,
        switch_steps=100,
        eval_freq=100,
    )
    settings = {run: comparison.settings(run) for run in comparison.runs(path)}
    for run, each in share_first_phases(settings, path)[0].items():
        assert run.first_phase is not None
        train(each, run.folder, RunFolder(run.first_phase))
    return path


def test_parts_of_the_actor_are_put_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, (first,) = RunFolder(folder / "nbsp_sac/seed_1"), (folder / "first_phase").iterdir()
    monkeypatch.setattr(put_back, "N_STATES", 100)
    skills = put_back.skill_neurons(run)
    assert skills is not None and 0 < skills.sum() < 32
    old = put_back.FirstTask(RunFolder(first), skills, 1)
    assert old.changes(old.agent) == {"kl": 0, "drift_skill": 0, "drift_other": 0}
    new = algorithm("nbsp_sac").load(run.model, device="cpu")
    before = [parameter.clone() for parameter in new.actor.parameters()]
    seen: list[list[th.Tensor]] = []
    monkeypatch.setattr(
        old, "success", lambda agent: float(bool(seen.append([p.detach().clone() for p in actor_of(agent).own])))
    )
    names = list(old.put_back(new))
    assert all(map(th.equal, before, new.actor.parameters()))
    rows = skills[:16]
    first_layer, original = seen[names.index("back_skill_rows")][0], old.agent.actor.latent_pi[0].weight
    assert first_layer[rows].equal(original[rows]) and first_layer[~rows].equal(before[0][~rows])
    everything_but = seen[names.index("back_all_but_skill_rows")]
    assert everything_but[0][~rows].equal(original[~rows]) and everything_but[0][rows].equal(before[0][rows])
    assert everything_but[-1].equal(old.agent.actor.log_std.bias)
    columns = th.cat([th.zeros(0, dtype=th.bool), skills[16:]])
    mean_layer = seen[names.index("back_skill_columns")][4]
    assert mean_layer[:, columns].equal(old.agent.actor.mu.weight[:, columns])
    assert mean_layer[:, ~columns].equal(before[4][:, ~columns])


def test_every_run_has_one_row(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(put_back, "N_STATES", 100)
    monkeypatch.setattr(sys, "argv", ["put_back", str(folder), "--n-eval-episodes", "1"])
    put_back.main()
    first = (folder / "put_back.csv").read_text(encoding="utf-8")
    put_back.main()
    assert (folder / "put_back.csv").read_text(encoding="utf-8") == first
    table = pd.read_csv(folder / "put_back.csv")
    assert list(table.method) == ["continual_sac", "nbsp_sac"] and (table.kl > 0).all() and table.notna().all().all()
