"""ANCL: EWC with a second pull, towards copies that learn the new task on their own."""

from __future__ import annotations

import copy
import warnings
from functools import partial
from typing import Any

import gymnasium as gym
import pytest
import torch as th
from forgetting import after_both_tasks
from tagged_tasks import RecordingLogger, differing, parameters, random_states, tagged_sequence, tiny
from torch import nn

from sb3_nbsp import ANCLSAC, EWCSAC, ANCLDiscreteSAC, ContinualDiscreteSAC, ContinualSAC
from sb3_nbsp.interventions import ANCL
from sb3_nbsp.interventions.ancl import Auxiliary
from sb3_nbsp.interventions.ewc import fisher_of
from sb3_nbsp.interventions.own_seeds import own_seed
from sb3_nbsp.interventions.quadratic_pull import Importance, Pull
from sb3_nbsp.tasks import TaskSequence


def ancl_of(agent: Any) -> Any:
    return agent.all_interventions.find(ANCL)


def test_penalty_and_gradient_by_hand() -> None:
    # The paper's λ/2 and λ_a/2 with λ = 10 and λ_a = 4
    parameter, auxiliary = nn.Parameter(th.zeros(1)), th.tensor([-2.0])
    old = Pull({"a": parameter}, [Importance({"a": th.tensor([2.0])}, {"a": th.tensor([1.0])})], 5.0)
    new = Pull({"a": parameter}, [Importance({"a": th.tensor([0.5])}, {"a": auxiliary})], 2.0)

    def gradient(value: float) -> float:
        parameter.data.fill_(value)
        parameter.grad = th.zeros(1)
        old.add_gradients()
        new.add_gradients()
        return parameter.grad.item()

    assert gradient(0.0) == pytest.approx(-16.0)
    assert old.value() + new.value() == pytest.approx(14.0)
    assert gradient(16 / 22) == pytest.approx(0.0, abs=1e-5)
    auxiliary.fill_(1.0)  # which goes on to learn
    assert gradient(1.0) == 0


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    ("cls", "theirs", "ours"),
    [
        (EWCSAC, {"ewc_coef": 50.0, "ewc_critic_coef": 0.1}, {"ewc_coef": 50.0, "ewc_critic_coef": 0.1, "ancl_coef": 0.0}),
        (ContinualSAC, {}, {"ewc_coef": 0.0, "ancl_coef": 0.0}),
        # So weak a pull that it is lost in rounding: the auxiliary networks leave the agent and its random numbers alone
        (EWCSAC, {"ewc_coef": 50.0}, {"ewc_coef": 50.0, "ancl_coef": 1e-30}),
    ],
)
def test_without_a_coefficient_it_is_ewc(cls: Any, theirs: dict[str, Any], ours: dict[str, Any], fused: bool) -> None:
    ends = []
    for each, options in ((cls, theirs), (ANCLSAC, ours)):
        agent = tiny(each, tagged_sequence(), fused=fused, **options).learn(115)
        assert agent._is_by_hand() is fused
        ends.append((parameters(agent), random_states()))
    assert not differing(ends[0][0], ends[1][0]) and ends[0][1] == ends[1][1]
    auxiliary = ancl_of(agent).auxiliary
    assert (auxiliary is not None) is (ours["ancl_coef"] > 0)
    if auxiliary is not None:
        assert auxiliary.n_steps == 35 and differing(parameters(agent), parameters(auxiliary.agent))


def cartpoles() -> TaskSequence:
    makers = dict.fromkeys(("red", "blue"), partial(gym.make, "CartPole-v1"))
    return TaskSequence(makers, steps_per_task=40, mastery_threshold=None)


@pytest.mark.parametrize("discrete", [False, True])
def test_a_step_of_the_auxiliary_networks_is_one_of_plain_sac(discrete: bool) -> None:
    plain, cls = (ContinualDiscreteSAC, ANCLDiscreteSAC) if discrete else (ContinualSAC, ANCLSAC)
    env = cartpoles if discrete else tagged_sequence
    agent = tiny(cls, env()).learn(45 if discrete else 79)
    data = agent.replay_buffer.sample(16)
    theirs = tiny(plain, env())
    theirs.set_parameters(agent.get_parameters())
    theirs.log_ent_coef.data.copy_(agent.log_ent_coef.data)
    for optimizer in theirs._optimizers():
        optimizer.state.clear()
    auxiliary = Auxiliary(agent)
    assert not differing(parameters(agent), parameters(auxiliary.agent)), "it is a copy"
    agent._moves_targets = True
    before, states = parameters(agent), random_states()
    auxiliary.step(agent, data)
    assert not differing(before, parameters(agent)) and random_states() == states
    th.manual_seed(own_seed(agent, 0, purpose=410 + 1000 * agent.phase.index))
    theirs._gradient_step(theirs._make_gradients(), data, True)
    assert not differing(parameters(theirs), parameters(auxiliary.agent))
    assert len(differing(before, parameters(theirs))) > 10


def test_they_are_copied_anew_in_every_phase_but_the_first() -> None:
    agent = tiny(ANCLSAC, tagged_sequence(), aux_fisher_states=10)
    ancl = ancl_of(agent)
    agent.learn(60)
    assert ancl.auxiliary is None and ancl._aux_pulls == {}
    agent.learn(59, reset_num_timesteps=False)
    first = ancl.auxiliary
    assert first.n_steps == 39
    agent.learn(2, reset_num_timesteps=False)
    assert ancl.auxiliary is None and ancl._aux_pulls == {}
    agent.learn(20, reset_num_timesteps=False)
    assert ancl.auxiliary is not first and ancl.auxiliary.n_steps == 1


