"""Zeroing the skill neurons of a model that was trained on two real Meta-World tasks."""

import csv
import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC

from sb3_nbsp import NBSPSAC
from sb3_nbsp.benchmark.__main__ import main
from sb3_nbsp.benchmark.zero import load_model, make_sequence
from sb3_nbsp.diagnostics import zeroed_skills as module
from sb3_nbsp.diagnostics.zeroed_skills import control_set, skill_sets, zero_neurons
from sb3_nbsp.interventions import GradientMasking
from sb3_nbsp.interventions.networks import networks_of
from sb3_nbsp.neurons import zeroed
from sb3_nbsp.neurons.crelu import CReLU
from sb3_nbsp.tasks.policy_evaluation import TaskResult

pytest.importorskip("metaworld")

TASKS = ["coffee-button", "drawer-close"]
ENV_KWARGS = {"tasks": TASKS, "cycles": 1, "horizon": 40, "steps_per_task": 200}
NAMES = [
    "nothing",
    "coffee-button ∩ drawer-close",
    "random, beside coffee-button ∩ drawer-close",
    "coffee-button ∖ drawer-close",
    "drawer-close ∖ coffee-button",
]


def agent(**kwargs: Any) -> NBSPSAC:
    options = {"policy_kwargs": {"net_arch": [16, 16]}, "batch_size": 32, "learning_starts": 50, "buffer_size": 500}
    nbsp = {"identification_steps": 200, "goal_metric": "episode_return", "memory_size": 100, "skill_proportion": 0.3}
    env = gym.make("MW-Cycle-v0", **ENV_KWARGS)
    return NBSPSAC("MlpPolicy", env, seed=1, device="cpu", **{**options, **nbsp, **kwargs})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run with two phases; not to be written to."""
    folder = tmp_path_factory.mktemp("zero")
    model = agent()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # success is rare after so few steps
        model.learn(250)
        model.save(folder / "one_task.zip")
        model.learn(1000, reset_num_timesteps=False)
    model.save(folder / "model.zip")
    (folder / "config.json").write_text(json.dumps({"env_id": "MW-Cycle-v0", "env_kwargs": ENV_KWARGS}))
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def run_main(*arguments: str | Path) -> None:
    assert main(["zero", *map(str, arguments)]) == 0


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main(["zero", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def read(path: Path) -> list[list[str]]:
    with path.open() as file:
        return list(csv.reader(file))


def test_a_run_folder_end_to_end(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name for path in run.iterdir()}
    run_main(run, "--n-eval-episodes", "2")
    header, *rows = read(run / "zero_neurons.csv")
    assert {path.name for path in run.iterdir()} - before == {"zero_neurons.csv"}
    assert header == ["zeroed", "neurons", *TASKS]
    assert [row[0] for row in rows] == NAMES
    assert all(len(row) == 4 and float(rate) in (0, 0.5, 1) for row in rows for rate in row[2:])
    skills = load_model(run)[0].all_interventions.find(GradientMasking).skill_neurons
    first, second = skills["coffee-button"]["actor"], skills["drawer-close"]["actor"]
    both = int((first & second).sum())
    assert [int(row[1]) for row in rows[:2]] == [0, both]
    assert [int(row[1]) for row in rows[3:]] == [int(first.sum()) - both, int(second.sum()) - both]
    assert 0 <= int(rows[2][1]) <= both
    output = capsys.readouterr().out
    assert all(name in output for name in ("zeroed", *TASKS)) and "zero_neurons.csv" in output


def test_a_zip_needs_an_environment(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not say which environment the model is of: give --env" in error_of(capsys, run / "model.zip")
    arguments = ["--env", "MW-Cycle-v0", "--env-kwargs", *(f"{name}:{value!r}" for name, value in ENV_KWARGS.items())]
    arguments += ["--n-eval-episodes", "1"]
    run_main(run / "model.zip", *arguments, "--networks", "actor", "qf0")
    _, *rows = read(run / "zero_neurons.csv")
    assert [row[0] for row in rows] == NAMES
    skills = load_model(run)[0].all_interventions.find(GradientMasking).skill_neurons
    both = sum(int((skills[TASKS[0]][name] & skills[TASKS[1]][name]).sum()) for name in ("actor", "qf0"))
    assert int(rows[1][1]) == both, "of both networks"


def test_what_is_zeroed_when_it_is_evaluated(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of an evaluation: the actions that the agent takes at that moment."""
    model = load_model(trained)[0]
    observations = np.random.default_rng(0).normal(size=(8, 39)).astype(np.float32)
    taken: list[np.ndarray] = []

    def look(model: NBSPSAC, *_: object, **__: object) -> TaskResult:
        taken.append(model.predict(observations, deterministic=True)[0])
        return TaskResult(len(taken), "success", 0.0)

    monkeypatch.setattr(module, "evaluate_task", look)
    monkeypatch.setattr(module, "control_set", lambda general, *_: general)
    rows = zero_neurons(model, make_sequence("MW-Cycle-v0", ENV_KWARGS))
    # Two tasks per row, the random row being the general one again; a row without neurons is not evaluated
    masking = model.all_interventions.find(GradientMasking)
    first, second = (masking.skill_neurons[task]["actor"] for task in TASKS)
    sets = [torch_false(first), first & second, first & second, first & ~second, second & ~first]
    evaluated = [neurons for index, neurons in enumerate(sets) if index == 0 or neurons.any()]
    assert len(taken) == 2 * len(evaluated) >= 6
    layers = networks_of(model)[0].layers
    for index, neurons in enumerate(evaluated):
        with zeroed(layers, neurons):
            expected, _ = model.predict(observations, deterministic=True)
        np.testing.assert_array_equal(taken[2 * index], expected)
        assert index == 0 or np.abs(expected - taken[0]).max() > 1e-4, "zeroing changes the actions"
    assert [row["neurons"] for row in rows] == [int(neurons.sum()) for neurons in sets]
    assert list(rows[0].values()) == ["nothing", 0, 1, 2]
    np.testing.assert_array_equal(model.predict(observations, deterministic=True)[0], taken[0])
    assert all(not module._forward_hooks for module in model.policy.modules())


