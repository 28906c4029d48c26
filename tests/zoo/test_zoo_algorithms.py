"""Every name of the zoo: train, continue, enjoy, search; on MuJoCo, Cycle Friction and the DeepMind Control Suite."""

import inspect
import re
from pathlib import Path

import gymnasium as gym
import optuna
import pytest
import rl_zoo3
import yaml
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from zoo_commands import ROOT

import sb3_nbsp
from sb3_nbsp.algorithms import methods
from sb3_nbsp.tasks.cycle_friction import CycleFriction
from sb3_nbsp.zoo.algos import ALGOS, TABLE, hyperparams_file
from sb3_nbsp.zoo.registration import register

pytest.importorskip("mujoco")

SMALL_NET = "policy_kwargs:dict(net_arch=[16, 16])"
PPO_PARAMS = ["n_steps:20", "batch_size:10", "n_epochs:1", SMALL_NET]
SAC_PARAMS = ["learning_starts:10", "batch_size:8", "buffer_size:200", SMALL_NET]
# What makes a method act within 40 steps that does not by itself
OWN_PARAMS = {
    "nbsp": ["identification_steps:10", "memory_size:10"],
    "p3o": ["reset_frequency:20", "reset_rate:0.2", "max_distill_epochs:2"],
    "sbp": ["reset_frequency:20", "reset_rate:0.2", "max_distill_epochs:2", "distill_states:16"],
    "cycle": ["reset_frequency:20", "reset_rate:0.2"],
    "redo": ["reset_frequency:20", "reset_rate:0.2"],
    "cbp": ["maturity_threshold:2", "replacement_rate:0.1"],
    "cotasp": ["distill_steps:10", "code_steps:2"],
    "packnet": ["retrain_steps:10"],
}


def is_on_policy(algo: str) -> bool:
    return issubclass(ALGOS[algo], OnPolicyAlgorithm)


def own_params(algo: str) -> list[str]:
    return OWN_PARAMS.get(algo.split("_")[0], [])


def env_of(algo: str) -> str:
    return "CartPole-v1" if "discrete" in algo else "Hopper-v5"


def params(algo: str) -> list[str]:
    return ["-params", *(PPO_PARAMS if is_on_policy(algo) else SAC_PARAMS), *own_params(algo)]


def needs_dm_control() -> None:
    pytest.importorskip("dm_control", reason="dm_control is not installed: pip install 'sb3_nbsp[dmc]'")
    pytest.importorskip("shimmy", reason="shimmy is not installed: pip install 'sb3_nbsp[dmc]'")


def run_folder(algo: str, env_id: str, number: int = 1) -> Path:
    return Path("logs") / algo / f"{env_id}_{number}"


@pytest.mark.parametrize("algo", ALGOS)
def test_train_continue_and_enjoy(algo, command, capsys):
    env_id = env_of(algo)
    run = ["--algo", algo, "--env", env_id]
    command("train", *run, "-n", "40", "--eval-freq", "-1", "--seed", "1", *params(algo))
    output = capsys.readouterr().out
    assert f"Loading hyperparameters from: {hyperparams_file(algo)}" in output
    path = run_folder(algo, env_id) / f"{env_id}.zip"
    model = ALGOS[algo].load(path)
    assert (type(model), model.num_timesteps) == (ALGOS[algo], 40)
    for name, value in (each.split(":") for each in own_params(algo)):
        assert getattr(model, name) == float(value)

    command("train", *run, "-n", "20", "--eval-freq", "-1", "-i", str(path), *params(algo))
    continued = ALGOS[algo].load(run_folder(algo, env_id, 2) / f"{env_id}.zip")
    assert continued.num_timesteps == 60
    assert continued._n_updates > model._n_updates

    loaded = []
    load = ALGOS[algo].load.__func__

    def recording_load(cls, *args, **kwargs):
        loaded.append(load(cls, *args, **kwargs))
        return loaded[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ALGOS[algo], "load", classmethod(recording_load))
        command("enjoy", *run, "-f", "logs", "--no-render", "-n", "200")
    assert "Mean reward: " in capsys.readouterr().out
    # rl-zoo3 itself leaves the replay buffer out for the names that it knows only
    assert type(loaded[0]) is ALGOS[algo]
    assert is_on_policy(algo) or loaded[0].replay_buffer.buffer_size == 1


