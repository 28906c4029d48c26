"""Rollouts of the actor alone: callbacks, environments and the buffer see what they see with SB3's PPO."""

from __future__ import annotations

import copy
import hashlib
import inspect
import io
import pickle
import warnings
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
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from test_equals_sb3_ppo import SMALL, BinaryTask, RolloutEnds, pendulum

from sb3_nbsp import ContinualPPO
from sb3_nbsp.fast import actor_rollouts
from sb3_nbsp.fast.mlp_actor_critic import Gaussian

BOTH = (PPO, ContinualPPO)


class AtStep(BaseCallback):
    """Does something to the agent before the transition of step ``at`` is stored, or at the end of the first rollout."""

    def __init__(self, act: Callable[[Any], Any], at: int | None = 10) -> None:
        super().__init__()
        self.act, self.at, self.found = act, at, []

    def _on_step(self) -> bool:
        if self.num_timesteps == self.at:
            self.found.append(self.act(self.model))
        return True

    def _on_rollout_end(self) -> None:
        if self.at is None and not self.found:
            self.found.append(self.act(self.model))


SB3S = {
    OnPolicyAlgorithm.collect_rollouts: "07f9eed35d9d7392",
    RolloutBuffer.add: "624274151cae9064",
    RolloutBuffer.reset: "20b4f5d48e0c9e5b",
}


@pytest.mark.parametrize("function", SB3S)
def test_sb3_still_does_what_the_rollouts_follow(function: Any) -> None:
    """If this fails, SB3 collects rollouts in another way: compare, and follow it."""
    assert hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16] == SB3S[function]


@pytest.mark.parametrize("at", [10, None], ids=["on the way", "at the end"])
def test_callbacks_see_sb3s_policy(at: int | None) -> None:
    observations = th.randn(4, 3)

    @th.no_grad()
    def look(model: Any) -> Any:
        policy = model.policy
        assert policy.forward.__func__ is type(policy).forward
        buffer = model.rollout_buffer
        assert buffer.compute_returns_and_advantage.__func__ is RolloutBuffer.compute_returns_and_advantage
        th.save(policy, io.BytesIO())
        before = policy(observations, deterministic=True)
        return copy.deepcopy(policy), pickle.loads(pickle.dumps(policy)), *before

    callback = AtStep(look, at)
    ContinualPPO("MlpPolicy", pendulum(), learning_rate=0.1, **SMALL).learn(32, callback)
    copied, pickled, *before = callback.found[0]
    assert (before[1] != 0).all()
    for each in (copied, pickled):
        assert all(map(th.equal, each(observations, deterministic=True), before))


def test_callbacks_see_sb3s_local_variables() -> None:
    names: dict[type, set[str]] = {}
    for cls in BOTH:

        class Look(BaseCallback):
            def _on_step(self) -> bool:
                assert self.locals["self"] is self.model and self.locals["rollout_buffer"] is self.model.rollout_buffer
                return True

            def _on_rollout_end(self) -> None:
                names[cls] = set(self.locals)  # noqa: B023
                assert th.isfinite(self.locals["values"]).all() and th.isfinite(self.locals["log_probs"]).all()

        cls("MlpPolicy", pendulum(), **SMALL).learn(32, Look())
    seen_at_a_cut_episode = {"idx", "done", "terminal_obs", "terminal_value"}
    assert names[PPO] - names[ContinualPPO] <= seen_at_a_cut_episode


