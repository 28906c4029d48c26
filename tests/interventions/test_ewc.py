"""Elastic weight consolidation: what it knows at the end of a phase, how it pulls, and that it keeps what was learned."""

from __future__ import annotations

import copy
import warnings
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from forgetting import after_both_tasks, plain_after_both_tasks
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tagged_tasks import ImageTask, RecordingLogger, Spy, differing, parameters, random_states, tagged_sequence, tiny
from torch import nn

from sb3_nbsp import EWCSAC, ContinualSAC, EWCDiscreteSAC
from sb3_nbsp.interventions import ANCL, EWC, Phase
from sb3_nbsp.interventions.ewc import fisher_of
from sb3_nbsp.interventions.observations import as_seen, phase_transitions
from sb3_nbsp.interventions.quadratic_pull import Importance, Pull, merged
from sb3_nbsp.tasks import TaskSequence


def ewc_of(agent: Any) -> Any:
    return agent.all_interventions.find(EWC)


def importance(fisher: list[float], anchor: list[float]) -> Importance:
    return Importance({"a": th.tensor(fisher)}, {"a": th.tensor(anchor)})


def test_penalty_and_gradient_by_hand() -> None:
    # The linear policy of test_fisher.py, λ = 3
    parameter = nn.Parameter(th.tensor([0.6, -0.2, 0.0, 0.1]))
    parameter.grad = th.ones(4)
    pull = Pull({"a": parameter}, [importance([10.0, 4.0, 5.0, 2.0], [0.5, 0.0, 0.0, 0.0])], 3.0)
    assert pull.value() == pytest.approx(0.84)
    pull.add_gradients()
    th.testing.assert_close(parameter.grad, 1 + th.tensor([6.0, -4.8, 0.0, 1.2]))


def test_several_pulls_are_one() -> None:
    first, second = importance([2.0, 0.0], [1.0, 7.0]), importance([6.0, 0.0], [-1.0, 9.0])
    parameter = nn.Parameter(th.tensor([3.0, 3.0]))
    parameter.grad = th.zeros(2)
    pull = Pull({"a": parameter}, [first, second], 0.5)
    assert pull.value() == pytest.approx(0.5 * (2 * 2**2 + 6 * 4**2))
    pull.add_gradients()
    th.testing.assert_close(parameter.grad, th.tensor([2 * 2.0 + 6 * 4.0, 0.0]))
    assert merged([first]) is first


@pytest.mark.parametrize(
    ("options", "expected"), [({}, 6.0), ({"accumulate": "online", "ewc_decay": 0.9}, 5.6), ({"accumulate": "separate"}, None)]
)
def test_how_phases_accumulate(options: dict[str, Any], expected: float | None) -> None:
    ewc = EWC(**options)
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[ewc])
    name, parameter = "actor.mu.bias", agent.actor.mu.bias
    for task, fisher, anchor in (("red", 4.0, 0.5), ("blue", 2.0, -0.5)):
        ewc._remember("actor", task, Importance({name: th.full((2,), fisher)}, {name: th.full((2,), anchor)}))
    ewc._prepare_pulls()
    parameter.data.fill_(1.0)
    parameter.grad = th.zeros(2)
    ewc.before_step("actor")
    if expected is None:
        assert list(ewc.importances["actor"]) == ["red", "blue"]
        slope = 2 * ewc.ewc_coef * (4 * 0.5 + 2 * 1.5)
    else:
        slope = 2 * ewc.ewc_coef * expected * 1.5  # the latest anchor
    th.testing.assert_close(parameter.grad, th.full((2,), slope))


class Ends(Spy):
    """At the end of each phase: the policy, and what EWC drew from D."""

    def on_phase_end(self, phase: Any) -> None:
        super().on_phase_end(phase)
        self.ends[-1]["importances"] = copy.deepcopy(ewc_of(self.agent).importances)