def test_importances_are_those_of_the_auxiliary_networks_and_computed_again() -> None:
    agent = tiny(ANCLSAC, tagged_sequence(), aux_fisher_interval=20, aux_fisher_states=1000, ancl_critic_coef=0.5).learn(100)
    ancl, found = ancl_of(agent), []
    for steps in (0, 1, 15):
        agent.learn(steps, reset_num_timesteps=False)
        found.append(copy.deepcopy(ancl.auxiliary.fisher))
    assert ancl.auxiliary.n_steps == 36 and set(found[0]) == {"actor", "critic"}
    assert differing(found[0]["actor"], found[1]["actor"]), "at the 21st step"
    assert not differing(found[1]["actor"], found[2]["actor"])
    # Of all states of the phase
    ancl._measure(ancl.auxiliary)
    buffer = agent.replay_buffer
    states, actions = (th.as_tensor(each[: buffer.pos, 0]) for each in (buffer.observations, buffer.actions))
    assert len(states) == 56
    expected = fisher_of(ancl.auxiliary.agent, "critic", states, actions)
    for name, value in ancl.auxiliary.fisher["critic"].items():
        th.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-6)
    others = fisher_of(agent, "critic", states, actions)
    assert any(not th.allclose(others[name], value, rtol=1e-2) for name, value in expected.items())


def test_without_any_other_loss_parameters_go_to_the_auxiliary_ones() -> None:
    agent = tiny(ANCLSAC, tagged_sequence(), ewc_coef=0.0, ancl_coef=1.0).learn(119)
    ancl = ancl_of(agent)

    def distance() -> float:
        pairs = zip(agent.actor.parameters(), ancl.auxiliary.agent.actor.parameters(), strict=True)
        return sum((own - other).abs().max().item() for own, other in pairs)

    before, optimizer = distance(), th.optim.Adam(agent.actor.parameters(), lr=1e-3)
    auxiliary = parameters(ancl.auxiliary.agent)
    for _ in range(300):
        for parameter in agent.actor.parameters():
            parameter.grad = th.zeros_like(parameter)
        ancl.before_step("actor")
        optimizer.step()
    assert distance() < 0.05 * before
    assert not differing(auxiliary, parameters(ancl.auxiliary.agent))


def test_the_second_task_is_learned_better_than_with_ewc_alone() -> None:
    _, kept, hindered = after_both_tasks(EWCSAC, ewc_coef=3.0)
    _, kept_less, helped = after_both_tasks(ANCLSAC, ewc_coef=3.0, ancl_coef=1.0, aux_fisher_interval=100)
    assert kept < 0.2 and helped < hindered - 0.1
    assert kept_less < 0.6, "and the first is not lost: plainly, that is more than 2"


def test_a_file_without_auxiliary_networks_is_told_of(tmp_path: Any) -> None:
    agent = tiny(ANCLSAC, tagged_sequence()).learn(100)
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    loaded = ANCLSAC.load(tmp_path / "model", env=tagged_sequence())
    loaded.load_replay_buffer(tmp_path / "buffer")
    first, second = (ancl_of(each).auxiliary for each in (agent, loaded))
    assert second.n_steps == first.n_steps == 20
    assert not differing(parameters(first.agent), parameters(second.agent))
    for one, other in zip(first.agent._optimizers(), second.agent._optimizers(), strict=True):
        assert one.state_dict()["state"].keys() == other.state_dict()["state"].keys() != set()
    ancl_of(loaded)._auxiliary = None
    with pytest.warns(UserWarning, match="ANCL does not have the auxiliary networks of the phase under way"):
        loaded.learn(1, reset_num_timesteps=False)
    over = tiny(ANCLSAC, tagged_sequence(cycles=1)).learn(120)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no phase is under way: the sequence begins again
        over.learn(30, reset_num_timesteps=False)


def test_a_pull_that_a_file_switches_on_acts_at_once(tmp_path: Any) -> None:
    agent = tiny(ANCLSAC, tagged_sequence()).learn(100)
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    loaded = ANCLSAC.load(tmp_path / "model", env=tagged_sequence(), ancl_critic_coef=0.1)
    loaded.load_replay_buffer(tmp_path / "buffer")
    loaded.learn(1, reset_num_timesteps=False)
    assert ancl_of(loaded)._aux_pulls.keys() == {"actor", "critic"}


def test_records() -> None:
    agent = tiny(ANCLSAC, tagged_sequence(), ancl_critic_coef=0.1)
    agent.set_logger(logger := RecordingLogger())
    agent.learn(119)
    for name in ("penalty_actor", "penalty_critic", "auxiliary_critic_loss", "auxiliary_actor_loss"):
        values = logger.values(f"ancl/{name}")
        assert len(values) == 3 and all(value != 0 for value in values), name


@pytest.mark.parametrize(
    "wrong",
    [
        {"ancl_coef": -1.0},
        {"ancl_critic_coef": float("nan")},
        {"aux_fisher_interval": 0},
        {"aux_fisher_states": 1.5},
        {"accumulate": "mean"},
    ],
)
def test_bad_options(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
        tiny(ANCLSAC, tagged_sequence(), **wrong)