def torch_false(like: th.Tensor) -> th.Tensor:
    return th.zeros_like(like)


def test_hooks_go_when_the_evaluation_fails(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = load_model(trained)[0], []

    def fail(*_: object, **__: object) -> TaskResult:
        calls.append(0)
        if len(calls) < 4:
            return TaskResult(0.0, "success", 0.0)
        raise RuntimeError("simulator")

    monkeypatch.setattr(module, "evaluate_task", fail)
    with pytest.raises(RuntimeError, match="simulator"):
        zero_neurons(model, make_sequence("MW-Cycle-v0", ENV_KWARGS))
    assert all(not module._forward_hooks for module in model.policy.modules())


def test_dead_neurons_are_not_drawn_for_the_control(trained: Path) -> None:
    model = load_model(trained)[0]
    networks = [network for network in networks_of(model) if network.name in ("actor", "qf0")]
    with th.no_grad():
        layer = networks[0].layers[0].linear
        layer.weight[3], layer.bias[3] = 0, -1
        layer.weight[4], layer.bias[4] = 0, 1
    with module._watched(networks) as active:
        model.predict(np.zeros((2, 39), dtype=np.float32), deterministic=True)
    assert not active["actor"][3] and active["actor"][4] and len(active["actor"]) == 32
    assert active["qf0"].all(), "the critic was not asked"


def test_a_crelu_neuron_is_dead_if_both_its_features_are() -> None:
    env = make_sequence("MW-Cycle-v0", ENV_KWARGS)
    model = NBSPSAC("MlpPolicy", env, policy_kwargs={"net_arch": [4], "activation_fn": CReLU})
    networks = [network for network in networks_of(model) if network.name == "actor"]
    with th.no_grad():
        layer = networks[0].layers[0].linear
        layer.weight.zero_()
        layer.bias.copy_(th.tensor([0.0, 1.0, 0.0, -1.0]))
    with module._watched(networks) as active:
        model.predict(np.zeros((2, 39), dtype=np.float32), deterministic=True)
    assert active["actor"].tolist() == [False, True, False, True]


def test_where_one_row_reports_success_the_others_had_none() -> None:
    assert module._rates("a", [TaskResult(-3.0, "return", -3.0), TaskResult(0.5, "success", 1.0)]) == [0.0, 0.5]
    with pytest.warns(UserWarning, match="a does not report success: the mean return"):
        assert module._rates("a", [TaskResult(-3.0, "return", -3.0)]) == [-3.0]


def test_shared_task_names_are_one_task(trained: Path) -> None:
    """Two cycles have each task twice, and it is evaluated once."""
    env = make_sequence("MW-Cycle-v0", {**ENV_KWARGS, "cycles": 2, "tasks": [*TASKS, TASKS[0]]})
    rows = zero_neurons(load_model(trained)[0], env, n_eval_episodes=1)
    assert list(rows[0]) == ["zeroed", "neurons", *TASKS] and len(rows) == 5


def test_model_without_skill_neurons_of_two_tasks(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one_task = error_of(capsys, run / "one_task.zip", "--env", "MW-Cycle-v0")
    assert "skill neurons of one task only, coffee-button: general and specific" in one_task
    agent().save(tmp_path / "new.zip")
    assert "was trained without gradient masking, or" in error_of(capsys, tmp_path / "new.zip", "--env", "MW-Cycle-v0")
    agent(masking=False).save(tmp_path / "no_masks.zip")
    no_masks = error_of(capsys, tmp_path / "no_masks.zip", "--env", "MW-Cycle-v0")
    assert "has no GradientMasking; it has ['ExperienceReplay']" in no_masks
    SAC("MlpPolicy", gym.make("MW-Cycle-v0", **ENV_KWARGS), policy_kwargs={"net_arch": [8]}).save(tmp_path / "sac.zip")
    assert "was trained without gradient masking, or" in error_of(capsys, tmp_path / "sac.zip", "--env", "MW-Cycle-v0")
    assert not list(tmp_path.glob("**/zero_neurons.csv"))


def test_networks_without_skill_neurons(trained: Path) -> None:
    model, env = load_model(trained)[0], make_sequence("MW-Cycle-v0", ENV_KWARGS)
    for wrong in (["critic"], ["actor", "qf7"], []):
        with pytest.raises(ValueError, match=r"not all networks .* there are \['actor', 'qf0', 'qf1'\]"):
            zero_neurons(model, env, networks=wrong)
    with pytest.raises(ValueError, match="n_eval_episodes must be at least 1"):
        zero_neurons(model, env, n_eval_episodes=0)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--env", "MW-WindowOpen-WindowClos-v0"], "no environment 'MW-WindowOpen-WindowClos-v0'; did you mean MW-WindowOpen"),
        (["--env", "Nothing-v0"], "no environment 'Nothing-v0'"),
        (["--env", "not an id"], "not an id cannot be made with"),
        (["--env", "MW-Cycle-v0", "--env-kwargs", "speed:3"], "MW-Cycle-v0 has no option 'speed'"),
        (["--env", "Pendulum-v1"], "env must be a task sequence"),
        (["--env", "MW-WindowOpen-WindowClose-v0"], "skill neurons of coffee-button, drawer-close, but the tasks of env are"),
    ],
)
def test_another_environment_is_an_error(
    run: Path, arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert error in error_of(capsys, run, *arguments)
    assert not (run / "zero_neurons.csv").exists()


def test_a_model_that_is_none(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(r"There is no model .*nowhere", error_of(capsys, tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "model.zip: it was deleted, or the run has not finished" in error_of(capsys, tmp_path / "empty")
    for text, error in (("{", "config.json is damaged"), ("[]", "config.json is damaged: it holds")):
        (run / "config.json").write_text(text)
        assert error in error_of(capsys, run)
    (run / "model.zip").write_text("no zip")
    (run / "config.json").unlink()
    assert "zip" in error_of(capsys, run)


def bits(text: str) -> th.Tensor:
    return th.tensor([character == "1" for character in text])


SKILLS = {
    "open": {"actor": bits("110100"), "qf0": bits("1000")},
    "close": {"actor": bits("011100"), "qf0": bits("1000")},
}


def test_two_tasks() -> None:
    general, first, second = skill_sets(SKILLS, ["actor"])
    assert (general.name, first.name, second.name) == ("open ∩ close", "open ∖ close", "close ∖ open")
    assert [each.is_general for each in (general, first, second)] == [True, False, False]
    assert general.neurons["actor"].equal(bits("010100"))
    assert first.neurons["actor"].equal(bits("100000"))
    assert second.neurons["actor"].equal(bits("001000"))
    assert [each.size for each in (general, first, second)] == [2, 1, 1]


def test_several_networks_count_together() -> None:
    general, first, _ = skill_sets(SKILLS, ["actor", "qf0"])
    assert general.neurons["qf0"].equal(bits("1000")) and general.size == 3
    assert not first.neurons["qf0"].any() and first.size == 1


def test_every_pair_of_three_tasks() -> None:
    skills = {name: {"actor": bits(text)} for name, text in (("a", "100"), ("b", "110"), ("c", "011"))}
    sets = skill_sets(skills, ["actor"])
    assert [each.name for each in sets if each.is_general] == ["a ∩ b", "a ∩ c", "b ∩ c"]
    assert [each.size for each in sets] == [1, 0, 1, 0, 1, 2, 1, 1, 1]


def test_control_is_active_and_nobodys_skill() -> None:
    skills = {name: {"actor": bits(text)} for name, text in (("a", "11100000"), ("b", "11000000"), ("c", "00000001"))}
    general = skill_sets(skills, ["actor"])[0]
    # Left are neurons 3 to 6, of which the fifth is dead
    active = {"actor": bits("11110111")}
    drawn = set()
    for seed in range(20):
        control = control_set(general, skills, active, seed)
        assert control.size == 2 and not control.is_general
        assert control.name == "random, beside a ∩ b"
        drawn |= set(control.neurons["actor"].nonzero().flatten().tolist())
    assert drawn == {3, 5, 6}
    assert (
        control_set(general, skills, active, 7)
        .neurons["actor"]
        .equal(control_set(general, skills, active, 7).neurons["actor"])
    )


@pytest.mark.parametrize(("active", "size"), [("00010000", 1), ("11100001", 0)])
def test_control_with_too_few_others(active: str, size: int) -> None:
    skills = {name: {"actor": bits(text)} for name, text in (("a", "11100000"), ("b", "11000001"))}
    general = skill_sets(skills, ["actor"])[0]
    assert control_set(general, skills, {"actor": bits(active)}, 0).size == size


def test_control_leaves_the_global_random_stream_alone() -> None:
    general = skill_sets(SKILLS, ["actor"])[0]
    th.manual_seed(0)
    expected = th.rand(1)
    th.manual_seed(0)
    control_set(general, SKILLS, {"actor": bits("111111")}, 3)
    assert th.rand(1) == expected