@pytest.mark.parametrize("accumulate", ["sum", "separate"])
def test_what_is_known_after_each_phase(accumulate: str) -> None:
    ends = Ends()
    options = {"accumulate": accumulate, "ewc_critic_coef": 0.1, "interventions": [ends]}
    agent = tiny(EWCSAC, tagged_sequence(), **options).learn(190)
    assert [end["phase"].task for end in ends.ends] == ["red", "blue", "red"]
    found = [end["importances"]["actor"] for end in ends.ends]
    tasks = [[""]] * 3 if accumulate == "sum" else [["red"], ["red", "blue"], ["red", "blue"]]
    assert [list(each) for each in found] == tasks
    for end, each in zip(ends.ends, found, strict=True):
        latest = each["" if accumulate == "sum" else end["phase"].task]
        policy = end["policy"].state_dict()
        assert set(latest.fisher) == {f"actor.{name}" for name, _ in agent.actor.named_parameters()}
        assert all(th.equal(anchor, policy[name]) for name, anchor in latest.anchor.items())
        assert min(fisher.min() for fisher in latest.fisher.values()) >= 1e-5
    if accumulate == "separate":
        assert all(th.equal(found[1]["red"].fisher[name], value) for name, value in found[0]["red"].fisher.items())
        assert not th.equal(found[2]["red"].anchor["actor.mu.bias"], found[0]["red"].anchor["actor.mu.bias"])
    # The deviation is nowhere clamped: whatever the policy, log σ as such has an importance of 2 (each phase adds one)
    for times, each in enumerate(found, start=1):
        of_log_std = list(each.values())[-1].fisher["actor.log_std.bias"]
        th.testing.assert_close(of_log_std, th.full((2,), 2.0 * (times if accumulate == "sum" else 1)))
    critics = ends.ends[0]["importances"]["critic"]["" if accumulate == "sum" else "red"]
    assert set(critics.fisher) == {f"critic.{name}" for name, _ in agent.critic.named_parameters()}
    th.testing.assert_close(critics.fisher["critic.qf1.4.bias"], th.ones(1))


def test_the_importance_of_the_mean_is_one_over_the_variance_in_the_phases_last_states() -> None:
    agent = tiny(EWCSAC, tagged_sequence(), fisher_window=30, fisher_states=20)
    agent.learn(55)
    seen = as_seen(agent, phase_transitions(agent, 20, 3, window=30)["observations"])
    assert len(seen) == len({float(state[1]) for state in seen}) == 20
    newest = agent.replay_buffer.observations[25:55, 0, 1]
    assert {float(state[1]) for state in seen} <= {float(each) for each in newest}
    _, log_std, _ = agent.actor.get_action_dist_params(seen)
    found = fisher_of(agent, "actor", seen, th.zeros(20, 2))
    th.testing.assert_close(found["actor.mu.bias"], (-2 * log_std).exp().mean(0).detach(), rtol=1e-4, atol=0)
    # Batches of training play no part
    agent.batch_size = 3
    assert not differing(found, fisher_of(agent, "actor", seen, th.zeros(20, 2)))


def test_the_gradient_is_that_of_the_penalty_added_to_the_loss() -> None:
    class Penalty(EWC):
        def before_step(self, network: Any) -> None:
            pass

        def penalty(self, network: Any) -> th.Tensor | None:
            known = self._known[network].get("")
            named = dict(self.agent.policy.named_parameters())
            if known is None or self._coef(network) == 0:
                return None
            rows = known.fisher.items()
            terms = [(fisher * (named[name] - known.anchor[name]).square()).sum() for name, fisher in rows]
            return self._coef(network) * th.stack(terms).sum()

    options = {"ewc_coef": 10.0, "ewc_critic_coef": 0.1}
    ours, theirs = (
        tiny(ContinualSAC, tagged_sequence(), interventions=[each(**options)], fused=False).learn(130)
        for each in (EWC, Penalty)
    )
    plain = parameters(tiny(ContinualSAC, tagged_sequence(), fused=False).learn(130))
    for name, value in parameters(theirs).items():
        th.testing.assert_close(parameters(ours)[name], value, atol=1e-4, rtol=1e-3)
        assert not name.startswith(("actor.", "critic.")) or (plain[name] - value).abs().max() > 1e-3


@pytest.mark.parametrize("options", [{"fused": False}, {}])
def test_without_a_coefficient_it_is_plain_and_as_fast(options: dict[str, Any]) -> None:
    ends = []
    for cls, own in ((ContinualSAC, {}), (EWCSAC, {"ewc_coef": 0.0})):
        agent = tiny(cls, tagged_sequence(), **own, **options).learn(130)
        assert agent._is_by_hand() is (options == {})
        ends.append((parameters(agent), random_states()))
    assert not differing(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]
    assert ewc_of(agent).importances == {"actor": {}, "critic": {}}


