"""The YAML files: complete, accepted by the algorithms, and those of the paper."""

import inspect
import shutil
from pathlib import Path
from pydoc import locate

import gymnasium as gym
import numpy as np
import pytest
import yaml
from gymnasium import spaces
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import nn
from zoo_commands import ENV_ID, ROOT, environment, run

from sb3_nbsp import NBSPSAC, ContinualSAC
from sb3_nbsp.algorithms.options import constructor_parameters
from sb3_nbsp.tasks import TaskSequence
from sb3_nbsp.tasks.registration import MUJOCO_TASKS, cycle_friction_ids, dm_control_ids, is_sequence, sequences
from sb3_nbsp.zoo.algos import ALGOS, PLAIN, algorithm, hyperparams_file, read_hyperparams
from sb3_nbsp.zoo.options import ZOO_OPTIONS, check_names

# Those that have an entry for each sequence
CLASSES = {"nbsp_sac": NBSPSAC, "continual_sac": ContinualSAC, "sac": SAC}
ALL_CLASSES = {**ALGOS, **PLAIN}
ON_POLICY = [algo for algo, cls in ALL_CLASSES.items() if issubclass(cls, PPO) and algo != "crelu_ppo"]  # not with tanh
# Those for the P3O paper's environments
P3O_PAPER = [algo for algo in ALL_CLASSES if algo not in ("nbsp_sac", "crelu_ppo") and "discrete" not in algo]
SEQUENCES = sorted(sequences())
FULL = [env_id for env_id in SEQUENCES if "laptop" not in env_id]
# P3O paper, section 5
DM_CONTROL = [
    f"DMC-{domain}-{task}-v0"
    for domain, tasks in {
        "hopper": ["hop", "stand"],
        "walker": ["run", "walk", "stand"],
        "humanoid": ["run", "walk", "stand"],
        "quadruped": ["run", "walk"],
        "cheetah": ["run"],
        "dog": ["run", "trot", "walk", "stand"],
    }.items()
    for task in tasks
]
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
    "replay_ent_coef": "current",
    "identification": "goal",
    "replay_interval": 10,
    "memory_size": 100_000,
    "identification_steps": 10_000,
}
# P3O paper, table 3
TABLE_3 = {
    "policy": "MlpPolicy",
    "n_timesteps": 1.25e7,
    "n_steps": 8192,
    "batch_size": 256,
    "n_epochs": 10,
    "learning_rate": 3e-4,
    "gamma": 0.99,
    "clip_range": 0.2,
    "policy_kwargs": {"net_arch": {"pi": [256] * 3, "vf": [256] * 3}, "activation_fn": nn.Tanh},
}
# Tables 3 and 6
CBP = {"replacement_rate": 0.01, "maturity_threshold": 10_000, "decay_rate": 0.99}
REDO = {"dormant_threshold": None}  # the lowest share, see appendix A.1
METHODS = {
    "p3o": {"reset_frequency": 50_000, "reset_rate": 0.01, "distill_alpha": 0.4, "distill_threshold": 0.01},
    "cycle_ppo": {"reset_frequency": 50_000, "reset_rate": 0.01},
    "redo_ppo": {"reset_frequency": 50_000, "reset_rate": 0.01, **REDO},
    "cbp_ppo": CBP,
    "sbp_sac": {"reset_frequency": 10_000, "reset_rate": 0.01, "distill_alpha": 0.8, "distill_states": 8192},
    "cycle_sac": {"reset_frequency": 10_000, "reset_rate": 0.01},
    "redo_sac": {"reset_frequency": 10_000, "reset_rate": 0.01, **REDO},
    "cbp_sac": CBP,
}


class SmallEnv(gym.Env):
    observation_space = spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self, is_discrete: bool = False, images: bool = False) -> None:
        self.action_space = spaces.Discrete(3) if is_discrete else spaces.Box(-1, 1, (2,), np.float32)
        if images:
            self.observation_space = spaces.Box(0, 255, (4, 84, 84), np.uint8)


def entries(algo: str) -> dict[str, dict]:
    return yaml.safe_load(hyperparams_file(algo).read_text())


def accepted(cls: type) -> set[str]:
    """Names of the keyword arguments of a class, with those that it hands on to its base."""
    return set(inspect.signature(cls).parameters)


