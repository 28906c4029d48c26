"""The YAML files: complete, accepted by the algorithms, and those of the paper."""

import inspect
import shutil
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import yaml
from gymnasium import spaces
from stable_baselines3 import SAC
from zoo_commands import ENV_ID, ROOT, environment, run

from sb3_nbsp import NBSPSAC, ContinualSAC
from sb3_nbsp.tasks import TaskSequence
from sb3_nbsp.tasks.registration import sequences
from sb3_nbsp.zoo.algos import algorithm, hyperparams_file, read_hyperparams

CLASSES = {"nbsp_sac": NBSPSAC, "continual_sac": ContinualSAC, "sac": SAC}
SEQUENCES = sorted(sequences())
FULL = [env_id for env_id in SEQUENCES if "laptop" not in env_id]
# NBSP paper, table 6, Meta-World
TABLE_6 = {
    "policy": "MlpPolicy",
    "learning_rate": 3e-4,
    "buffer_size": 1_000_000,
    "learning_starts": 10_000,
    "batch_size": 256,
    "gamma": 0.99,
    "tau": 0.005,
    "gradient_steps": 2,
    "ent_coef": "auto",
    "policy_kwargs": {"net_arch": [768, 768, 768]},
}
# Sections 2 (m, alpha), 4 (k) and appendix C of the paper
NBSP = {
    "skill_proportion": 0.2,
    "mask_alpha": 0.2,
    "replay_interval": 10,
    "memory_size": 100_000,
    "identification_steps": 10_000,
}


class SmallEnv(gym.Env):
    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)


def entries(algo: str) -> dict[str, dict]:
    return yaml.safe_load(hyperparams_file(algo).read_text())


def accepted(cls: type) -> set[str]:
    """Names of the keyword arguments of a class, with those that it hands on to its base."""
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters.values()
            names |= {each.name for each in parameters if each.kind is not each.VAR_KEYWORD}
            if not any(each.kind is each.VAR_KEYWORD for each in parameters):
                return names
    return names


@pytest.mark.parametrize("algo", CLASSES)
def test_every_sequence_has_an_entry(algo):
    found = set(entries(algo)) - {"meta-world", "laptop", "default"}
    assert found == {*SEQUENCES, "MW-Cycle-v0"}
    assert all(env_id in gym.registry for env_id in found)


@pytest.mark.parametrize("algo", CLASSES)
def test_every_entry_fits_the_constructor(algo):
    known = accepted(CLASSES[algo])
    assert "learning_rate" in known and ("memory_size" in known) == (algo == "nbsp_sac")
    for env_id, entry in entries(algo).items():
        assert set(entry) - {"n_timesteps"} <= known, env_id
        assert isinstance(entry["n_timesteps"], (int, float)) and entry["n_timesteps"] > 0, env_id


@pytest.mark.parametrize("algo", CLASSES)
@pytest.mark.parametrize("env_id", ["meta-world", "laptop", "default"])
def test_every_kind_of_entry_makes_an_agent(algo, env_id):
    hyperparams = read_hyperparams(algo, env_id)
    hyperparams.pop("n_timesteps")
    model = algorithm(algo)(env=SmallEnv(), **{**hyperparams, "buffer_size": 100})
    assert type(model) is CLASSES[algo]
    for name, value in hyperparams.items():
        if name not in ("policy", "buffer_size"):
            assert getattr(model, name) == value


def test_an_entry_makes_an_agent_for_its_real_environment():
    hyperparams = read_hyperparams("nbsp_sac", ENV_ID)
    model = NBSPSAC(env=gym.make(ENV_ID), **{name: value for name, value in hyperparams.items() if name != "n_timesteps"})
    assert [layer.out_features for layer in model.actor.latent_pi if hasattr(layer, "out_features")] == [256, 256]
    assert model.replay_buffer.buffer_size == 100_000


@pytest.mark.parametrize("algo", CLASSES)
@pytest.mark.parametrize("env_id", [*FULL, "MW-Cycle-v0"])
def test_full_size_entries_are_the_papers(algo, env_id):
    expected = {**TABLE_6, **({"qf_learning_rate": 1e-3} if algo != "sac" else {}), **(NBSP if algo == "nbsp_sac" else {})}
    found = read_hyperparams(algo, env_id)
    found.pop("n_timesteps")
    assert found == expected


@pytest.mark.parametrize("env_id", SEQUENCES)
def test_the_steps_are_those_of_all_phases(env_id):
    defaults = {name: each.default for name, each in inspect.signature(TaskSequence.__init__).parameters.items()}
    kwargs = {**defaults, **gym.spec(env_id).kwargs}
    n_phases = len(kwargs["tasks"]) * kwargs["cycles"]
    assert kwargs["steps_per_task"] == (100_000 if "laptop" in env_id else 1_000_000)
    for algo in CLASSES:
        assert read_hyperparams(algo, env_id)["n_timesteps"] == n_phases * kwargs["steps_per_task"]


def test_what_methods_share_is_the_same():
    """Otherwise a comparison between them would compare more than the methods."""
    for env_id in ("meta-world", "laptop"):
        nbsp, continual, sac = (read_hyperparams(algo, env_id) for algo in CLASSES)
        assert all(nbsp[name] == value for name, value in continual.items())
        assert all(continual[name] == value for name, value in sac.items())


def test_an_unknown_environment_gets_the_default():
    assert read_hyperparams("nbsp_sac", "Pendulum-v1") == {**entries("nbsp_sac")["default"], "policy_kwargs": {}}


@pytest.mark.parametrize("algo", ["nbsp", "ppo", ""])
def test_an_unknown_algorithm_is_an_error(algo):
    with pytest.raises(ValueError, match=f"algo must be one of 'nbsp_sac', 'continual_sac', 'sac', not '{algo}'"):
        read_hyperparams(algo, ENV_ID)
    assert hyperparams_file(algo) is None


def test_a_checkout_has_its_files_at_the_root():
    for algo in CLASSES:
        assert hyperparams_file(algo) == ROOT / "hyperparams" / f"{algo}.yml"


def test_an_installed_package_has_its_files_inside(tmp_path):
    """As the wheel is laid out: see [tool.hatch.build.targets.wheel] in pyproject.toml."""
    tomllib = pytest.importorskip("tomllib")
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel["only-include"]) == {"sb3_nbsp", "hyperparams"}
    for source in wheel["only-include"]:
        target = tmp_path / wheel["sources"].get(source, source)
        shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
    code = "import sb3_nbsp.zoo.algos as a; print(*map(a.hyperparams_file, ['nbsp_sac', 'continual_sac', 'sac']), sep='\\n')"
    output = run(["-c", code], cwd=tmp_path, PYTHONPATH=str(tmp_path))
    expected = [tmp_path / "sb3_nbsp" / "hyperparams" / f"{algo}.yml" for algo in CLASSES]
    assert [Path(line) for line in output.split()] == expected
    assert environment()["PYTHONPATH"].startswith(str(ROOT))