def test_until_a_phase_has_ended_it_is_plain_and_gradients_stay_by_hand() -> None:
    def ends(steps: int) -> list[dict[str, th.Tensor]]:
        return [parameters(tiny(cls, tagged_sequence()).learn(steps)) for cls in (ContinualSAC, EWCSAC)]

    assert not differing(*ends(60))
    assert differing(*ends(90))
    agent = tiny(EWCSAC, tagged_sequence()).learn(90)
    assert agent._is_by_hand() and ewc_of(agent)._pulls and ewc_of(agent).capturable


@pytest.mark.parametrize("alone", ["actor", "critic"])
def test_each_network_has_its_own_coefficient(alone: str) -> None:
    options = {"ewc_coef": 1e3 * (alone == "actor"), "ewc_critic_coef": 1e3 * (alone == "critic")}
    agent = tiny(EWCSAC, tagged_sequence(), **options).learn(61)
    named = dict(agent.policy.named_parameters())
    for parameter in named.values():
        parameter.data += 1
        parameter.grad = th.zeros_like(parameter)
    for network in ("critic", "actor"):
        ewc_of(agent).before_step(network)
    pulled = {name.split(".")[0] for name, parameter in named.items() if parameter.grad.any()}
    assert pulled == {alone}, "and no target"


def test_it_starts_from_where_the_phase_ended() -> None:
    agent = tiny(EWCSAC, tagged_sequence(), learning_starts=50).learn(61)
    for parameter in agent.actor.parameters():
        parameter.grad = th.zeros_like(parameter)
    ewc_of(agent).before_step("actor")
    assert not any(parameter.grad.any() for parameter in agent.actor.parameters())


def test_it_keeps_what_the_plain_agent_loses() -> None:
    lost, learned = plain_after_both_tasks()
    assert lost > 1.0 and learned < 0.05, "the first task is forgotten"
    _, kept, compromise = after_both_tasks(EWCSAC, ewc_coef=1.0)
    assert kept < lost / 4 and compromise < 0.5, "the first task is kept for the most part, the second is learned still"


def test_records() -> None:
    agent = tiny(EWCSAC, tagged_sequence(), ewc_critic_coef=0.1)
    agent.set_logger(logger := RecordingLogger())
    agent.learn(119)
    assert len(logger.values("ewc/fisher_actor")) == len(logger.values("ewc/fisher_critic")) == 1
    for network in ("actor", "critic"):
        values = logger.values(f"ewc/penalty_{network}")
        assert len(values) == 5 and values[:2] == [0, 0] and min(values[2:]) > 0, "at the end of each episode"


def test_discrete_actions() -> None:
    makers = dict.fromkeys(("red", "blue"), partial(gym.make, "CartPole-v1"))
    sequence = TaskSequence(makers, steps_per_task=60, mastery_threshold=None)
    agent = tiny(EWCDiscreteSAC, sequence, ewc_critic_coef=0.1, loss_reduction="mean").learn(90)
    ewc = ewc_of(agent)
    states = agent.replay_buffer.observations[:20, 0]
    actions = th.as_tensor(agent.replay_buffer.actions[:20, 0])
    found = fisher_of(agent, "actor", th.as_tensor(states), actions)["actor.action_net.bias"]
    probabilities = agent.actor.distribution(th.as_tensor(states)).probs.detach()
    th.testing.assert_close(found, (probabilities * (1 - probabilities)).mean(0))  # of a softmax, as worked out by hand
    found = fisher_of(agent, "critic", th.as_tensor(states), actions)["critic.q_networks.1.4.bias"]
    th.testing.assert_close(found, th.bincount(actions[:, 0], minlength=2) / 20)
    # The actor's loss is a mean over two actions
    agent.actor.action_net.bias.data += 1
    agent.actor.action_net.bias.grad = th.zeros(2)
    known = ewc.importances["actor"][""]
    distance = agent.actor.action_net.bias.detach() - known.anchor["actor.action_net.bias"]
    ewc.before_step("actor")
    th.testing.assert_close(agent.actor.action_net.bias.grad, 2 * 100.0 / 2 * known.fisher["actor.action_net.bias"] * distance)


