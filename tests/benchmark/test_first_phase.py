"""The first phase that methods have in common: computed once, it leads to the same results as computed by each."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import points
import pytest
import torch as th
from rich.console import Console
from small_comparison import SMALL
from stable_baselines3.common.save_util import load_from_zip_file
from test_train import run_until

import sb3_nbsp.benchmark.train as train_module
from sb3_nbsp.benchmark.comparison import Comparison, Run
from sb3_nbsp.benchmark.first_phase import FOLDER, common_settings, share_first_phases
from sb3_nbsp.benchmark.folder import RunFolder
from sb3_nbsp.benchmark.launchers import LocalLauncher
from sb3_nbsp.benchmark.run import run_comparison
from sb3_nbsp.benchmark.settings import Settings
from sb3_nbsp.benchmark.train import train
from sb3_nbsp.tasks import load_checkpoint
from sb3_nbsp.tasks.checkpoint import save_checkpoint

METHODS = ["continual_sac", "nbsp_replay_only", "nbsp_masks_only", "nbsp_sac"]
# Masking looks at the steps of training: the plain agent has to note how successful they were
ON_TRAINING = {
    **SMALL["hyperparams"],
    "identification_data": "training",
    "identification_steps": 150,
    "goal_metric": "auto",
    "reset_ent_coef": True,
}
TWO_PHASES = {"env_ids": points.IDS, "cycles": 1, "steps_per_task": 200, "mastery_threshold": None}


def comparison(methods: list[str], **changes) -> Comparison:
    options = {**SMALL, "env_kwargs": TWO_PHASES, "hyperparams": ON_TRAINING, "seeds": [1], **changes}
    return Comparison(["GymCycle-v0"], methods, **options)


def shared(of: Comparison, folder: Path) -> tuple[dict[Run, Settings], list[str]]:
    return share_first_phases({run: of.settings(run) for run in of.runs(folder)}, folder)


def files(folder: Path) -> dict[str, str]:
    """What a run has written, without times."""
    result = RunFolder(folder).result()
    result.pop("minutes_since_last_start")
    names = ("success_matrix.csv", "training.csv", "neurons.json")
    return {"result": json.dumps(result), **{name: (folder / name).read_text() for name in names if (folder / name).exists()}}


def parameters(folder: Path) -> dict[str, th.Tensor]:
    _, found, variables = load_from_zip_file(folder / "model.zip", device="cpu")
    optimizers = {
        f"{name} {key} {entry}": value
        for name in ("actor.optimizer", "critic.optimizer", "ent_coef_optimizer")
        for key, state in found[name]["state"].items()
        for entry, value in state.items()
    }
    return {**found["policy"], **optimizers, **variables}


def assert_same(one: Path, other: Path) -> None:
    assert files(one) == files(other)
    once, twice = parameters(one), parameters(other)
    assert once.keys() == twice.keys()
    assert all(th.equal(value, twice[name]) for name, value in once.items())


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same methods with a first phase in common, and each with its own. Not to be written to."""
    together, alone = (tmp_path_factory.mktemp(name) for name in ("together", "alone"))
    for run_, settings in shared(comparison(METHODS), together)[0].items():
        assert run_.first_phase is not None
        train(settings, run_.folder, RunFolder(run_.first_phase))
    of = comparison(METHODS)
    for run_ in of.runs(alone):
        train(of.settings(run_), run_.folder)
    return together, alone


@pytest.mark.parametrize("method", METHODS)
def test_the_results_are_the_same_to_the_last_bit(method, both):
    together, alone = both
    assert_same(together / method / "seed_1", alone / method / "seed_1")


def test_it_is_computed_once_and_ends_before_its_end_is_acted_on(both):
    together, _ = both
    (folder,) = (together / FOLDER).iterdir()
    first = RunFolder(folder)
    assert first.result() == {"steps": 200} and first.checkpoint.name == "checkpoint_200_steps"
    assert len(first.matrix().rows) == 1 and len(first.episodes()) == 8
    logs = [(together / method / "seed_1" / "training.csv").read_text().splitlines()[:9] for method in METHODS]
    assert all(log == logs[0] for log in logs)


def test_masks_are_found_on_the_steps_of_the_first_phase(both):
    """Otherwise the equality above would say little."""
    together, _ = both
    neurons = RunFolder(together / "nbsp_sac" / "seed_1").neurons()
    assert [entry["phase"] for entry in neurons["phases"]] == [0, 1]
    assert len(neurons["phases"][0]["networks"]["actor"]["histograms"]) == 4


