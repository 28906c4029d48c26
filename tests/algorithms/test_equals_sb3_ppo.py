"""Without interventions, or before their first act, ContinualPPO and P3O are SB3's PPO, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tagged_tasks import ImageTask, differing, parameters, random_states

from sb3_nbsp import P3O, ContinualPPO, CyclePPO

SMALL: dict[str, Any] = {"n_steps": 32, "batch_size": 16, "n_epochs": 3, "seed": 3, "device": "cpu"}


class BinaryTask(gym.Env):
    """As many bits as actions of several kinds can have."""

    observation_space = spaces.Box(-1, 1, (3,))

    def __init__(self, action_space: spaces.Space) -> None:
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 3).astype("float32"), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation = self.np_random.uniform(-1, 1, 3).astype("float32")
        return observation, float(action.sum()), bool(self.np_random.random() < 0.1), False, {}


def pendulum() -> gym.Env:
    return gym.make("Pendulum-v1")


def cartpole() -> gym.Env:
    return gym.make("CartPole-v1")


def hopper() -> gym.Env:
    return gym.make("Hopper-v5")


def multi_binary() -> gym.Env:
    return BinaryTask(spaces.MultiBinary(3))


def multi_discrete() -> gym.Env:
    return BinaryTask(spaces.MultiDiscrete([2, 3]))


def normalized() -> VecNormalize:
    return VecNormalize(DummyVecEnv([pendulum, pendulum]))


CNN = {"policy": "CnnPolicy", "policy_kwargs": {"net_arch": [8], "features_extractor_kwargs": {"features_dim": 16}}}
CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "default": (pendulum, {}),
    "Hopper": (hopper, {"policy_kwargs": {"activation_fn": th.nn.ReLU, "net_arch": {"pi": [8, 8], "vf": [16]}}}),
    "discrete": (cartpole, {"ent_coef": 0.01}),
    "multi-binary": (multi_binary, {}),
    "multi-discrete": (multi_discrete, {"vf_coef": 0.3}),
    "VecNormalize, two environments": (normalized, {}),
    "gSDE": (pendulum, {"use_sde": True, "sde_sample_freq": 4}),
    "clipped values": (pendulum, {"clip_range_vf": 0.1}),
    "early stop": (pendulum, {"target_kl": 1e-4, "learning_rate": 1e-2}),
    "schedules": (pendulum, {"learning_rate": lambda left: 1e-3 * left, "clip_range": lambda left: 0.2 * left}),
    "advantages as they are": (pendulum, {"normalize_advantage": False, "gae_lambda": 0.9, "max_grad_norm": 10.0}),
    "last batch of one": (pendulum, {"n_steps": 33, "batch_size": 16}),
    "RMSprop": (pendulum, {"policy_kwargs": {"optimizer_class": th.optim.RMSprop}}),
    "images": (ImageTask, CNN),
}


def run(cls: type, make_env: Callable[[], Any], folder: Any = None, **kwargs: Any) -> tuple[Any, tuple[Any, ...]]:
    """Train; also return where the global random streams are afterwards."""
    options = {**SMALL, **kwargs}
    agent = cls(options.pop("policy", "MlpPolicy"), make_env(), **options)
    if folder is not None:
        agent.set_logger(configure(str(folder), ["csv"]))
    agent.learn(130)
    return agent, (*random_states(), random.getstate())


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
@pytest.mark.parametrize("name", CASES)
def test_bit_for_bit(name: str) -> None:
    make_env, kwargs = CASES[name]
    theirs, random_theirs = run(PPO, make_env, **kwargs)
    for cls, options in ((ContinualPPO, {}), (P3O, {"reset_frequency": 200}), (CyclePPO, {"reset_frequency": 200})):
        ours, random_ours = run(cls, make_env, fused=False, **kwargs, **options)
        assert (ours._n_updates, ours.num_timesteps) == (theirs._n_updates, theirs.num_timesteps)
        assert differing(parameters(theirs), parameters(ours)) == []
        assert random_theirs == random_ours
    if name == "early stop":
        assert theirs._n_updates < 3 * 5
    # and it is the test that is able to tell: with resets, the parameters differ
    ours, random_ours = run(P3O, make_env, fused=False, **kwargs, reset_frequency=64, reset_rate=0.5)
    assert differing(parameters(theirs), parameters(ours)) != []
    assert random_theirs == random_ours or name == "early stop"


def test_same_records(tmp_path: Any) -> None:
    """What SB3 writes to its log, we write too; the same numbers up to rounding."""
    run(PPO, pendulum, tmp_path / "theirs", clip_range_vf=0.1)
    run(ContinualPPO, pendulum, tmp_path / "ours", clip_range_vf=0.1)
    rows = [(tmp_path / name / "progress.csv").read_text().splitlines() for name in ("theirs", "ours")]
    theirs, ours = ([dict(zip(each[0].split(","), row.split(","), strict=True)) for row in each[1:]] for each in rows)
    assert len(theirs) == len(ours) == 5
    for their, our in zip(theirs, ours, strict=True):
        assert their.keys() == our.keys()
        for key, value in their.items():
            if not key.startswith("time/"):
                assert value == our[key] or float(our[key]) == pytest.approx(float(value), rel=1e-5), key


def test_same_seed_same_run() -> None:
    runs = [run(P3O, hopper, reset_frequency=64, reset_rate=0.3) for _ in range(2)]
    assert differing(parameters(runs[0][0]), parameters(runs[1][0])) == []
    other, _ = run(P3O, hopper, reset_frequency=64, reset_rate=0.3, seed=4)
    assert differing(parameters(runs[0][0]), parameters(other)) != []


def test_interrupted_run(tmp_path: Any) -> None:
    """Saved and loaded in between, P3O goes on as if it had not been (episodes apart: both begin new ones)."""
    kwargs: dict[str, Any] = {"reset_frequency": 64, "reset_rate": 0.3, **SMALL}

    def first_half() -> P3O:
        return P3O("MlpPolicy", "Hopper-v5", **kwargs).learn(128)

    def second_half(agent: P3O) -> P3O:
        agent.set_random_seed(7)
        agent._last_obs = None
        return agent.learn(128, reset_num_timesteps=False)

    agent = first_half()
    agent.save(tmp_path / "p3o")
    loaded = P3O.load(tmp_path / "p3o", env=gym.make("Hopper-v5"), device="cpu")
    ends = [second_half(loaded), second_half(agent)]
    assert ends[0].num_timesteps == 256
    assert differing(parameters(ends[0]), parameters(ends[1])) == []
    states = [str(end.hooks.state_dict()) for end in ends]
    assert states[0] == states[1]
    assert ends[0].hooks.state_dict()["0.CycleReset"]["n_renewals"] == 4


@pytest.mark.parametrize("content", ["nonsense", "sac"])
def test_foreign_files(tmp_path: Any, content: str) -> None:
    path = tmp_path / "model.zip"
    if content == "nonsense":
        path.write_bytes(b"nonsense")
    else:
        from sb3_nbsp import ContinualSAC

        ContinualSAC("MlpPolicy", "Pendulum-v1", buffer_size=10).save(path)
    with pytest.raises(ValueError, match="model"):
        P3O.load(path)


def test_sb3_models_load(tmp_path: Any) -> None:
    """A PPO of SB3 becomes a P3O whose interventions start afresh."""
    theirs, _ = run(PPO, pendulum)
    theirs.save(tmp_path / "ppo")
    ours = P3O.load(tmp_path / "ppo", env=pendulum(), reset_frequency=32, reset_rate=0.5, device="cpu")
    assert differing(parameters(theirs), parameters(ours)) == []
    ours.learn(64, reset_num_timesteps=False)
    assert ours.hooks.state_dict()["0.CycleReset"]["n_renewals"] == 2


def test_wrong_interventions() -> None:
    with pytest.raises(ValueError, match="interventions must be a list"):
        ContinualPPO("MlpPolicy", "Pendulum-v1", interventions=[P3O])  # type: ignore[list-item]