def test_images() -> None:
    options = {"policy_kwargs": {"net_arch": [8], "features_extractor_kwargs": {"features_dim": 16}}, "batch_size": 4}
    small = {"buffer_size": 50, "learning_starts": 5, "fisher_states": 8, "ewc_critic_coef": 1e-3}
    agent = tiny(EWCSAC, ImageTask(), policy="CnnPolicy", **options, **small)
    agent.start_phase("red")
    agent.learn(10)
    agent.start_phase("blue")
    known = ewc_of(agent).importances
    assert {"actor.features_extractor.cnn.0.weight", "actor.mu.bias"} <= set(known["actor"][""].fisher)
    assert known["critic"][""].fisher["critic.features_extractor.cnn.0.weight"].any()
    agent.learn(10, reset_num_timesteps=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ewc_coef": -1.0},
        {"ewc_critic_coef": float("nan")},
        {"accumulate": "mean"},
        {"ewc_decay": 1.5},
        {"ewc_coef": float("inf")},
        {"fisher_states": 0},
        {"fisher_window": 2.5},
    ],
)
def test_bad_options(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
        tiny(EWCSAC, tagged_sequence(), **wrong)


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ewc_decay=0\.5 only has an effect with accumulate='online', not 'sum'"):
        tiny(EWCSAC, tagged_sequence(), ewc_decay=0.5)
    with pytest.raises(ValueError, match="fisher_states=31 different states cannot be drawn from fisher_window=30"):
        tiny(EWCSAC, tagged_sequence(), fisher_states=31, fisher_window=30)
    for other in (EWC(), ANCL()):
        with pytest.raises(ValueError, match=r"EWC and .* would both pull at the same parameters"):
            tiny(ContinualSAC, tagged_sequence(), interventions=[EWC(), other])


def test_what_cannot_work_is_said() -> None:
    with pytest.raises(ValueError, match=r"ewc_critic_coef=1 pulls the critics back to what reset_critics=True draws anew"):
        tiny(EWCSAC, tagged_sequence(), ewc_critic_coef=1.0, reset_critics=True).learn(1)
    agent = tiny(EWCSAC, tagged_sequence()).learn(30)
    agent.replay_buffer.reset()
    with pytest.raises(ValueError, match="The replay buffer has no transitions of the phase that is over"):
        ewc_of(agent).on_phase_end(Phase(0, "red"))
    normalized = tiny(EWCSAC, VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")])))
    with pytest.warns(UserWarning, match="EWC holds parameters in place, but VecNormalize keeps changing"):
        ewc_of(normalized).on_learn_start(True)


def test_another_shape_is_an_error() -> None:
    ewc = ewc_of(tiny(EWCSAC, tagged_sequence()).learn(70))
    state = ewc.state_dict()
    state["actor"][""]["fisher"]["actor.mu.bias"] = th.ones(3)
    with pytest.raises(ValueError, match=r"of 'actor.mu.bias' from earlier phases has the shape \(3,\), the parameter \(2,\)"):
        ewc.load_state_dict(state)


def test_options_of_a_loaded_agent_act(tmp_path: Any) -> None:
    agent = tiny(EWCSAC, tagged_sequence()).learn(70)
    agent.save(tmp_path / "model")
    loaded = EWCSAC.load(tmp_path / "model", env=tagged_sequence(), ewc_coef=7.0)
    pull, other = ewc_of(agent)._pulls["actor"], ewc_of(loaded)._pulls["actor"]
    for slope, doubled in zip(pull._slopes, other._slopes, strict=True):
        np.testing.assert_allclose(doubled / 7.0, slope / agent.ewc_coef, rtol=1e-5)
    assert all(th.equal(mine, theirs) for mine, theirs in zip(pull._anchors, other._anchors, strict=True))


def test_sums_that_are_loaded_to_be_separate_stay_and_that_is_said(tmp_path: Any) -> None:
    for steps, expected in ((70, []), (130, ["accumulate='separate': the saved importances are of several phases together"])):
        tiny(EWCSAC, tagged_sequence()).learn(steps).save(tmp_path / "model")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loaded = EWCSAC.load(tmp_path / "model", env=tagged_sequence(), accumulate="separate")
        assert [str(each.message).partition(".")[0] for each in caught] == expected
        assert list(ewc_of(loaded).importances["actor"]) == [""]
