"""Arguments that are out of range, contradict each other or have no effect; values of the zoo's own options."""

import os
from pathlib import Path

import optuna
import pytest
import rl_zoo3
from rl_zoo3.exp_manager import ExperimentManager

from sb3_nbsp.zoo.arguments import truth
from sb3_nbsp.zoo.manager import SequenceExperimentManager
from sb3_nbsp.zoo.options import check_values, read_sections

RUN = ["--algo", "p3o", "--env", "Pendulum-v1", "-n", "20", "--seed", "1", "--eval-freq", "-1"]
PARAMS = ["-params", "n_steps:20", "batch_size:20", "n_epochs:1"]
SEARCH = [*RUN, "-optimize", "--n-trials", "1", "--eval-episodes", "1", "--no-optim-plots"]


@pytest.mark.parametrize(
    "wrong, error",
    [
        (["-n", "0"], "--n-timesteps must be 1 or more, or -1 for that of the hyperparameters, not 0"),
        (["--eval-episodes", "0"], "--eval-episodes must be 1 or more, not 0"),
        (["--n-eval-envs", "0"], "--n-eval-envs must be 1 or more, not 0"),
        (["--log-interval", "0"], "--log-interval must not be 0"),
        (["-optimize", "--n-trials", "0"], "--n-trials must be 1 or more, not 0"),
        (["-optimize", "--n-evaluations", "0"], "--n-evaluations must be 1 or more, not 0"),
        (["-optimize", "--n-startup-trials", "-1"], "--n-startup-trials must be 0 or more, not -1"),
        (["-optimize", "--n-jobs", "0"], "--n-jobs must be 1 or more, or -1 for one per core, not 0"),
        (["-optimize", "--storage", "study.db"], "--storage must be a file .log or a database"),
        (["-optimize", "-i", "file.zip"], "-optimize trains new agents and cannot continue one"),
        (["-f", ""], "--log-folder must be the name of a folder, not empty"),
        (["-f", "file.zip"], "--log-folder must be a folder, and file.zip is a file"),
        (["-tb", "file.zip"], "--tensorboard-log must be a folder, and file.zip is a file"),
        (["--trial-id", "2", "--storage", "none.log", "--study-name", "s"], "none.log: there is no such file"),
        (["--trial-id", "2", "--storage", "sqlite:///none.db", "--study-name", "s"], "none.db: there is no such file"),
        (["-params", "n_envs:0"], "n_envs must be a whole number of 1 or more, not 0"),
        (["-params", "n_envs:1.5"], "n_envs must be a whole number of 1 or more, not 1.5"),
        (["-params", "n_timesteps:many"], "n_timesteps must be a whole number of 1 or more, not 'many'"),
        (["-params", "seed:5"], "seed is given by --seed, not among the hyperparameters"),
        (["-params", "device:cpu"], "device is given by --device, not among the hyperparameters"),
        (["-params", "frame_stack:0"], "frame_stack must be a whole number of 1 or more, not 0"),
        (["-params", "normalize:yes"], "normalize must be True, False or a dictionary, not 'yes'"),
        (["-params", "env_kwargs:3"], "env_kwargs must be a dictionary, not 3"),
        (["-params", "policy_kwargs:small"], "policy_kwargs must be a dictionary, not 'small'"),
        (["-params", "env_wrapper:Flatten"], "env_wrapper must be the full name of a class"),
        (["-params", "callback:[{'Save': {}}]"], "callback must be the full name of a class"),
        (["-conf", "empty.yml"], "empty.yml must have a section of hyperparameters for each environment"),
        (["-conf", "flat.yml"], "flat.yml must have a section of hyperparameters for each environment"),
        (["-conf", "short.yml"], "The hyperparameters have no n_timesteps"),
    ],
)
def test_what_is_out_of_range_is_an_error_before_anything_is_written(wrong, error, command):
    Path("file.zip").touch()
    Path("empty.yml").touch()
    Path("flat.yml").write_text("n_steps: 20")
    Path("short.yml").write_text("Pendulum-v1: {policy: MlpPolicy}")
    before = sorted(os.listdir())
    with pytest.raises(ValueError, match=error):
        command("train", *RUN, *wrong)
    assert sorted(os.listdir()) == before


def test_a_package_that_is_missing_is_named(command, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install optunahub"):
        command("train", *RUN, "-optimize", "--sampler", "auto")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            [*RUN, *PARAMS, "--n-trials", "5", "--sampler", "random", "--storage", "s.log", "-tags", "a"],
            ["No effect without -optimize: --n-trials, --sampler, --storage", "No effect without --track: --wandb-tags"],
        ),
        (
            [*SEARCH, "--save-freq", "10", "-P"],
            ["No effect with -optimize: --progress, --save-freq"],
        ),
        ([*RUN, *PARAMS], []),
        (SEARCH, []),
    ],
)
def test_arguments_without_effect_are_warned_about(arguments, message, command, recwarn):
    command("train", *arguments)
    assert [str(each.message) for each in recwarn if "No effect" in str(each.message)] == message


