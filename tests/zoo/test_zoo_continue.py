"""``-i``: normalization, and the place in the task sequence, of every agent."""

import csv
import json
import pickle
import shutil
import sys
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from clockwork import Clockwork
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_nbsp.tasks import TaskSequence, gymnasium_cycle
from sb3_nbsp.tasks.checkpoint import get_position
from sb3_nbsp.zoo import cli
from sb3_nbsp.zoo.checkpoints import can_continue, statistics_of

SHORT = ["env_ids:['Pendulum-v1']", "env_kwargs:{'max_episode_steps': 20}"]
SEQUENCE = ["--env", "GymCycle-v0", "--env-kwargs", *SHORT, "cycles:3", "steps_per_task:40"]
SMALL = {
    "sac": ["learning_starts:5", "batch_size:8", "buffer_size:1000", "policy_kwargs:dict(net_arch=[8])"],
    "ppo": ["n_steps:10", "batch_size:10", "n_epochs:1", "policy_kwargs:dict(net_arch=[8])"],
}
SMALL["p3o"] = [*SMALL["ppo"], "reset_frequency:20", "max_distill_epochs:1"]


def run(algo: str, number: int, env_id: str = "GymCycle-v0") -> Path:
    return Path("logs") / algo / f"{env_id}_{number}"