@pytest.mark.parametrize("algo", CLASSES)
def test_every_sequence_has_an_entry(algo):
    found = {env_id for env_id in entries(algo) if env_id.startswith("MW-")}
    assert found == {*SEQUENCES, "MW-Cycle-v0"}


@pytest.mark.parametrize("algo", ALL_CLASSES)
def test_no_entry_repeats_the_default(algo):
    found = entries(algo)
    assert [name for name, entry in found.items() if name != "default" and entry == found["default"]] == []


@pytest.mark.parametrize("algo", ALL_CLASSES)
def test_every_entry_is_of_an_environment(algo):
    kinds = {"meta-world", "laptop", "cycle-friction", "atari", "default"}
    assert all(env_id in gym.registry for env_id in set(entries(algo)) - kinds)


@pytest.mark.parametrize("algo", ALL_CLASSES)
def test_every_entry_fits_the_constructor(algo):
    known = accepted(ALL_CLASSES[algo])
    assert "learning_rate" in known and ("memory_size" in known) == (algo in ("nbsp_sac", "nbsp_discrete_sac"))
    for env_id, entry in entries(algo).items():
        assert set(entry) - ZOO_OPTIONS <= known, env_id
        assert isinstance(entry["n_timesteps"], (int, float)) and entry["n_timesteps"] > 0, env_id


@pytest.mark.parametrize("algo", ALL_CLASSES)
def test_the_command_line_knows_every_option_of_an_agent(algo):
    found = set(constructor_parameters(ALL_CLASSES[algo]))
    assert found == {name for name in inspect.signature(ALL_CLASSES[algo]).parameters if not name.startswith("_")}
    for entry in entries(algo).values():
        check_names(algo, entry, found | ZOO_OPTIONS)


def option_of(model, name):
    """What an agent was made with, but for ``use_sde``, which SB3 adds to SAC's policy_kwargs."""
    value = getattr(model, name)
    if name == "policy_kwargs" and type(model) is not SAC:
        value = {key: each for key, each in value.items() if key != "use_sde"}
    return value


@pytest.mark.parametrize("algo", CLASSES)
@pytest.mark.parametrize("env_id", ["meta-world", "laptop", "default"])
def test_every_kind_of_entry_makes_an_agent(algo, env_id):
    hyperparams = read_hyperparams(algo, env_id)
    hyperparams.pop("n_timesteps")
    model = algorithm(algo)(env=SmallEnv(), **{**hyperparams, "buffer_size": 100})
    assert type(model) is CLASSES[algo]
    for name, value in hyperparams.items():
        if name not in ("policy", "buffer_size"):
            assert option_of(model, name) == value


@pytest.mark.parametrize("algo", ALL_CLASSES)
def test_every_entry_makes_an_agent(algo):
    smaller = {"buffer_size": 100} if issubclass(ALL_CLASSES[algo], OffPolicyAlgorithm) else {"n_steps": 512}
    made = []
    for env_id in entries(algo):
        found = read_hyperparams(algo, env_id)
        if isinstance(found.get("replay_buffer_class"), str):
            found["replay_buffer_class"] = locate(found["replay_buffer_class"])
        hyperparams = {name: value for name, value in found.items() if name not in ZOO_OPTIONS}
        if hyperparams in made:
            continue
        made.append(hyperparams)
        is_discrete = issubclass(ALL_CLASSES[algo], ALGOS["continual_discrete_sac"])
        env = SmallEnv(is_discrete, images=hyperparams["policy"] == "CnnPolicy")
        model = algorithm(algo)(env=env, device="cpu", **{**hyperparams, **smaller})
        assert type(model) is ALL_CLASSES[algo]
        hyperparams["policy_kwargs"] = {**hyperparams["policy_kwargs"], **getattr(type(model), "own_policy_kwargs", {})}
        for name in set(hyperparams) - {"policy", "clip_range", *smaller}:
            value = option_of(model, name)
            assert (value.frequency if name == "train_freq" else value) == hyperparams[name]
    assert made