def test_a_search_leaves_no_folder_of_a_run_behind(command, capsys):
    command("train", *RUN, *PARAMS)
    command("train", *SEARCH)
    files = sorted(path.name.split("_")[0] for path in Path("logs/p3o").iterdir())
    assert files == ["Pendulum-v1", "report", "report"], "the run, and the search's report in two formats"
    command("enjoy", "--algo", "p3o", "--env", "Pendulum-v1", "-f", "logs", "--no-render", "-n", "5")
    assert "Loading logs/p3o/Pendulum-v1_1/Pendulum-v1.zip" in capsys.readouterr().out, (
        "the last run is the one that was trained"
    )


def test_without_a_display_enjoy_says_what_to_do(command, monkeypatch, recwarn):
    monkeypatch.setattr("sys.platform", "linux")
    for display, flags, is_said in (("", [], True), ("", ["--no-render"], False), (":0", [], False)):
        for name in ("DISPLAY", "WAYLAND_DISPLAY"):
            monkeypatch.delenv(name, raising=False)
        if display:
            monkeypatch.setenv("DISPLAY", display)
        with pytest.raises((AssertionError, ValueError)):  # there is nothing to play
            command("enjoy", "--algo", "p3o", "--env", "Pendulum-v1", "-f", "nowhere", *flags)
        assert any("no display" in str(each.message) for each in recwarn) == is_said
        recwarn.clear()


def test_environments_for_evaluation_leave_those_of_other_trials_alone(command, monkeypatch):
    managers, seeds = [], []
    init, create_envs = SequenceExperimentManager.__init__, ExperimentManager.create_envs

    def remember(self, *args, **kwargs):
        managers.append(self)
        init(self, *args, **kwargs)

    def look(self, *args, **kwargs):
        seeds.append((self.seed, managers[0].seed))
        return create_envs(self, *args, **kwargs)

    monkeypatch.setattr(SequenceExperimentManager, "__init__", remember)
    monkeypatch.setattr(ExperimentManager, "create_envs", look)
    command("train", *RUN, "--eval-freq", "100", *PARAMS)
    assert seeds == [(1_000_001, 1), (1, 1)], "of evaluation and training; each beside what another thread sees meanwhile"


@pytest.mark.parametrize("storage", ["sqlite:///study.db", "study.log"])
@pytest.mark.parametrize(
    "name, number, error",
    [
        ("mine", "1", "study 'mine' has no trial 1; its trials are from 0 to 0"),
        ("mime", "0", "has no study 'mime'; did you mean mine?"),
        ("other", "0", "has no study 'other', only mine"),
        ("mine", "0", "trial 0 of study 'mine' is of another algorithm than p3o: it has no 'one_minus_gamma'"),
    ],
)
def test_a_trial_that_is_not_there_is_an_error(name, number, error, storage, command):
    opened = storage
    if storage.endswith(".log"):
        opened = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage))
    study = optuna.create_study(storage=opened, study_name="mine")
    study.tell(study.ask({"tau": optuna.distributions.FloatDistribution(0.1, 0.2)}), 0.0)
    with pytest.raises(ValueError, match=error.replace("?", r"\?")):
        command("train", *RUN, "--storage", storage, "--study-name", name, "--trial-id", number)
    assert not Path("logs").exists()


def test_every_section_of_the_zoo_is_valid():
    files = [*Path(rl_zoo3.__file__).parent.glob("hyperparams/*.yml"), *Path(__file__).parents[2].glob("hyperparams/*.yml")]
    sections = [section for file in files for section in read_sections(str(file)).values()]
    assert len(sections) > 300
    for section in sections:
        check_values(section)


@pytest.mark.parametrize("word, expected", [("False", False), ("false", False), ("0", False), ("True", True), ("1", True)])
def test_words_for_true_and_false(word, expected):
    assert truth(word) is expected


@pytest.mark.parametrize("word, expected", [("False", False), ("True", True)])
def test_the_last_trajectory_is_kept_on_demand(word, expected, command, monkeypatch):
    seen = []
    monkeypatch.setattr(SequenceExperimentManager, "setup_experiment", lambda self: seen.append(self.truncate_last_trajectory))
    monkeypatch.setattr(SequenceExperimentManager, "hyperparameters_optimization", lambda self: None)
    command("train", *RUN, "--truncate-last-trajectory", word)
    assert seen == [expected]
