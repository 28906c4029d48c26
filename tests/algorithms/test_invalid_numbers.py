"""A policy that has diverged ends training with the error of SB3, wherever it shows first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from test_equals_sb3_ppo import SMALL, BinaryTask
from test_inner_distillation import ACTIONS, CHOSEN, p3o, renew
from torch.distributions import Distribution

from sb3_nbsp import ContinualPPO


@pytest.fixture(autouse=True)
def checked_distributions() -> Iterator[None]:
    """torch.compile, once used in a process, switches the checks off for all of it."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(True)
    yield
    Distribution.set_default_validate_args(before)


class Broken(BinaryTask):
    """NaN from one step on, in what the environment says."""

    observations = rewards = 10**6
    n_steps = 0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert np.isfinite(action).all()
        self.n_steps += 1
        observation, _, *rest = super().step(action)
        reward = float("nan") if self.n_steps >= self.rewards else float(np.sum(action))
        return observation * (np.float32("nan") if self.n_steps >= self.observations else 1), reward, *rest


class BrokenObservations(Broken):
    observations = 20


class BrokenRewards(Broken):
    """Unlike an observation, it is the first update that brings it into the networks."""

    rewards = 20


class Change(BaseCallback):
    def __init__(self, change: Callable[[Any], None]) -> None:
        super().__init__()
        self.change = change

    def _on_step(self) -> bool:
        if self.num_timesteps == 20:
            self.change(self.model.policy)
        return True


def diverge(policy: Any) -> None:
    for parameter in policy.parameters():
        parameter.data.fill_(float("nan"))


def collapse(policy: Any) -> None:
    """The standard deviation, to zero."""
    policy.log_std.data.fill_(-200.0)


def nothing(policy: Any) -> None:
    pass


PLACES: dict[str, tuple[type[Broken], Callable[[Any], None]]] = {
    "networks": (Broken, diverge),
    "observations": (BrokenObservations, nothing),
    "updates": (BrokenRewards, nothing),
    "standard deviation": (Broken, collapse),
}
SHARED = ("networks", "observations", "updates")


CASES = [(actions, place) for actions in ACTIONS for place in PLACES if place in SHARED or actions == "continuous"]


@pytest.mark.parametrize(("actions", "place"), CASES)
def test_invalid_numbers_are_sb3s_error(actions: str, place: str) -> None:
    env_class, change = PLACES[place]
    ends = []
    for cls in (PPO, ContinualPPO):
        agent = cls("MlpPolicy", env_class(ACTIONS[actions]), **SMALL)
        with pytest.raises(ValueError, match="Expected parameter") as error:
            agent.learn(200, Change(change))
        ends.append((str(error.value)[:90], agent.num_timesteps, agent._n_updates))
    assert ends[0] == ends[1]


def test_infinite_means_are_played_until_the_update() -> None:
    """PyTorch allows them, but not the NaN that follows."""

    def change(policy: Any) -> None:
        policy.action_net.bias.data[0] = float("inf")

    ends = []
    for cls in (PPO, ContinualPPO):
        agent = cls("MlpPolicy", BinaryTask(ACTIONS["continuous"]), **{**SMALL, "n_steps": 64})
        with pytest.raises(ValueError, match="Expected parameter"):
            agent.learn(64, Change(change))
        ends.append((agent.num_timesteps, agent._n_updates, agent.rollout_buffer.actions.sum()))
    assert ends[0] == ends[1] == (64, 0, np.inf)


def test_actions_that_cannot_be_taken() -> None:
    """A logit of -inf has the probability 0, and no part in the entropy."""
    agents = []
    for cls in (PPO, ContinualPPO):
        agent = cls("MlpPolicy", BinaryTask(ACTIONS["discrete"]), ent_coef=0.1, **SMALL)
        agent.policy.action_net.bias.data[1] = -float("inf")
        agents.append(agent.learn(64))
        assert (agent.rollout_buffer.actions != 1).all()
    theirs, ours = (each.policy.state_dict() for each in agents)
    for name, value in theirs.items():
        th.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("actions", ACTIONS)
def test_a_diverged_student_is_no_success(actions: str) -> None:
    """A loss of NaN is not above any threshold."""
    agent = p3o(actions)
    agent.policy.mlp_extractor.policy_net[0].bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="Expected parameter"):
        renew(agent, [th.tensor([1]), CHOSEN[1]])
