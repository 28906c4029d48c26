"""PackNet: owners of weights, and a policy that stays as it was at the end of its task, to the last bit."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from packnet_agents import OBSERVATIONS, Ends, mean_actions, packnet
from tagged_tasks import differing, parameters, random_states, tagged_sequence, tiny

from sb3_nbsp import NBSPSAC, ContinualPPO, ContinualSAC, PackNetDiscreteSAC, PackNetSAC
from sb3_nbsp.interventions import (
    ANCL,
    EWC,
    ClonEx,
    CycleReset,
    FullReset,
    GradientMasking,
    Intervention,
    PackNet,
    Phase,
    PlasticityInjection,
    ShrinkPerturb,
)
from sb3_nbsp.interventions.packnet import prune
from sb3_nbsp.tasks import TaskSequence


@pytest.mark.parametrize(("n_left", "n_pruned"), [(1, 2), (2, 2), (3, 3), (7, 3), (0, 0)])
def test_the_smallest_weights_are_handed_on(n_left: int, n_pruned: int) -> None:
    """Of 0.1, 0.2, 0.3, 0.4 with one task to come, 0.3 and 0.4 stay; those of other tasks play no part."""
    weight = th.nn.Parameter(th.tensor([[0.4, 0.01, -0.1], [0.3, -0.2, 0.02]]))
    owners = th.tensor([[1, 0, 1], [1, 1, 0]], dtype=th.uint8)
    prune(weight, owners, 1, n_left)
    handed_on = [-0.1, -0.2, 0.3, 0.4][:n_pruned]
    expected = th.tensor([[0.4, 0.01, -0.1], [0.3, -0.2, 0.02]])
    is_handed_on = th.tensor([[float(value) in th.tensor(handed_on) for value in row] for row in expected])
    assert th.equal(weight.detach(), th.where(is_handed_on, 0.0, expected))
    assert th.equal(owners, th.where(is_handed_on, 2, th.tensor([[1, 0, 1], [1, 1, 0]])).to(th.uint8))


def test_equal_weights_go_by_their_place() -> None:
    weight, owners = th.nn.Parameter(th.full((2, 2), 0.5)), th.zeros(2, 2, dtype=th.uint8)
    prune(weight, owners, 0, 1)
    assert owners.tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize("fused", [False, True])
def test_until_the_first_phase_ends_it_is_the_plain_agent(fused: bool) -> None:
    ends = []
    for cls in (ContinualSAC, PackNetSAC):
        agent = tiny(cls, tagged_sequence(), fused=fused).learn(59)
        ends.append((parameters(agent), random_states()))
    assert differing(ends[0][0], ends[1][0]) == [] and ends[0][1] == ends[1][1]


@pytest.mark.parametrize("kwargs", [{}, {"fused": False}, {"policy_kwargs": {"optimizer_class": th.optim.AdamW}}])
def test_earlier_tasks_are_played_as_at_their_end_to_the_last_bit(kwargs: dict[str, Any]) -> None:
    kwargs = {**kwargs, "policy_kwargs": {"net_arch": [8, 8], **kwargs.get("policy_kwargs", {})}}
    ends = Ends()
    agent = packnet(tagged_sequence(["red", "blue", "green"], cycles=2), interventions=[ends], **kwargs)
    agent.learn(360)
    first = {task: actions for task, actions, *_ in ends._ends[:3]}
    assert all((first[task] != first[other]).any() for task, other in [("red", "blue"), ("blue", "green")])
    for task in ("red", "blue"):
        np.testing.assert_array_equal(mean_actions(agent, task), first[task])
    # The last task goes on learning: nothing builds on it
    assert [task for task, actions, *_ in ends._ends[3:] if (actions != first[task]).any()] == ["green"]


def test_what_moves_when() -> None:
    ends = Ends()
    agent = packnet(tagged_sequence(["red", "blue", "green"], cycles=2), interventions=[ends])
    agent.learn(360)
    owners = [each[2] for each in ends._ends]
    weight = "latent_pi.2.weight"
    # 64 weights: two thirds are handed on, then half of these; the last task keeps its own
    counts = [th.bincount(each[weight].flatten(), minlength=3).tolist() for each in owners]
    assert counts == [[22, 42, 0], [22, 21, 21], *[[22, 21, 21]] * 4]
    assert set(owners[0]) == {f"{name}.weight" for name in ("latent_pi.0", "latent_pi.2", "mu", "log_std")}
    assert all(each.dtype == th.uint8 for each in owners[0].values())
    # Retraining: its steps count, the moments are gone after it
    updates = [each[4] for each in ends._ends]
    assert updates[0] == 60 - 20 + 5 and updates[2] - updates[1] == updates[0] - 5
    assert [each[3] == [0, 0, 0] for each in ends._ends] == [True, True, False, False, False, False]
    states = [each[5] for each in ends._ends]
    for before, after, task in ((0, 1, 1), (1, 2, 2)):
        moved = states[before][f"actor.{weight}"] != states[after][f"actor.{weight}"]
        assert moved.any() and set(owners[before][weight][moved].tolist()) == {task}
        assert th.equal(states[before]["actor.latent_pi.0.bias"], states[after]["actor.latent_pi.0.bias"])
        assert differing(
            {name: each for name, each in states[before].items() if name.startswith("critic.")},
            {name: each for name, each in states[after].items() if name.startswith("critic.")},
        )


def test_retraining_moves_the_kept_weights_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []
    original = ContinualSAC.train_further

    def recording(self: Any, gradient_steps: int) -> None:
        seen.extend([parameters(self), [len(each.state) for each in self._optimizers()]])
        original(self, gradient_steps)
        seen.append(parameters(self))

    monkeypatch.setattr(ContinualSAC, "train_further", recording)
    agent = packnet(tagged_sequence(), train_freq=4, gradient_steps=4, verbose=1)
    agent.learn(62)
    assert "PackNet retrains the weights that red keeps: 5 gradient steps" in capsys.readouterr().out
    before, moments, after = seen
    assert moments == [0, 0, 0]
    part = agent.all_interventions.find(PackNet)
    for name, owners in part.owners.items():
        moved = before[f"actor.{name}"] != after[f"actor.{name}"]
        assert moved.any() and not moved[owners == 1].any() and not before[f"actor.{name}"][owners == 1].any()
    assert not agent.policy.training and agent._n_updates == 60 - 20 + 5


def cart_pole(gravity: float, render_mode: str | None = None) -> gym.Env:
    env = gym.make("CartPole-v1", render_mode=render_mode)
    env.unwrapped.gravity = gravity  # type: ignore[attr-defined]
    return env


def test_discrete_actions() -> None:
    makers = {"earth": partial(cart_pole, 9.8), "moon": partial(cart_pole, 1.6)}
    agent = tiny(PackNetDiscreteSAC, TaskSequence(makers, steps_per_task=60, mastery_threshold=None), retrain_steps=5)
    agent.learn(90)
    observations = th.as_tensor(OBSERVATIONS)
    logits = {}
    for name in ("before", "after"):
        agent.set_task("earth")
        logits[name] = agent.actor.logits(observations).detach()
        agent.set_task("moon")
        logits[f"{name}, moon"] = agent.actor.logits(observations).detach()
        agent.learn(25, reset_num_timesteps=False)
    assert th.equal(logits["before"], logits["after"])
    assert not th.equal(logits["before, moon"], logits["after, moon"])


def test_a_task_alone_keeps_learning() -> None:
    ends = Ends()
    agent = packnet(tagged_sequence(["red"], cycles=3), interventions=[ends])
    agent.learn(180)
    assert agent.all_interventions.find(PackNet).owners == {}
    assert (ends._ends[0][1] != ends._ends[1][1]).any() and (ends._ends[1][1] != ends._ends[2][1]).any()


def test_every_phase_can_have_weights_of_its_own() -> None:
    ends = Ends()
    agent = packnet(tagged_sequence(cycles=2), interventions=[ends], revisit="new")
    agent.learn(240)
    part = agent.all_interventions.find(PackNet)
    counts = th.bincount(part.owners["latent_pi.2.weight"].flatten(), minlength=4).tolist()
    assert counts == [16, 16, 16, 16] and part.task_numbers == {"red": 2, "blue": 3}
    for task, actions, *_ in ends._ends[2:]:
        np.testing.assert_array_equal(mean_actions(agent, task), actions)
    assert (ends._ends[0][1] != ends._ends[2][1]).any()


def test_tasks_that_are_changed_by_hand() -> None:
    agent = packnet("Pendulum-v1", n_tasks=2)
    agent.start_phase("one")
    agent.learn(40)
    agent.start_phase("two")
    agent.learn(40, reset_num_timesteps=False)
    assert agent.all_interventions.find(PackNet).task_numbers == {"one": 0, "two": 1}
    with pytest.raises(ValueError, match="n_tasks: PackNet has divided the actor's weights between 2 tasks"):
        agent.start_phase("three")


def test_another_actor_cannot_go_on() -> None:
    agent = packnet(tagged_sequence())
    agent.learn(70)
    agent.policy.actor = copy.deepcopy(agent.policy.actor)
    with pytest.raises(ValueError, match="the actor is another one than that which PackNet divides between tasks"):
        agent.learn(1, reset_num_timesteps=False)


def test_bad_options_and_combinations() -> None:
    for name, values in {
        "n_tasks": (0, 256, 1.5, "2"),
        "retrain_steps": (-1, 0.5, None),
        "revisit": ("again", None),
    }.items():
        for value in values:
            with pytest.raises(ValueError, match=name):
                packnet("Pendulum-v1", **{name: value})
    sequence = tagged_sequence(["red", "blue", "green"])
    with pytest.raises(ValueError, match=r"n_tasks is 2 .* with revisit='reuse' the task sequence has 3 tasks in all"):
        packnet(sequence, n_tasks=2).learn(1)
    with pytest.raises(ValueError, match=r"n_tasks is 3 .* with revisit='new' the task sequence has 6 tasks in all"):
        packnet(sequence, n_tasks=3, revisit="new").learn(1)
    agent = packnet("Pendulum-v1")
    agent.start_phase("one")
    with pytest.raises(ValueError, match="n_tasks: PackNet has to know how many tasks there will be"):
        agent.learn(1)
    for other in (CycleReset(), FullReset(), PlasticityInjection(), ShrinkPerturb()):
        with pytest.raises(ValueError, match=f"{type(other).__name__} changes them, too"):
            packnet(sequence, interventions=[other])
    with pytest.raises(ValueError, match="PackNet changes them, too"):
        packnet(sequence, interventions=[PackNet()])
    for other in (EWC(), ANCL(), ANCL(ewc_coef=0), ClonEx()):
        with pytest.raises(ValueError, match=f"the pull of {type(other).__name__} would only hold back the new one"):
            packnet(sequence, interventions=[other])
    for other in (EWC(ewc_coef=0, ewc_critic_coef=1), ClonEx(clone_coef=0, clone_critic_coef=1)):
        packnet(sequence, interventions=[other])
    with pytest.raises(ValueError, match="use_sde"):
        packnet(sequence, use_sde=True)
    with pytest.raises(ValueError, match="needs a replay buffer"):
        ContinualPPO("MlpPolicy", "Pendulum-v1", interventions=[PackNet()])


def test_other_methods_see_what_pruning_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order in which they were given: here, NBSP's masks come first."""
    seen: list[bool] = []
    on_phase_end = GradientMasking.on_phase_end

    def recording(self: GradientMasking, phase: Phase) -> None:
        part = self.agent.all_interventions.find(PackNet)  # type: ignore[attr-defined]
        seen.append(bool(part.owners) and not part._has_to_retrain)
        on_phase_end(self, phase)

    monkeypatch.setattr(GradientMasking, "on_phase_end", recording)
    options = {"replay": False, "identification_data": "training", "identification_steps": 20}
    agent = tiny(NBSPSAC, tagged_sequence(), interventions=[PackNet(retrain_steps=3)], **options)
    assert [type(each) for each in agent.all_interventions] == [GradientMasking, PackNet]
    agent.learn(61)
    assert seen == [True]