@pytest.mark.parametrize("algo", ["p3o", "sac", "ppo"])
@pytest.mark.parametrize("env_id", ["DMC-hopper-hop-v0", "dm_control/hopper-hop-v0"])
def test_dm_control(algo, env_id, command, capsys):
    needs_dm_control()
    run = ["--algo", algo, "--env", env_id]
    small = ["-params", *(SAC_PARAMS if algo == "sac" else PPO_PARAMS)]
    command("train", *run, "-n", "40", "--eval-freq", "30", "--eval-episodes", "1", *small)
    output = capsys.readouterr().out
    assert f"Loading hyperparameters from: {ROOT / 'hyperparams' / f'{algo}.yml'}" in output
    name = env_id.replace("/", "-")
    path = run_folder(algo, name) / f"{name}.zip"
    assert path.with_name("evaluations.npz").exists()
    command("enjoy", *run, "-f", "logs", "--no-render", "-n", "1000")
    output = capsys.readouterr().out
    assert "1 Episodes" in output and "Mean episode length: 1000.00" in output
    if algo == "p3o":
        command("train", *run, "-n", "20", "--eval-freq", "-1", "-i", str(path), *small)
        assert ALGOS[algo].load(run_folder(algo, name, 2) / f"{name}.zip").num_timesteps == 60


def test_shimmys_ids_need_no_gym_packages_option_but_shimmy(command, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "shimmy", None)
    with pytest.raises(SystemExit, match=r"pip install 'sb3_nbsp\[dmc\]'"):
        command("train", "--algo", "p3o", "--env", "dm_control/hopper-hop-v0")


@pytest.mark.parametrize("algo", ["p3o", "sbp_sac"])
def test_a_continued_run_has_its_friction_and_so_has_the_evaluation(algo, command, monkeypatch):
    played: dict[CycleFriction, list[float]] = {}
    step = CycleFriction.step

    def recording_step(self, action):
        result = step(self, action)
        played.setdefault(self, []).append(result[4]["friction"])
        return result

    monkeypatch.setattr(CycleFriction, "step", recording_step)
    env_id = "CycleFriction-Hopper-v5"
    run = ["--algo", algo, "--env", env_id, "--env-kwargs", "steps_per_friction:30"]
    command("train", *run, "-n", "40", "--eval-freq", "40", "--eval-episodes", "1", *params(algo))
    evaluation, training = sorted(played.values(), key=lambda frictions: frictions[0])
    assert training == [4] * 30 + [3] * 10
    assert evaluation[0] == 3
    played.clear()
    path = run_folder(algo, env_id) / f"{env_id}.zip"
    command("train", *run, "-n", "40", "--eval-freq", "-1", "-i", str(path), *params(algo))
    (continued,) = played.values()
    assert continued == [3] * 20 + [2] * 20


@pytest.mark.parametrize("algo", ["p3o", "sbp_sac"])
def test_hyperparameter_search(algo, command, capsys):
    arguments = ["-optimize", "--n-trials", "1", "--n-jobs", "1", "--n-evaluations", "1", "--eval-episodes", "1"]
    small = ["learning_starts:20"] if algo == "sbp_sac" else ["n_epochs:1"]
    command("train", "--algo", algo, "--env", "Hopper-v5", "-n", "60", *arguments, "--seed", "6", "--no-optim-plots",
            "-params", *small)  # fmt: skip
    output = capsys.readouterr().out
    assert "Number of finished trials:  1" in output
    for name in ("reset_frequency", "reset_rate", "distill_alpha", "distill_threshold", "net_arch"):
        assert re.search(rf"^    {name}: ", output, re.MULTILINE)