def test_what_is_the_methods_own_is_not_what_it_started_from(both):
    together, _ = both
    data = {method: load_from_zip_file(together / method / "seed_1" / "model.zip")[0] for method in METHODS}
    assert (data["nbsp_masks_only"]["masking"], data["nbsp_masks_only"]["replay"]) == (True, False)
    assert data["nbsp_sac"]["identification_steps"] == 150 and data["nbsp_sac"]["reset_ent_coef"] is True
    assert "masking" not in data["continual_sac"] and not data["continual_sac"]["interventions"]


@pytest.mark.parametrize("step", [120, 270, 330])
def test_killed_in_any_phase_it_ends_as_if_it_had_not_been(step, both, tmp_path, monkeypatch):
    together, _ = both
    (run_, settings), *_ = [each for each in shared(comparison(METHODS), tmp_path)[0].items() if each[0].method == "nbsp_sac"]
    run_until(step, settings, run_.path, monkeypatch, RunFolder(run_.first_phase))
    assert RunFolder(run_.first_phase).is_done == (step > 200) and not run_.folder.is_done
    train(settings, run_.folder, RunFolder(run_.first_phase))
    assert_same(run_.path, together / "nbsp_sac" / "seed_1")


def test_killed_while_the_first_phase_is_copied(both, tmp_path):
    """The files are there, the checkpoint is not."""
    together, _ = both
    shutil.copytree(together / FOLDER, tmp_path / FOLDER)
    (run_, settings), *_ = [each for each in shared(comparison(METHODS), tmp_path)[0].items() if each[0].method == "nbsp_sac"]
    run_.path.mkdir(parents=True)
    shutil.copyfile(together / "nbsp_sac" / "seed_1" / "training.csv", run_.path / "training.csv")
    (run_.path / ".checkpoint_200_steps").mkdir()
    train(settings, run_.folder, RunFolder(run_.first_phase))
    assert_same(run_.path, together / "nbsp_sac" / "seed_1")


def test_gsde_and_normalization(tmp_path):
    """Every reset moves the statistics, and gSDE draws random numbers of its own."""
    of = comparison(["continual_sac", "nbsp_sac"], hyperparams={**ON_TRAINING, "use_sde": True, "normalize": True})
    for run_, settings in shared(of, tmp_path / "together")[0].items():
        assert run_.first_phase is not None
        train(settings, run_.folder, RunFolder(run_.first_phase))
        train(settings, RunFolder(tmp_path / "alone" / run_.method))
        assert_same(run_.path, tmp_path / "alone" / run_.method)


DISCRETE = {"env_kwargs": {**TWO_PHASES, "env_ids": ["CartPole-v0", "CartPole-v1"]}}


def test_discrete_actions(tmp_path, monkeypatch):
    saved = []

    def save(agent, folder):
        saved.append(agent)
        return save_checkpoint(agent, folder)

    def load(*args, **kwargs):
        assert saved and all(agent.replay_buffer is None for agent in saved), "there are two copies of D"
        return load_checkpoint(*args, **kwargs)

    monkeypatch.setattr(train_module, "save_checkpoint", save)
    monkeypatch.setattr(train_module, "load_checkpoint", load)
    of = comparison(["continual_discrete_sac", "pi_discrete_sac", "nbsp_discrete_sac"], **DISCRETE)
    for run_, settings in shared(of, tmp_path / "together")[0].items():
        assert run_.first_phase is not None
        train(settings, run_.folder, RunFolder(run_.first_phase))
        train(settings, RunFolder(tmp_path / "alone" / run_.method))
        assert_same(run_.path, tmp_path / "alone" / run_.method)
    (first,) = (tmp_path / "together" / FOLDER).iterdir()
    assert RunFolder(first).matrix().rows and RunFolder(run_.path).neurons()["phases"][0]["networks"]


def test_who_shares_on_discrete_actions(tmp_path):
    found, sentences = shared(comparison(["nbsp_discrete_sac", "ewc_discrete_sac", "cbp_discrete_sac"], **DISCRETE), tmp_path)
    assert [run_.first_phase is not None for run_ in found] == [True, True, False]
    assert sentences == ["CBP on discrete SAC computes a first phase of its own: ContinualBackprop acts from the beginning"]


