"""Without interventions or before their first act ContinualPPO and P3O are SB3's PPO: bit for bit, or fused up to rounding."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tagged_tasks import ImageTask, differing, parameters, random_states

from sb3_nbsp import CBPPPO, P3O, ContinualPPO, CyclePPO
from sb3_nbsp.fast.mlp_actor_critic import is_mlp_actor_critic

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
    # The last rollout goes past the total: SB3 passes a negative share on
    "schedules": (
        pendulum,
        {"learning_rate": lambda left: 1e-3 * max(left, 0), "clip_range": lambda left: 0.2 * max(left, 0)},
    ),
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


@pytest.mark.parametrize(("fused", "rel", "abs_"), [(False, 1e-5, 0.0), (True, 1e-3, 3e-7)])
def test_same_records(tmp_path: Any, fused: bool, rel: float, abs_: float) -> None:
    """What SB3 writes to its log, we write too; the same numbers up to rounding."""
    run(PPO, pendulum, tmp_path / "theirs", clip_range_vf=0.1)
    run(ContinualPPO, pendulum, tmp_path / "ours", clip_range_vf=0.1, fused=fused)
    rows = [(tmp_path / name / "progress.csv").read_text().splitlines() for name in ("theirs", "ours")]
    theirs, ours = ([dict(zip(each[0].split(","), row.split(","), strict=True)) for row in each[1:]] for each in rows)
    assert len(theirs) == len(ours) == 5
    for their, our in zip(theirs, ours, strict=True):
        assert their.keys() == our.keys()
        for key, value in their.items():
            if not key.startswith("time/"):
                assert value == our[key] or float(our[key]) == pytest.approx(float(value), rel=rel, abs=abs_), key


class RolloutEnds(BaseCallback):
    """Copies of the rollout buffer at the end of each rollout, and of what a callback sees of it on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[np.ndarray] = []
        self.ends: list[dict[str, np.ndarray]] = []

    def _on_step(self) -> bool:
        self.seen.append(self.locals["actions"].copy())
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.model.rollout_buffer  # type: ignore[attr-defined]
        names = ("observations", "actions", "rewards", "values", "log_probs", "advantages", "returns")
        self.ends.append({name: getattr(buffer, name).copy() for name in names})


FUSED = ["default", "Hopper", "discrete", "VecNormalize, two environments", "clipped values", "early stop", "schedules"]
FUSED += ["advantages as they are", "last batch of one", "RMSprop", "entropy", "SGD", "short episodes", "no hidden layers"]
MORE_CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "entropy": (pendulum, {"ent_coef": 0.1, "vf_coef": 0.2}),
    "SGD": (pendulum, {"policy_kwargs": {"optimizer_class": th.optim.SGD}}),
    "short episodes": (lambda: gym.wrappers.TimeLimit(pendulum().unwrapped, 7), {}),  # cut off: values of the last states
    "no hidden layers": (cartpole, {"policy_kwargs": {"net_arch": []}}),
}


@pytest.mark.usefixtures("double_precision")
@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
@pytest.mark.parametrize("name", FUSED)
def test_fused_is_the_same_up_to_rounding(name: str) -> None:
    """Two rollouts and the updates behind them; the rollout buffer holds single precision."""
    make_env, kwargs = {**CASES, **MORE_CASES}[name]
    results = []
    for cls in (PPO, ContinualPPO):
        agent = cls("MlpPolicy", make_env(), **{**SMALL, "learning_rate": 1e-3, **kwargs})
        ends = RolloutEnds()
        agent.learn(2 * 33 * agent.n_envs - 2, ends)
        results.append((agent, ends, random_states()))
    (theirs, their_ends, their_random), (ours, our_ends, our_random) = results
    assert is_mlp_actor_critic(ours.policy)
    assert ours._n_updates == theirs._n_updates
    assert our_random == their_random
    # The first rollout: the same draws
    n_steps = theirs.n_steps
    assert all(np.array_equal(*pair) for pair in zip(their_ends.seen[:n_steps], our_ends.seen[:n_steps], strict=True))
    for their_end, our_end in zip(their_ends.ends, our_ends.ends, strict=True):
        for key, array in their_end.items():
            np.testing.assert_allclose(our_end[key], array, rtol=1e-5, atol=1e-5, err_msg=key)
    for key, tensor in parameters(theirs).items():
        assert (tensor - parameters(ours)[key]).abs().max() < 1e-6, key


def test_fused_in_single_precision() -> None:
    """Three gradient steps."""
    options = {**SMALL, "n_steps": 48, "n_epochs": 1}
    theirs, ours = (cls("MlpPolicy", hopper(), **options).learn(48) for cls in (PPO, ContinualPPO))
    for key, tensor in parameters(theirs).items():
        assert (tensor - parameters(ours)[key]).abs().max() < 2e-5, key


class OwnBuffer(RolloutBuffer):
    pass


class OwnPolicy(ActorCriticPolicy):
    def forward(self, obs: th.Tensor, deterministic: bool = False) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        actions, values, log_prob = super().forward(obs, deterministic)
        return actions, values + 1, log_prob


@pytest.mark.parametrize("case", ["own buffer", "own policy", "forward hook", "images", "gSDE", "not fused", "CBP"])
def test_rollouts_that_are_left_to_sb3(case: str) -> None:
    """Callbacks then see the values on the way."""

    class Look(RolloutEnds):
        def _on_step(self) -> bool:
            self.seen.append(self.locals["values"])
            return True

    options: dict[str, dict[str, Any]] = {
        "own buffer": {"rollout_buffer_class": OwnBuffer},
        "own policy": {"policy": OwnPolicy},
        "images": {"env": ImageTask(), **CNN},
        "gSDE": {"use_sde": True},
        "not fused": {"fused": False},
    }
    cls = CBPPPO if case == "CBP" else ContinualPPO
    agent = cls(**{"policy": "MlpPolicy", "env": pendulum(), **SMALL, **options.get(case, {})})
    if case == "forward hook":
        agent.policy.mlp_extractor.policy_net[1].register_forward_hook(lambda *_: None)
    look = Look()
    agent.learn(32, look)
    values = th.cat(look.seen).flatten().numpy()
    np.testing.assert_array_equal(look.ends[0]["values"].flatten(), values)


def test_fused_optimizer(tmp_path: Any) -> None:
    """The option decides, not the file."""
    for fused, others in ((True, False), (False, True)):
        ContinualPPO("MlpPolicy", pendulum(), fused=others, **SMALL).learn(32).save(tmp_path / "ppo")
        agent = ContinualPPO.load(tmp_path / "ppo", env=pendulum(), fused=fused, device="cpu")
        assert agent.policy.optimizer.param_groups[0]["fused"] == (True if fused else None)
        agent.learn(32)
        assert agent.policy.optimizer.param_groups[0]["fused"] == (True if fused else None)
    with pytest.raises(ValueError, match="fused"):
        ContinualPPO("MlpPolicy", pendulum(), fused="yes")  # type: ignore[arg-type]


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
    states = [str(end.all_interventions.state_dict()) for end in ends]
    assert states[0] == states[1]
    assert ends[0].all_interventions.state_dict()["CycleReset"]["n_renewals"] == 4


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
    assert ours.all_interventions.state_dict()["CycleReset"]["n_renewals"] == 2


def test_wrong_interventions() -> None:
    with pytest.raises(ValueError, match="interventions must be a list"):
        ContinualPPO("MlpPolicy", "Pendulum-v1", interventions=[P3O])  # type: ignore[list-item]