@pytest.mark.parametrize("algo", ALGOS)
def test_the_sampler_gives_what_the_class_accepts(algo):
    register()
    own, env_id = set(), "CartPole-v1" if "discrete" in algo else "Pendulum-v1"
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(3):
        trial = study.ask()
        sampled = HYPERPARAMS_SAMPLER[algo](trial, 1, 1, {"using_her_replay_buffer": False, "her_kwargs": {}})
        # A study that is loaded gives the same again
        assert HYPERPARAMS_CONVERTER[algo](dict(trial.params)) == sampled
        smaller = {} if is_on_policy(algo) else {"buffer_size": 10}
        model = rl_zoo3.ALGOS[algo]("MlpPolicy", gym.make(env_id), device="cpu", **{**sampled, **smaller})
        made_otherwise = {"policy_kwargs", "clip_range", "learning_rate", "train_freq"}
        own = set(sampled) & set(vars(model)) - made_otherwise
        assert all(getattr(model, name) == sampled[name] for name in own)
    sample = TABLE[algo].sample
    assert (set() if sample is None else set(sample(trial))) < own


def test_help_lists_every_name(command, capsys):
    with pytest.raises(SystemExit):
        command("train", "--help")
    output = capsys.readouterr().out
    assert all(algo in output for algo in ALGOS)


@pytest.mark.parametrize(("name", "default"), [("train", "CartPole-v1"), ("enjoy", "rl-trained-agents")])
def test_help_names_the_defaults(name, default, command, capsys):
    with pytest.raises(SystemExit):
        command(name, "--help")
    assert f"(default: {default})" in capsys.readouterr().out


def test_the_saved_settings_of_shimmys_ids_have_the_wrapper(command):
    needs_dm_control()
    env_id = "dm_control/hopper-hop-v0"
    own = ["env_wrapper:'gymnasium.wrappers.FlattenObservation'"]
    for more in ([], own):
        command("train", "--algo", "p3o", "--env", env_id, "-n", "20", "--eval-freq", "-1", *params("p3o"), *more)
    for number in (1, 2):
        folder = run_folder("p3o", env_id.replace("/", "-"), number) / env_id.replace("/", "-")
        saved = yaml.unsafe_load((folder / "config.yml").read_text())
        assert saved["env_wrapper"] == "gymnasium.wrappers.FlattenObservation"


@pytest.mark.parametrize("algo", ["p3o", "redo_sac", "cbp_ppo"])
@pytest.mark.parametrize("budget", [500, 20_000, 10_000_000])
def test_the_sampler_follows_the_budget(algo, budget):
    register()
    name = "maturity_threshold" if algo == "cbp_ppo" else "reset_frequency"
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = []
    for _ in range(20):
        trial = study.ask()
        trial.set_user_attr("n_timesteps", budget)
        found.append(HYPERPARAMS_SAMPLER[algo](trial, 1, 1, {"using_her_replay_buffer": False, "her_kwargs": {}})[name])
    assert max(found) <= budget / (50 if algo == "cbp_ppo" else 5) and len(set(found)) > 3
    if budget == 10_000_000:  # the paper's range
        assert max(found) > 10_000


METHODS = [each for each in vars(methods).values() if inspect.isclass(each) and each.__module__ == methods.__name__]


@pytest.mark.parametrize("cls", METHODS)
def test_a_method_is_known_wherever_it_should_be(cls):
    assert getattr(sb3_nbsp, cls.__name__) is getattr(sb3_nbsp.algorithms, cls.__name__) is cls
    names = [name for name, entry in TABLE.items() if entry.cls is cls]
    assert len(names) == 1, "TABLE in sb3_nbsp/zoo/algos.py"
    assert hyperparams_file(names[0]) is not None
    sample = TABLE[names[0]].sample
    assert sample is not None or not cls.options, "the sampler of its options in TABLE"
    values = {name: each.default if isinstance(each.default, str) else 1 for name, each in cls.options.items()}
    assert sample is None or sample(optuna.trial.FixedTrial(values)).keys() <= cls.options.keys()