def test_who_shares_and_who_does_not(tmp_path):
    methods = ["continual_sac", "nbsp_sac", "nbsp_hard_masks", "continual_sac_probe", "sac", "redo_sac"]
    found, sentences = shared(comparison(methods), tmp_path)
    runs = list(found)
    assert [run_.method for run_ in runs if run_.first_phase is not None] == methods[:4]
    assert len({run_.first_phase for run_ in runs[:4]}) == 1
    assert [sentence.split(": ", 1)[1] for sentence in sentences] == [
        "SAC does not know phases",
        "ReDo acts from the beginning",
    ]
    assert all("computes a first phase of its own" in sentence for sentence in sentences)


def test_plasticity_injection_shares_unless_it_injects_at_given_steps(tmp_path):
    of = comparison(["continual_sac", "pi_sac", "shrink_perturb_sac"])
    settings = {run_: of.settings(run_) for run_ in of.runs(tmp_path)}
    found, sentences = share_first_phases(settings, tmp_path)
    (place,) = {run_.first_phase for run_ in found}
    assert place is not None and not sentences
    for run_, option in zip(list(settings)[1:], ({"injection_steps": [10]}, {"shrink_interval": 5}), strict=True):
        settings[run_] = replace(settings[run_], hyperparams={**settings[run_].hyperparams, **option})
    _, sentences = share_first_phases(settings, tmp_path)
    assert [sentence.rpartition(": ")[2] for sentence in sentences] == [
        "PlasticityInjection acts from the beginning",
        "ShrinkPerturb acts from the beginning",
    ]


def test_an_option_that_acts_from_the_beginning_is_named(tmp_path):
    of = comparison(["continual_sac", "nbsp_sac", "nbsp_replay_only"])
    settings = {run_: of.settings(run_) for run_ in of.runs(tmp_path)}
    first, *_ = settings
    settings[first] = replace(settings[first], hyperparams={**settings[first].hyperparams, "tau": 0.1})
    runs, sentences = share_first_phases(settings, tmp_path)
    assert [run_.first_phase is None for run_ in runs] == [True, False, False]
    assert sentences == ["vanilla SAC computes a first phase of its own: no other method has the same tau"]


def test_every_seed_and_environment_has_its_own(tmp_path):
    of = Comparison(["CoffeeButton-HandlePress", "CoffeeButton-DrawerClose", "Pendulum-v1"], METHODS[:2], [1, 2])
    runs, _ = shared(of, tmp_path)
    assert len({run_.first_phase for run_ in runs} - {None}) == 4
    assert all((run_.first_phase is None) == (run_.env_id == "Pendulum-v1") for run_ in runs)


def test_options_of_later_phases_are_not_the_plain_agents():
    of = comparison(["nbsp_sac_probe"])
    common = common_settings(of.settings(of.runs("x")[0]))
    assert common.algo == "continual_sac"
    assert not {"memory_size", "identification_steps", "reset_ent_coef", "known_task_threshold"} & common.hyperparams.keys()
    assert {"learning_starts", "batch_size", "policy_kwargs"} <= common.hyperparams.keys()


def test_meta_world_from_the_command_line(uninterrupted):
    """The small comparison of other tests shares its first phase; test_run.py has a run with its own."""
    assert len(list((uninterrupted / FOLDER).iterdir())) == 1
    logs = [(uninterrupted / method / "seed_1" / "log.txt").read_text() for method in ("nbsp_sac", "nbsp_replay_only")]
    assert ["phase 1 of 4" in log for log in logs] == [True, False] and all("phase 2 of 4" in log for log in logs)


def test_a_method_that_does_not_share_is_named(both, tmp_path, capsys, monkeypatch):
    together, _ = both
    shutil.copytree(together, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr("sb3_nbsp.benchmark.run.measure_baselines", lambda *_: None)
    shutil.copytree(together / "nbsp_sac", tmp_path / "sac")
    config = json.loads((tmp_path / "sac" / "seed_1" / "config.json").read_text())
    of = comparison([*METHODS, "sac"])
    own = json.loads(json.dumps(asdict(of.settings(of.runs(tmp_path)[-1]))))
    (tmp_path / "sac" / "seed_1" / "config.json").write_text(json.dumps({**config, **own}))
    assert run_comparison(of, tmp_path, LocalLauncher(1), Console(width=200)) == []
    assert "SB3's SAC computes a first phase of its own: SAC does not know phases" in capsys.readouterr().out