@pytest.fixture
def resets(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Phase and steps of it at every reset of a sequence that has phases."""
    seen: list[tuple[int, int]] = []
    reset = TaskSequence.reset

    def recording_reset(self, **kwargs):
        result = reset(self, **kwargs)
        seen.extend([] if self.rotate else [(self.phase, self.phase_steps)])
        return result

    monkeypatch.setattr(TaskSequence, "reset", recording_reset)
    return seen


@pytest.mark.parametrize("algo", ["sac", "ppo", "p3o"])
def test_every_agent_continues_in_its_phase_and_its_history(algo, command, resets):
    arguments = ["--algo", algo, *SEQUENCE, "-params", *SMALL[algo]]
    with pytest.warns(UserWarning):  # tasks without success, and too few steps for all phases
        command("train", *arguments, "--eval-freq", "-1", "-n", "80", "--save-freq", "60", "--save-replay-buffer")
        resets.clear()
        first = run(algo, 1)
        command("train", *arguments, "--eval-freq", "-1", "-n", "40", "-i", str(first / "rl_model_60_steps.zip"))
    assert resets[0] == (1, 20), "in the middle of its second phase"
    with (run(algo, 2) / "training.csv").open() as file:
        steps = [(int(row["step"]), int(row["phase"])) for row in csv.DictReader(file)]
    assert steps[:5] == [(20, 0), (40, 0), (60, 1), (80, 1), (100, 2)]
    rows = [(run(algo, number) / "success_matrix.csv").read_text().splitlines() for number in (1, 2)]
    assert rows[0][:2] == rows[1][:2] and len(rows[1]) >= 3


def test_the_end_of_a_run_has_its_place_too(command, resets):
    arguments = ["--algo", "sac", *SEQUENCE, "-params", *SMALL["sac"], "--eval-freq", "-1", "-n", "60"]
    with pytest.warns(UserWarning):
        command("train", *arguments)
        resets.clear()
        command("train", *arguments, "-i", str(run("sac", 1) / "GymCycle-v0.zip"))
    assert resets[0] == (1, 20)


def test_a_sequence_that_is_over_is_not_continued():
    env, other = (DummyVecEnv([partial(gymnasium_cycle, [name], cycles=2)]) for name in ("CartPole-v1", "MountainCar-v0"))
    position = get_position(env)
    assert can_continue(position, env) and not can_continue(position, other) and not can_continue({}, env)
    position["sequence"][0]["sequence_over"] = True
    assert not can_continue(position, env)


def test_the_random_numbers_of_a_run_go_on_whatever_the_seed_of_the_next(command, monkeypatch):
    arguments = ["--algo", "p3o", "--env", "Pendulum-v1", "--eval-freq", "-1", "-n", "20", "-params", *SMALL["p3o"]]
    command("train", *arguments)
    drawn = []

    def learn(self, total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar):
        self._setup_learn(total_timesteps, None, reset_num_timesteps)
        drawn.append(np.random.random())
        return self

    monkeypatch.setattr(OnPolicyAlgorithm, "learn", learn)
    for seed in ("3", "4"):
        command("train", *arguments, "-i", str(run("p3o", 1, "Pendulum-v1") / "Pendulum-v1.zip"), "--seed", seed)
    assert drawn[0] == drawn[1]


PLAIN: dict[str, type[BaseAlgorithm]] = {"sac": SAC, "ppo": PPO}


@pytest.fixture
def clockwork():
    gym.register("Clockwork-v0", entry_point=Clockwork)
    yield "Clockwork-v0"
    gym.registry.pop("Clockwork-v0")


@pytest.mark.filterwarnings("ignore:n_timesteps=")
@pytest.mark.parametrize("algo", PLAIN)
def test_two_runs_of_an_agent_of_sb3s_end_as_one(algo, command, clockwork):
    env_kwargs = [f"env_ids:['{clockwork}']", "cycles:9", "steps_per_task:30"]
    arguments = ["--algo", algo, "--env", "GymCycle-v0", "--env-kwargs", *env_kwargs, "--eval-freq", "-1"]
    arguments += ["--save-replay-buffer", "-params", *SMALL[algo]]
    command("train", *arguments, "-n", "100", "--seed", "3")
    command("train", *arguments, "-n", "50", "--seed", "3")
    command("train", *arguments, "-n", "50", "-i", str(run(algo, 2) / "GymCycle-v0.zip"), "--seed", "8")
    whole, _, halves = (PLAIN[algo].load(run(algo, number) / "GymCycle-v0.zip").get_parameters() for number in (1, 2, 3))
    assert whole["policy"].keys() == halves["policy"].keys()
    different = [name for name, value in whole["policy"].items() if not th.equal(value, halves["policy"][name])]
    assert not different


@pytest.mark.parametrize("algo", PLAIN)
@pytest.mark.filterwarnings("ignore:No replay buffer")
def test_random_numbers_of_sb3s_agents_go_on_from_every_file(algo, command, monkeypatch):
    arguments = ["--algo", algo, "--env", "Pendulum-v1", "--eval-freq", "10", "--eval-episodes", "1"]
    arguments += ["-params", "n_envs:1", *SMALL[algo]]
    command("train", *arguments, "-n", "20", "--save-freq", "10")
    drawn = []

    def collect_rollouts(self, *args, **kwargs):
        drawn.append(np.random.random())
        raise KeyboardInterrupt

    monkeypatch.setattr(PLAIN[algo], "collect_rollouts", collect_rollouts)
    for name in ("rl_model_10_steps.zip", "best_model.zip", "Pendulum-v1.zip"):
        for seed in ("3", "4"):
            command("train", *arguments, "-n", "10", "-i", str(run(algo, 1, "Pendulum-v1") / name), "--seed", seed)
    assert drawn[::2] == drawn[1::2]
    assert drawn[0] != drawn[4], "after another rollout"


def test_a_new_run_has_a_number_of_its_own_in_tensorboard(command):
    arguments = [
        "--algo",
        "sac",
        *SEQUENCE,
        "-params",
        *SMALL["sac"],
        "--eval-freq",
        "-1",
        "--tensorboard-log",
        "tb",
        "-n",
        "20",
    ]
    with pytest.warns(UserWarning):
        for _ in range(2):
            command("train", *arguments)
    assert sorted(path.name for path in Path("tb/GymCycle-v0").iterdir()) == ["SAC_1", "SAC_2"]


def test_an_agent_of_sb3s_goes_on_in_an_environment_as_old_as_its_own(command, monkeypatch):
    env = ["--env", "CycleFriction-Hopper-v5", "--env-kwargs", "steps_per_friction:15"]
    arguments = ["--algo", "ppo", *env, "--eval-freq", "-1", "-n", "20", "-params", *SMALL["ppo"], "n_envs:2"]
    command("train", *arguments)
    ages = []
    collect = PPO.collect_rollouts

    def collect_rollouts(self, *args, **kwargs):
        ages.append((self.num_timesteps, self.env.get_attr("elapsed_steps")))
        return collect(self, *args, **kwargs)

    monkeypatch.setattr(PPO, "collect_rollouts", collect_rollouts)
    first = run("ppo", 1, "CycleFriction-Hopper-v5")
    command("train", *arguments, "-i", str(first / "CycleFriction-Hopper-v5.zip"))
    assert ages[0] == (20, [10, 10])
    next(first.glob("*position*")).unlink()
    with pytest.warns(UserWarning, match=r"How many steps the environment of CycleFriction-Hopper-v5\.zip had played"):
        command("train", *arguments, "-i", str(first / "CycleFriction-Hopper-v5.zip"))


@pytest.fixture(scope="module")
def normalized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with normalization: a checkpoint, a best model, its end."""
    cwd = tmp_path_factory.mktemp("normalized")
    arguments = ["--algo", "sbp_sac", "--env", "Pendulum-v1", "-n", "60", "--save-freq", "40", "--eval-freq", "20"]
    params = ["normalize:True", "learning_starts:20", "batch_size:8", "policy_kwargs:dict(net_arch=[8])"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr("sys.argv", ["sb3-nbsp", "train", *arguments, "--eval-episodes", "1", "--seed", "1", "-params", *params])
        cli.main()
    return cwd / "logs" / "sbp_sac" / "Pendulum-v1_1"


def count(path: Path) -> float:
    """How many observations the statistics are of."""
    return VecNormalize.load(str(path), DummyVecEnv([lambda: gym.make("Pendulum-v1")])).obs_rms.count


def continue_from(model: Path, command, *more: str) -> VecNormalize | None:
    """The normalization that a continued run has got, before it learns."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OffPolicyAlgorithm, "learn", lambda self, *_, **__: found.append(self.get_vec_normalize_env()))
        params = ["learning_starts:20", "batch_size:8", *more]
        run = ["--algo", "sbp_sac", "--env", "Pendulum-v1", "-n", "20", "--eval-freq", "-1"]
        command("train", *run, "-i", str(model), "-params", *params)
    return found[0]


@pytest.mark.parametrize("name", ["rl_model_40_steps.zip", "best_model.zip", "Pendulum-v1.zip"])
@pytest.mark.filterwarnings("ignore:No replay buffer")
def test_a_continued_run_normalizes_as_its_model_did(name, normalized, command, recwarn):
    path, is_of_the_end = statistics_of(normalized / name)
    assert not is_of_the_end
    saved = continue_from(normalized / name, command)
    assert saved is not None and saved.training
    assert saved.obs_rms.count == count(path)
    if name == "rl_model_40_steps.zip":
        assert 40 <= saved.obs_rms.count < 45 < count(normalized / "Pendulum-v1" / "vecnormalize.pkl")
    assert not [warning for warning in recwarn if "VecNormalize" in str(warning.message)]
    # The continued run keeps them in its turn, although it was not asked to normalize
    folder = Path("logs/sbp_sac/Pendulum-v1_1/Pendulum-v1")
    assert (folder / "vecnormalize.pkl").exists() and "- normalize" in (folder / "config.yml").read_text()


@pytest.mark.filterwarnings("ignore:No replay buffer")
def test_statistics_of_another_moment_or_none_are_warned_about(normalized, command, tmp_path):
    folder = tmp_path / "older"
    shutil.copytree(normalized, folder)
    (folder / "rl_model_vecnormalize_40_steps.pkl").unlink()
    with pytest.warns(UserWarning, match=r"vecnormalize\.pkl is of the end of that run, not of rl_model_40_steps\.zip"):
        continue_from(folder / "rl_model_40_steps.zip", command)
    (folder / "Pendulum-v1" / "vecnormalize.pkl").unlink()
    with pytest.warns(UserWarning, match="No statistics of VecNormalize are saved with rl_model_40_steps.zip"):
        continue_from(folder / "rl_model_40_steps.zip", command, "normalize:True")


@pytest.mark.filterwarnings("ignore:No replay buffer")
def test_statistics_that_the_zoo_published_load_as_they_are_stored(normalized, command, tmp_path):
    folder = tmp_path / "older"
    shutil.copytree(normalized, folder)
    path = folder / "Pendulum-v1" / "vecnormalize.pkl"
    saved = VecNormalize.load(str(path), DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    content = pickle.dumps(saved, protocol=0)  # in which names are lines
    assert b"gymnasium" in content
    path.write_bytes(content.replace(b"gymnasium", b"gym"))
    with pytest.raises(ModuleNotFoundError, match="No module named 'gym'"):
        count(path)
    assert continue_from(folder / "Pendulum-v1.zip", command).obs_rms.count == saved.obs_rms.count
    assert "gym" not in sys.modules


def test_enjoy_normalizes_as_its_model_did(normalized, command, monkeypatch):
    loaded = []
    load = VecNormalize.load

    def recording_load(path, venv):
        loaded.append(load(path, venv))
        return loaded[-1]

    monkeypatch.setattr(VecNormalize, "load", staticmethod(recording_load))
    arguments = ["--algo", "sbp_sac", "--env", "Pendulum-v1", "-f", str(normalized.parents[1]), "--no-render", "-n", "10"]
    command("enjoy", *arguments, "--load-checkpoint", "40")
    command("enjoy", *arguments)
    own, of_the_end = (normalizer.obs_rms.count for normalizer in loaded)
    assert 40 <= own < 45 < of_the_end and np.isfinite(of_the_end)


def test_a_new_run_takes_nothing_from_a_folder_that_happens_to_be_there(normalized, command):
    shutil.copytree(normalized / "Pendulum-v1", "Pendulum-v1")
    run = ["--algo", "ppo", "--env", "Pendulum-v1", "-n", "20", "--eval-freq", "-1", "-params", "normalize:False"]
    command("train", *run, "n_envs:1", "n_steps:10", "batch_size:10")
    assert not list(Path("logs").rglob("vecnormalize.pkl"))


@pytest.mark.parametrize("algo", ["sac", "sbp_sac"])
@pytest.mark.parametrize(
    "owner, write, last",
    [(SAC, "save", 2), (pickle, "dump", 3)],  # the second model; the second buffer, after the first one and its statistics
)
def test_a_full_disk_leaves_the_last_checkpoint_and_no_half_of_the_next(algo, owner, write, last, command, monkeypatch):
    written = []
    function = getattr(owner, write)

    def fail_in_the_end(*args, **kwargs):
        written.append(write)
        if len(written) == last:
            raise OSError("no space left on device")
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, write, fail_in_the_end)
    arguments = ["--algo", algo, *SEQUENCE, "-n", "60", "--save-freq", "20", "--eval-freq", "-1", "--save-replay-buffer"]
    with pytest.raises(OSError, match="no space"), pytest.warns(UserWarning):
        command("train", *arguments, "-params", "normalize:True", *SMALL["sac"])
    names = {path.name for path in run(algo, 1).iterdir() if path.name.startswith("rl_model")}
    of_sb3s = {"rl_model_position_20_steps.json", "rl_model_random_states_20_steps.pt"} if algo == "sac" else set()
    whole = {"rl_model_20_steps.zip", "rl_model_vecnormalize_20_steps.pkl", "rl_model_replay_buffer_20_steps.pkl"}
    assert names == whole | of_sb3s


def test_a_checkpoint_has_its_name_when_it_is_whole(command, monkeypatch):
    seen = []
    save = SAC.save

    def look_in_between(self, path, *args, **kwargs):
        Path(path).with_suffix(".zip").write_text("half")
        seen.append(sorted(path.name for path in run("sac", 1, "Pendulum-v1").glob("rl_model_*_steps.zip")))
        save(self, path, *args, **kwargs)

    monkeypatch.setattr(SAC, "save", look_in_between)
    arguments = ["--algo", "sac", "--env", "Pendulum-v1", "-n", "40", "--save-freq", "20", "--eval-freq", "-1"]
    command("train", *arguments, "-params", *SMALL["sac"])
    assert seen[:2] == [[], ["rl_model_20_steps.zip"]], "a process that is killed here leaves no half of a checkpoint"
    SAC.load(run("sac", 1, "Pendulum-v1") / "rl_model_40_steps.zip")


def test_a_checkpoint_is_whole(normalized):
    names = {path.name for path in normalized.iterdir()}
    assert {"rl_model_40_steps.zip", "rl_model_vecnormalize_40_steps.pkl", "best_model_vecnormalize.pkl"} <= names
    assert not [name for name in names if "position" in name], json.dumps(sorted(names))


def test_other_networks_than_those_of_the_file_are_refused(command):
    """Of the same ones, as in a command that is given again, nothing is said."""
    plain = ["--algo", "ewc_sac", "--env", "Pendulum-v1", "-n", "20", "--eval-freq", "-1", "-params", *SMALL["sac"]]
    command("train", *plain)
    given = run("ewc_sac", 1, "Pendulum-v1") / "Pendulum-v1.zip"
    command("train", *plain, "-i", str(given))
    with pytest.raises(
        ValueError, match=r"policy_kwargs: Pendulum-v1.zip keeps the networks .* net_arch would have no effect"
    ):
        command("train", *plain, "policy_kwargs:dict(net_arch=[4])", "-i", str(given))
