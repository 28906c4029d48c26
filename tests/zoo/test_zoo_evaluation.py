"""The periodic evaluation, by which the best model is chosen, and what the wrong word on the command line does."""

import os
from pathlib import Path

import optuna
import pytest
import yaml
from gymnasium.envs.classic_control import PendulumEnv

from sb3_nbsp import NBSPSAC

PARAMS = ["-params", "learning_starts:10", "batch_size:8", "policy_kwargs:dict(net_arch=[8])"]
RUN = ["--algo", "nbsp_sac", "--env", "Pendulum-v1", "-n", "20", "--eval-freq", "10", "--eval-episodes", "1", "--seed", "7"]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, list[float]]]:
    """Gravity and first observation of each Pendulum, in the order in which they are reset for the first time."""
    seen: dict[PendulumEnv, tuple[float, list[float]]] = {}
    reset = PendulumEnv.reset

    def recording_reset(self, **kwargs):
        observation, info = reset(self, **kwargs)
        seen.setdefault(self, (self.g, observation.tolist()))
        return observation, info

    monkeypatch.setattr(PendulumEnv, "reset", recording_reset)

    class Values(list):
        def __iter__(self):
            return iter(list(seen.values()))

    return Values()


def config(**more) -> list[str]:
    entry = {"policy": "MlpPolicy", "n_timesteps": 20, "learning_starts": 10, "batch_size": 8, **more}
    Path("mine.yml").write_text(yaml.safe_dump({"Pendulum-v1": entry}))
    return ["-conf", "mine.yml"]


@pytest.mark.parametrize(
    "more, training, evaluation",
    [
        ([], 5.0, 5.0),
        (["--env-kwargs", "g:6.0"], 6.0, 6.0),
        (["--eval-env-kwargs", "g:7.0"], 5.0, 7.0),
        (["--eval-env-kwargs", "render_mode:'rgb_array'"], 5.0, 5.0),
    ],
)
def test_the_evaluation_has_the_environment_of_training_but_other_episodes(more, training, evaluation, command, made):
    command("train", *RUN, *config(env_kwargs={"g": 5.0}), *more)
    (trained, first_trained), (evaluated, first_evaluated) = made
    assert (trained, evaluated) == (training, evaluation)
    assert first_trained != first_evaluated
    saved = yaml.unsafe_load(Path("logs/nbsp_sac/Pendulum-v1_1/Pendulum-v1/args.yml").read_text())
    assert saved["env_kwargs"] == {"g": training}, "so that enjoy makes the same"


def test_arguments_of_the_file_stay_where_the_command_line_gives_another_one(command, made):
    command("train", *RUN, *config(env_kwargs={"g": 5.0}), "--env-kwargs", "render_mode:'rgb_array'")
    assert {gravity for gravity, _ in made} == {5.0}


@pytest.mark.parametrize("number, expected", [("0", 0.125), ("1", 0.25)])
def test_every_trial_of_a_study_can_be_trained_with(number, expected, command):
    study = optuna.create_study(storage="sqlite:///study.db", study_name="mine")
    for tau in (0.125, 0.25):
        trial = study.ask()
        trial.suggest_categorical("net_arch", ["small"])
        trial.suggest_float("one_minus_gamma", 0.01, 0.01)
        trial.suggest_int("train_freq", 1, 1)
        trial.suggest_int("batch_size_pow", 3, 3)
        trial.suggest_float("tau", tau, tau)
        study.tell(trial, 0.0)
    where = ["--storage", "sqlite:///study.db", "--study-name", "mine", "--trial-id", number]
    command("train", *RUN, "--eval-freq", "-1", *where, "-params", "learning_starts:10")
    assert NBSPSAC.load("logs/nbsp_sac/Pendulum-v1_1/Pendulum-v1.zip").tau == expected


@pytest.mark.parametrize(
    "wrong, error",
    [
        (["--trial-id", "0"], "--trial-id needs --storage and --study-name"),
        (["-params", "memry_size:9"], "nbsp_sac has no hyperparameter 'memry_size'; did you mean memory_size?"),
        (["--env-kwargs", "gg:9"], "Pendulum-v1 has no option 'gg'; did you mean g?"),
        (
            ["--env", "GymCycle-v0", "--eval-env-kwargs", "cycels:3"],
            "GymCycle-v0 has no option 'cycels'; did you mean cycles?",
        ),
        (["--env", "CycleFriction-Hopper-v5", "--env-kwargs", "frictoins:[1]"], "did you mean frictions?"),
        (["-params", "qf_learning_rate:'cosine_1e-3'"], "qf_learning_rate must be a number or a schedule such as 'lin_3e-4'"),
        (["-params", "learning_rate:const_3"], "learning_rate must be a number or a schedule such as 'lin_3e-4'"),
    ],
)
def test_a_wrong_word_is_an_error_before_anything_is_written(wrong, error, command):
    with pytest.raises(ValueError, match=error.replace("?", r"\?")):
        command("train", *RUN, *wrong)
    assert not os.listdir()


