"""Copied and pickled agents learn on, each by itself."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch as th
from saved_agents import nbsp, state_of
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.sac.policies import Actor
from tagged_tasks import TaggedTask, differing, parameters, tiny

from sb3_nbsp import CBPPPO, CBPSAC, P3O, SBPSAC, ContinualPPO
from sb3_nbsp.interventions import ContinualBackprop, CycleReset

PPO_OPTIONS: dict[str, Any] = {"n_steps": 32, "batch_size": 16, "n_epochs": 1, "seed": 0, "device": "cpu"}


def pickled(agent: Any) -> Any:
    return cloudpickle.loads(cloudpickle.dumps(agent))


WAYS = pytest.mark.parametrize("way", [copy.deepcopy, pickled])


@WAYS
def test_a_copy_of_nbsp_has_masks_and_memory_of_its_own(way: Callable[[Any], Any]) -> None:
    agent = nbsp()
    agent.learn(130)
    before = state_of(agent)
    other = way(agent)
    assert differing(before, state_of(other)) == []
    ends = []
    for each in (agent, other):
        np.random.seed(0)
        th.manual_seed(0)
        each.train(25, 16)
        ends.append(parameters(each))
    assert differing(*ends) == []
    other.learn(60, reset_num_timesteps=False)
    assert other.phase.index == agent.phase.index + 1
    assert all(each.agent is other for each in other.all_interventions) and all(
        each.agent is agent for each in agent.all_interventions
    )
    assert agent.all_interventions._all[1].memory.tasks == {"red": 25, "blue": 25} and agent.replay_buffer.size() == 10


@WAYS
@pytest.mark.parametrize("cls", [SBPSAC, CBPSAC, P3O, CBPPPO])
def test_a_copy_renews_its_own_neurons(way: Callable[[Any], Any], cls: type) -> None:
    options = (
        {"replacement_rate": 0.5, "maturity_threshold": 1}
        if "CBP" in cls.__name__
        else {"reset_frequency": 32, "reset_rate": 0.25}
    )
    make = tiny if cls in (SBPSAC, CBPSAC) else lambda cls, env, **kwargs: cls("MlpPolicy", env, **PPO_OPTIONS, **kwargs)
    agent = make(cls, TaggedTask(1.0), **options)
    agent.learn(64)
    other = way(agent)
    before, kept = parameters(agent), next(iter(agent.all_interventions)).state_dict()
    assert next(iter(other.all_interventions)).state_dict()["n_renewals"] == kept["n_renewals"] > 0
    other.learn(64, reset_num_timesteps=False)
    assert next(iter(other.all_interventions)).state_dict()["n_renewals"] > kept["n_renewals"]
    assert differing(before, parameters(agent)) == []
    assert next(iter(agent.all_interventions)).state_dict()["n_renewals"] == kept["n_renewals"]
    agent.learn(32, reset_num_timesteps=False)


@pytest.mark.parametrize("cls", [CBPSAC, CBPPPO])
def test_watched_networks_are_saved_and_copied_without_their_watch(cls: type) -> None:
    agent = tiny(cls, TaggedTask(1.0)) if cls is CBPSAC else cls("MlpPolicy", TaggedTask(1.0), **PPO_OPTIONS)
    network = agent.actor if cls is CBPSAC else agent.policy
    file = io.BytesIO()
    network.save(file)
    file.seek(0)
    (Actor if cls is CBPSAC else ActorCriticPolicy).load(file)
    copied = copy.deepcopy(network).train()
    observations = th.zeros(2, 4)
    method = agent.all_interventions.find(ContinualBackprop)
    copied.get_distribution(observations) if cls is CBPPPO else copied.action_log_prob(observations)
    assert method._batch == {}
    network.train()
    network.get_distribution(observations) if cls is CBPPPO else network.action_log_prob(observations)
    assert set(method._batch) == {0, 1}


def test_interventions_of_the_user_are_copied_with_their_agent() -> None:
    agent = ContinualPPO("MlpPolicy", TaggedTask(1.0), interventions=[CycleReset(32, 0.5)], **PPO_OPTIONS)
    agent.learn(32)
    other = copy.deepcopy(agent)
    assert list(other.interventions) == list(other.all_interventions) and other.interventions[0] is not agent.interventions[0]
    assert other.interventions[0].state_dict()["p"] == 0.5
