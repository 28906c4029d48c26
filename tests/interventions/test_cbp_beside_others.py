"""Continual backpropagation beside other interventions."""

from __future__ import annotations

from typing import Any

import pytest
import torch as th
from cbp_checks import DECAY, MATURITY, RATE
from reset_checks import CASES, Probe, record_batches

from sb3_nbsp.interventions import ContinualBackprop, CycleReset, InnerDistillation, Intervention


def test_renewals_of_others_begin_a_new_life() -> None:
    case = CASES["ppo-tanh"]
    cbp = ContinualBackprop(maturity_threshold=1000)
    agent = case.agent([CycleReset(64, 0.3), cbp])
    agent.learn(64)
    assert [ages.tolist() for ages in cbp.ages.values()] == [[0, 0] + [8] * 5, [0, 0] + [8] * 4]
    assert [utility[:2].tolist() for utility in cbp.utilities.values()] == [[0, 0], [0, 0]]


@pytest.mark.parametrize("first", [True, False])
def test_distillation_is_no_training_step(first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Distillation right behind a reset, in whatever order: the next step's activations are the minibatch's."""
    case = CASES["ppo-tanh"]
    batches = record_batches(monkeypatch)
    distillation = InnerDistillation(distill_threshold=0.0, max_distill_epochs=1, distill_batch_size=32)
    cbp = ContinualBackprop(RATE, MATURITY, DECAY)
    others = [distillation, CycleReset(64, 0.3)]
    probe = Probe()
    seen: list[list[tuple[th.Tensor, th.Tensor]]] = []
    after_step = cbp.after_step

    def watched(network: Any) -> None:
        if network == "actor":
            seen.append([cbp._batch[i] for i in range(2)])
        after_step(network)

    monkeypatch.setattr(cbp, "after_step", watched)
    agent = case.agent([cbp, *others, probe] if first else [*others, cbp, probe])
    agent.learn(192)
    assert distillation.epochs > 3
    assert len(seen) == len(batches) == 24
    for i, (batch, means) in enumerate(zip(batches, seen, strict=True)):
        outputs = case.features(probe.pictures["before step"][i].parameters, batch)
        for output, (magnitudes, mean) in zip(outputs, means, strict=True):
            th.testing.assert_close(magnitudes[:, 0], output.abs().mean(0), rtol=1e-4, atol=1e-6)
            th.testing.assert_close(mean[:, 0], output.mean(0), rtol=1e-4, atol=1e-6)
    assert agent.policy.training and cbp._batch == {}


@pytest.mark.parametrize("name", ["ppo-tanh", "sac-relu"])
def test_passes_of_penalties_are_no_training_steps(name: str) -> None:
    class Elsewhere(Intervention):
        """A penalty on what the actor does in other states, of no weight."""

        def penalty(self, network: Any) -> th.Tensor | None:
            states = th.full((3, 4), 5.0)
            policy = self.agent.policy
            if name == "ppo-tanh":
                return 0 * policy.get_distribution(states).distribution.mean.sum()
            return 0 * policy.actor.get_action_dist_params(states)[0].sum() if network == "actor" else None

    utilities = []
    for others in ([], [Elsewhere()]):
        cbp = ContinualBackprop()
        CASES[name].agent([cbp, *others], **({"fused": False} if name == "sac-relu" else {})).learn(64)
        utilities.append(cbp.utilities)
    th.testing.assert_close(utilities[0], utilities[1], rtol=0, atol=0)


def test_training_goes_on_in_training_mode_after_a_distillation() -> None:
    modes = []

    class Modes(Intervention):
        def after_step(self, network: Any) -> None:
            modes.append(self.agent.policy.training)

    distillation = InnerDistillation(max_distill_epochs=1)
    agent = CASES["ppo-tanh"].agent([Modes(), ContinualBackprop(0.2, 1), distillation])
    agent.learn(64)
    assert distillation.epochs > 1
    assert set(modes) == {True}


def test_early_stopping_leaves_nothing_behind() -> None:
    cbp = ContinualBackprop()
    agent = CASES["ppo-tanh"].agent([cbp], target_kl=1e-9, n_epochs=5)
    agent.learn(256)
    assert cbp._batch == {}
    (ages, _) = cbp.ages.values()
    assert 0 < ages[0] < 4 * 5 * 4  # some updates were broken off


def test_in_front_of_what_undoes_steps_replacements_stay() -> None:
    class Standstill(Intervention):
        def before_step(self, network: Any) -> None:
            self._old = [parameter.detach().clone() for parameter in self.agent.actor.parameters()]

        @th.no_grad()
        def after_step(self, network: Any) -> None:
            for parameter, old in zip(self.agent.actor.parameters(), self._old if network == "actor" else [], strict=False):
                parameter.copy_(old)

    moved = []
    for interventions in ([ContinualBackprop(0.1, 1), Standstill()], [Standstill(), ContinualBackprop(0.1, 1)]):
        agent = CASES["sac-relu"].agent(interventions)
        start = agent.actor.latent_pi[0].weight.detach().clone()
        agent.learn(40)
        (counts, _) = agent.all_interventions.find(ContinualBackprop).reset_counts.values()
        assert counts.any()
        moved.append(th.equal((agent.actor.latent_pi[0].weight != start).any(1), counts > 0))
    assert moved[0]