@pytest.mark.parametrize("algo", P3O_PAPER)
def test_the_p3o_papers_settings(algo):
    assert set(DM_CONTROL) <= set(dm_control_ids())
    for env_id in [*MUJOCO_TASKS, *cycle_friction_ids(), *DM_CONTROL]:
        found = read_hyperparams(algo, env_id)
        expected = {**(TABLE_3 if algo in ON_POLICY else {"buffer_size": 1_000_000}), **METHODS.get(algo, {})}
        assert {name: found[name] for name in expected} == expected
        if algo in ON_POLICY:
            assert set(found) - set(expected) <= {"distill_batch_size"}, "what the paper does not list is SB3's"
        else:
            # One cycle
            assert found["n_timesteps"] == (6e6 if env_id in cycle_friction_ids() else 1e6)


def test_what_methods_of_the_p3o_paper_share_is_the_same():
    for base, family in (("ppo", ON_POLICY), ("sac", [algo for algo in P3O_PAPER if algo not in ON_POLICY])):
        for env_id in ("Hopper-v5", "DMC-hopper-hop-v0", "CycleFriction-Hopper-v5"):
            shared = read_hyperparams(base, env_id)
            for algo in family:
                found = read_hyperparams(algo, env_id)
                assert {name: found[name] for name in shared} == shared


@pytest.mark.parametrize("algo", ON_POLICY)
def test_any_other_environment_gets_the_papers_settings(algo):
    assert read_hyperparams(algo, "Pendulum-v1") == read_hyperparams(algo, "Hopper-v5")


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


@pytest.mark.parametrize("vanilla", ["continual_sac", "continual_discrete_sac"])
def test_methods_have_the_settings_of_the_vanilla_agent_on_a_task_sequence(vanilla):
    """Also those that have a file of their own for other environments."""
    discrete = {cls for cls in ALGOS.values() if issubclass(cls, ALGOS["continual_discrete_sac"])}
    algos = [
        algo for algo, cls in ALGOS.items() if issubclass(cls, ALGOS[vanilla]) and (cls in discrete) == ("discrete" in vanilla)
    ]
    assert {vanilla.replace("continual", name) for name in ("cbp", "cycle", "redo", "sbp", "ewc", "nbsp")} <= set(algos)
    env_ids = [env_id for env_id in entries(vanilla) if env_id in gym.registry and is_sequence(env_id)]
    assert len(env_ids) >= 5
    for env_id in env_ids:
        expected = read_hyperparams(vanilla, env_id)
        for algo in algos:
            found = read_hyperparams(algo, env_id)
            assert {name: found.get(name) for name in expected} == expected, f"{algo} on {env_id}"


def test_an_unknown_environment_gets_the_default():
    assert read_hyperparams("nbsp_sac", "Pendulum-v1") == {**entries("nbsp_sac")["default"], "policy_kwargs": {}}


@pytest.mark.parametrize("algo", ["nbsp", "td3", ""])
def test_an_unknown_algorithm_is_an_error(algo):
    with pytest.raises(ValueError, match=f"algo must be one of 'nbsp_sac', 'continual_sac', .*, 'ppo', not '{algo}'"):
        read_hyperparams(algo, ENV_ID)
    assert hyperparams_file(algo) is None


def test_a_checkout_has_its_files_at_the_root():
    files = {path.stem: path for path in (ROOT / "hyperparams").glob("*.yml")}
    assert set(files) <= set(ALL_CLASSES)
    for algo, cls in ALL_CLASSES.items():
        bases = ("continual_ppo", "continual_discrete_sac", "continual_sac")
        base = next((name for name in bases if issubclass(cls, ALL_CLASSES[name])), algo)
        assert hyperparams_file(algo) == files.get(algo, files[base])


def test_an_installed_package_has_its_files_inside(tmp_path):
    """As the wheel is laid out: see [tool.hatch.build.targets.wheel] in pyproject.toml."""
    tomllib = pytest.importorskip("tomllib")
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel["only-include"]) == {"sb3_nbsp", "hyperparams"}
    for source in wheel["only-include"]:
        target = tmp_path / wheel["sources"].get(source, source)
        shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
    code = "import sb3_nbsp.zoo.algos as a; print(*map(a.hyperparams_file, {**a.ALGOS, **a.PLAIN}), sep='\\n')"
    output = run(["-c", code], cwd=tmp_path, PYTHONPATH=str(tmp_path))
    expected = [tmp_path / "sb3_nbsp" / "hyperparams" / hyperparams_file(algo).name for algo in ALL_CLASSES]
    assert [Path(line) for line in output.split()] == expected
    assert environment()["PYTHONPATH"].startswith(str(ROOT))