@pytest.mark.parametrize(
    "wrong, error",
    [
        (["-params", "mask_alpha:5"], "mask_alpha must be a number in"),
        (["-params", "learning_starts:10", "policy_kwargs:dict(nett_arch=[8])"], "nett_arch"),
        (["--env", "GymCycle-v0", "--env-kwargs", "env_ids:['Pendulum-v1']", "cycles:0"], "cycles must be a whole number"),
        (["-i", "half.zip"], "the file wasn't a zip-file"),
    ],
)
@pytest.mark.parametrize("there", ["", "logs", "logs/nbsp_sac/Pendulum-v1_7"])
def test_after_a_wrong_value_nothing_is_left_of_the_run(wrong, error, there, command):
    Path("half.zip").write_text("half")
    Path(there).mkdir(parents=True, exist_ok=True)
    before = sorted(Path().rglob("*"))
    with pytest.raises((ValueError, TypeError), match=error):
        command("train", *RUN, *wrong)
    assert sorted(Path().rglob("*")) == before


def test_a_run_takes_no_folder_that_another_one_has_taken_meanwhile(command, monkeypatch):
    monkeypatch.setattr("rl_zoo3.exp_manager.get_latest_run_id", lambda *_: 0)
    for number in (1, 2):
        command("train", *RUN, *PARAMS)
        assert Path(f"logs/nbsp_sac/Pendulum-v1_{number}/Pendulum-v1/config.yml").exists()
    with pytest.raises(ValueError, match="mask_alpha"):
        command("train", *RUN, "-params", "mask_alpha:5")
    assert len(os.listdir("logs/nbsp_sac")) == 2


def test_a_folder_that_cannot_be_made_is_an_error(command):
    Path("logs").symlink_to("disk that is not mounted")
    with pytest.raises(FileExistsError, match="logs"):
        command("train", *RUN)


@pytest.mark.parametrize("n_envs, n_steps, is_short", [(1, 39, True), (1, 40, False), (2, 79, True)])
def test_trials_that_are_shorter_than_a_phase_are_warned_about(n_envs, n_steps, is_short, command, recwarn):
    env_kwargs = ["env_ids:['Pendulum-v1']", "env_kwargs:{'max_episode_steps': 20}", "cycles:2", "steps_per_task:40"]
    arguments = ["--algo", "continual_ppo", "--env", "GymCycle-v0", "--env-kwargs", *env_kwargs, "-n", str(n_steps)]
    search = [
        "-optimize",
        "--n-trials",
        "1",
        "--n-jobs",
        "1",
        "--n-evaluations",
        "1",
        "--eval-episodes",
        "1",
        "--no-optim-plots",
    ]
    command("train", *arguments, *search, "-params", f"n_envs:{n_envs}", "n_epochs:1")
    expected = f"A trial of n_timesteps={n_steps} ends before the first phase does, which has up to {40 * n_envs} steps"
    assert any(expected in str(warning.message) for warning in recwarn) == is_short


def test_the_critics_learning_rate_can_fall(command):
    command("train", *RUN, *PARAMS, "qf_learning_rate:'lin_1e-3'")
    model = NBSPSAC.load("logs/nbsp_sac/Pendulum-v1_1/Pendulum-v1.zip")
    assert model.qf_learning_rate(0.5) == pytest.approx(5e-4) and model.qf_learning_rate(-0.1) == 0


def test_an_entry_for_nearly_the_same_environment_is_pointed_out(command):
    Path("mine.yml").write_text(yaml.safe_dump({"Pendulun-v1": {}, "default": {"policy": "MlpPolicy", "n_timesteps": 20}}))
    with pytest.warns(UserWarning, match="no entry 'Pendulum-v1': the section 'default' is taken; did you mean Pendulun-v1?"):
        command("train", *RUN, "--eval-freq", "-1", "-conf", "mine.yml", *PARAMS)