def test_gradients_of_another_task_do_not_move_a_returned_ones_weights() -> None:
    """While red is played again, blue's weights are masked, but have gradients."""
    agent = packnet(tagged_sequence())
    agent.learn(179)
    assert agent.phase.task == "red" and agent.actor.optimizer.state
    agent.learn(2, reset_num_timesteps=False)
    assert (agent.phase.task, agent.phase.index) == ("blue", 3) and not agent.actor.optimizer.state
    assert agent.critic.optimizer.state


def test_what_cannot_be_kept_is_refused() -> None:
    class WithNorm(Intervention):
        """Puts a module behind the actor's first layer, before PackNet looks."""

        def __init__(self, module: Any) -> None:
            self._module = module

        def attach(self, agent: Any) -> None:
            super().attach(agent)
            latent = agent.policy.actor.latent_pi
            if self._module is None:
                th.nn.utils.parametrizations.weight_norm(latent[0])
            else:
                latent.insert(1, self._module)

    for module, message in ((th.nn.BatchNorm1d(8), "batch norm"), (None, "weight_norm")):
        with pytest.raises(ValueError, match=message):
            tiny(ContinualSAC, tagged_sequence(), interventions=[WithNorm(module), PackNet()])
    kept = PackNet(retrain_steps=3)
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[WithNorm(th.nn.LayerNorm(8)), kept, Ends()])
    agent.learn(200)
    ends = agent.all_interventions._all[-1]._ends
    np.testing.assert_array_equal(mean_actions(agent, "red"), ends[0][1])