class Shaped(gym.Env):
    """Keeps what it is told to do."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self, action_space: spaces.Box) -> None:
        self.action_space, self.played = action_space, []

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(**kwargs)
        return np.ones(3, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(np.asarray(action))
        self.played.append(action.copy())
        return np.ones(3, np.float32), float(action.sum()), False, len(self.played) % 7 == 0, {}


@pytest.mark.parametrize("shape", [(3,), (1, 3), (3, 1), (2, 2), (1,), ()])
def test_actions_of_any_shape_reach_the_environment_as_with_sb3(shape: tuple[int, ...]) -> None:
    played, buffers = [], []
    for cls in BOTH:
        low = np.full(shape, -0.5, np.float32)
        env = Shaped(spaces.Box(low, low + 1.5))
        agent = cls("MlpPolicy", env, **SMALL).learn(32)
        played.append(np.array(env.played))
        buffers.append(agent.rollout_buffer)
    assert played[0].shape == (32, *shape)
    np.testing.assert_array_equal(*played)
    for name in ("actions", "log_probs", "values", "returns"):
        np.testing.assert_allclose(getattr(buffers[0], name), getattr(buffers[1], name), rtol=1e-4, atol=1e-5)


def narrow(model: Any) -> None:
    model.policy.log_std.data.fill_(-3.0)


@th.no_grad()
def replace_critic(model: Any) -> None:
    model.policy.value_net.weight.fill_(0.1)


@th.no_grad()
def replace_hidden_layer(model: Any) -> None:
    model.policy.mlp_extractor.policy_net[0].weight.zero_()


def move(model: Any) -> None:
    for parameter in model.policy.parameters():
        parameter.data.add_(0.1)


@pytest.mark.parametrize("change", [narrow, move, replace_critic, replace_hidden_layer])
def test_policies_changed_in_a_rollout_are_evaluated_as_they_acted(change: Callable[[Any], None]) -> None:
    found = []
    for cls in BOTH:
        ends = RolloutEnds()
        cls("MlpPolicy", pendulum(), **SMALL).learn(32, [AtStep(change), ends])
        found.append(ends.ends[0])
    for name in ("actions", "values", "log_probs", "returns"):
        np.testing.assert_allclose(found[1][name], found[0][name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_changes_without_a_trace_are_warned_about() -> None:
    def change(model: Any) -> None:
        model.policy.value_net.weight.data.fill_(0.1)

    with pytest.warns(UserWarning, match=r"policy was changed during a rollout.*fused=False"):
        ContinualPPO("MlpPolicy", pendulum(), **SMALL).learn(32, AtStep(change))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ContinualPPO("MlpPolicy", pendulum(), **SMALL).learn(64)


def test_rollouts_that_a_callback_stopped_are_evaluated_as_far_as_they_went() -> None:
    class Stop(BaseCallback):
        def _on_step(self) -> bool:
            return self.n_calls < 40

    buffers = []
    for cls in BOTH:
        agent = cls("MlpPolicy", pendulum(), **SMALL, learning_rate=1e-7).learn(64, Stop())
        assert agent.num_timesteps == 40 and agent.rollout_buffer.pos == 7
        buffers.append(agent.rollout_buffer)
    for name in ("observations", "values", "log_probs"):
        theirs, ours = (getattr(buffer, name) for buffer in buffers)
        assert (theirs[:7] != 0).all() and (ours[7:] == 0).all()
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4, err_msg=name)


def test_on_the_way_values_are_nan_and_not_zero() -> None:
    seen = []

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            seen.append((self.locals["values"], self.locals["log_probs"]))
            return True

    ContinualPPO("MlpPolicy", pendulum(), **SMALL).learn(32, Look())
    assert all(each.isnan().all() for pair in seen for each in pair)


class OwnWay(PPO):
    def collect_rollouts(self, *args: Any, **kwargs: Any) -> bool:
        self.ways = getattr(self, "ways", 0) + 1
        return super().collect_rollouts(*args, **kwargs)


class OwnWayBelow(ContinualPPO, OwnWay):
    pass


def test_other_ways_to_collect_are_not_passed_over() -> None:
    agent = OwnWayBelow("MlpPolicy", pendulum(), **SMALL).learn(64)
    assert agent.ways == 2


def test_a_buffer_that_somebody_watches_is_left_to_sb3() -> None:
    agent = ContinualPPO("MlpPolicy", pendulum(), **SMALL)
    rows: list[int] = []
    add = agent.rollout_buffer.add
    agent.rollout_buffer.add = lambda *args: (rows.append(1), add(*args))  # type: ignore[method-assign, assignment]
    agent.learn(32)
    assert len(rows) == 32


def test_what_a_buffer_of_integers_would_lose_is_left_to_sb3() -> None:
    class Counts(BinaryTask):
        observation_space = spaces.Box(0, 255, (3,), np.uint8)

    agent = ContinualPPO("MlpPolicy", Counts(spaces.Discrete(2)), **SMALL)
    assert not actor_rollouts.can_act_alone(agent.policy, agent.rollout_buffer)


@pytest.mark.usefixtures("double_precision")
def test_in_double_precision_only_rounding_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    On MuJoCo, single precision is soon apart, as it also is if the last bit of a weight is changed. So everything is in double
    precision here, the rollout buffer too. It hands actions to the update in single precision: they are drawn in it.
    """
    reset, draws = RolloutBuffer.reset, {each: each.sample for each in (DiagGaussianDistribution, Gaussian)}

    def reset_to_double(buffer: RolloutBuffer) -> None:
        reset(buffer)
        for name in ("rewards", "returns", "values", "log_probs", "advantages"):
            setattr(buffer, name, getattr(buffer, name).astype(np.float64))

    monkeypatch.setattr(RolloutBuffer, "reset", reset_to_double)
    for cls, draw in draws.items():
        monkeypatch.setattr(cls, "sample", lambda *args, draw=draw: draw(*args).float().double())
    ends = []
    for fused in (False, True):
        agent = ContinualPPO(
            "MlpPolicy", gym.make("Hopper-v5"), fused=fused, **{**SMALL, "n_steps": 128, "learning_rate": 1e-3}
        )
        before = th.cat([each.detach().flatten().clone() for each in agent.policy.parameters()])
        agent.learn(3 * 128)
        ends.append(th.cat([each.detach().flatten() for each in agent.policy.parameters()]))
        assert (ends[-1] - before).abs().max() > 1e-2
    assert (ends[0] - ends[1]).abs().max() < 1e-9
