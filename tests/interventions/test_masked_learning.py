"""Masks: how they accumulate, whom they hold back, and how far."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch as th
from identification_checks import (
    masked,
    masking_of,
    on_training_steps,
)
from tagged_tasks import (
    Spy,
    differing,
    parameters,
    tagged_sequence,
    tiny,
)

from sb3_nbsp import ContinualSAC
from sb3_nbsp.fast import masked_step


@pytest.mark.parametrize("accumulation", ["minimum", "latest"])
def test_masks_accumulate_over_tasks_and_a_task_that_comes_back_replaces_its_own(accumulation: str) -> None:
    options: dict[str, Any] = {"mask_accumulation": accumulation, "skill_proportion": 0.4, "min_active_share": 0}
    masking, after = on_training_steps(**options), []

    class Look(Spy):
        def on_phase_end(self, phase: Any) -> None:
            score, skill = masking.scores[phase.task], masking.skill_neurons[phase.task]
            new = {name: th.where(skill[name], 0.2 * (1 - score[name]), 1.0) for name in score}
            after.append((phase.task, copy.deepcopy(masking.masks), new))

    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[masking, Look()])
    agent.learn(10_000)
    assert len(after) == 4
    by_task: dict[str, dict[str, th.Tensor]] = {}
    for task, masks, new in after:
        by_task = {**by_task, task: new} if accumulation == "minimum" else {task: new}
        for name in ("actor", "qf0", "qf1"):
            expected = th.stack([each[name] for each in by_task.values()]).min(0).values
            layers = (
                ("actor.latent_pi.0", "actor.latent_pi.2") if name == "actor" else (f"critic.{name}.0", f"critic.{name}.2")
            )
            th.testing.assert_close(th.cat([masks[layer] for layer in layers]), expected, atol=1e-12, rtol=0)
    protected = [int((th.cat([*masks.values()]) < 1).sum()) for _, masks, _ in after]
    assert protected[0] == 18  # 3 networks × round(0.4 × 16)
    assert 18 < min(protected[1:]) <= max(protected) <= 36 if accumulation == "minimum" else protected == [18] * 4
    # Some neuron of the first phase is free again when its task has come back and chosen others
    first, third = (th.cat([*after[phase][1].values()]) < 1 for phase in (0, 2))
    assert (first & ~third).any()


@pytest.mark.parametrize(
    ("networks", "masked_parts"), [("actor", {"actor"}), ("critic", {"critic"}), ("both", {"actor", "critic"})]
)
def test_which_networks_are_masked(networks: str, masked_parts: set[str]) -> None:
    agent = masked(tagged_sequence(), mask_networks=networks)
    agent.learn(60)
    assert {name.split(".")[0] for name in masking_of(agent).masks} == masked_parts
    assert set(masking_of(agent).scores["red"]) == {
        name for name in ("actor", "qf0", "qf1") if ("actor" if name == "actor" else "critic") in masked_parts
    }


HIDDEN = {
    "actor": {"actor.latent_pi.0": "actor.latent_pi.0", "actor.latent_pi.2": "actor.latent_pi.2"},
    "critic": {f"critic.qf{i}.{layer}": f"critic.qf{i}.{layer}" for i in (0, 1) for layer in (0, 2)},
}
# The first update of the second phase: 60 steps, 20 of warm-up, one more
FIRST_MASKED_STEP = 60 + 20 + 1


def first_step(networks: str, **options: Any) -> tuple[Any, dict[str, th.Tensor], dict[str, th.Tensor], dict[str, th.Tensor]]:
    """Masking, then the parameters before and after the first masked step, and after the same step without masks."""
    results = []
    for masking in (on_training_steps(mask_networks=networks, **options), None):  # type: ignore[arg-type]
        agent = tiny(ContinualSAC, tagged_sequence(), interventions=[] if masking is None else [masking], fused=False)
        agent.learn(FIRST_MASKED_STEP - 1)
        before = parameters(agent)
        agent.learn(1, reset_num_timesteps=False)
        results.append((masking, before, parameters(agent)))
    (masking, before, after), (_, plain_before, plain_after) = results
    assert differing(before, plain_before) == []
    return masking, before, after, plain_after


@pytest.mark.parametrize("mask_type", ["soft", "hard"])
@pytest.mark.parametrize("network", ["actor", "critic"])
def test_the_first_masked_step(network: str, mask_type: str) -> None:
    """θ ← θ + mask ⊙ Δ for the incoming weights and biases; output layers move as without masks, bit for bit."""
    masking, before, after, plain = first_step(network, mask_type=mask_type)
    outputs = 0
    for name, old in before.items():
        if not name.startswith(f"{network}."):
            continue
        layer = name.rsplit(".", 1)[0]
        if layer in masking.masks:
            mask = masking.masks[layer].float().view(-1, *[1] * (old.dim() - 1))
            step = plain[name] - old
            assert step.abs().max() > 0
            th.testing.assert_close(after[name], old + mask * step, atol=1e-7, rtol=0)
            free = masking.masks[layer] == 1
            assert th.equal(after[name][free], plain[name][free])
            if mask_type == "hard":
                assert th.equal(after[name][~free], old[~free])
        else:
            assert th.equal(after[name], plain[name]) and not th.equal(after[name], old), name
            outputs += 1
    assert outputs == 4  # weight and bias of: mu and log_std, or both critics' last layers
    assert any((masking.masks[layer] < 1).any() for layer in masking.masks)


def test_hard_masks_hold_the_skill_neurons_still_until_their_task_comes_back() -> None:
    spy = Spy()
    agent = masked(tagged_sequence(), spy, {"gradient_steps": 2}, mask_type="hard", min_active_share=0)
    agent.learn(60)
    at_end, masks, n_updates = parameters(agent), copy.deepcopy(masking_of(agent).masks), agent._n_updates
    agent.learn(119, reset_num_timesteps=False)
    now = parameters(agent)
    assert len(spy.ends) == 2 and agent._n_updates > n_updates + 100
    still = 0
    for layer, mask in masks.items():
        for kind in ("weight", "bias"):
            name = f"{layer}.{kind}"
            assert th.equal(now[name][mask == 0], at_end[name][mask == 0])
            still += int((mask == 0).sum())
    assert still == 2 * 3 * 3  # 3 networks × round(0.2 × 16), weights and biases
    for name in ("actor.mu.weight", "actor.log_std.bias", "critic.qf0.4.weight", "critic.qf1.4.bias"):
        assert not th.equal(now[name], at_end[name])


def movement(
    parameters_before: dict[str, th.Tensor], parameters_after: dict[str, th.Tensor], masks: Any
) -> tuple[float, float]:
    """Mean movement of the rows that are masked, and of the others."""
    moved: dict[bool, list[th.Tensor]] = {True: [], False: []}
    for layer, mask in masks.items():
        for kind in ("weight", "bias"):
            change = (
                (parameters_after[f"{layer}.{kind}"] - parameters_before[f"{layer}.{kind}"])
                .abs()
                .flatten(1 - (kind == "bias"))
            )
            for is_masked in (True, False):
                moved[is_masked].append(change[(mask < 1) == is_masked].flatten())
    return th.cat(moved[True]).mean().item(), th.cat(moved[False]).mean().item()


def test_masked_neurons_move_less_over_the_next_phase() -> None:
    ends: dict[str, tuple[float, float]] = {}
    masks: Any = None
    for name in ("masked", "plain"):
        interventions = [on_training_steps()] if name == "masked" else []
        agent = tiny(ContinualSAC, tagged_sequence(steps_per_task=100), interventions=interventions)
        agent.learn(100)
        before = parameters(agent)
        masks = copy.deepcopy(interventions[0].masks) if interventions else masks
        agent.learn(99, reset_num_timesteps=False)
        ends[name] = movement(before, parameters(agent), masks)
    assert ends["plain"][0] > 0.3 * ends["plain"][1] > 0.003  # without masks the same rows move like any other
    assert ends["masked"][0] < 0.2 * ends["plain"][0]
    assert ends["masked"][0] < 0.2 * ends["masked"][1]
    assert ends["masked"][1] > 0.5 * ends["plain"][1]


class Gradients(Spy):
    """Keeps the gradients as they are when the optimizer is about to step."""

    def attach(self, agent: Any) -> None:
        super().attach(agent)
        self._gradients: list[tuple[str, dict[str, th.Tensor]]] = []

    @property
    def gradients(self) -> list[tuple[str, dict[str, th.Tensor]]]:
        return self._gradients

    def before_step(self, network: Any) -> None:
        named = self.agent.policy.named_parameters()
        self._gradients.append(
            (network, {n: p.grad.clone() for n, p in named if p.grad is not None and n.startswith(network)})
        )


def test_gradient_target() -> None:
    """mask_target="gradient" multiplies the gradients and leaves the step to Adam."""
    first, last = Gradients(), Gradients()
    masking = on_training_steps(mask_target="gradient")
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[first, masking, last])
    agent.learn(100)
    assert masking._steps == {}
    compared = 0
    n_first_phase = first.ends[0]["n_updates"] * 2
    for index, ((_, raw), (_, given)) in enumerate(zip(first.gradients, last.gradients, strict=True)):
        for name, gradient in raw.items():
            layer = name.rsplit(".", 1)[0]
            if index < n_first_phase or layer not in masking.masks:
                assert th.equal(gradient, given[name])
                continue
            mask = masking.masks[layer].float().view(-1, *[1] * (gradient.dim() - 1))
            th.testing.assert_close(given[name], gradient * mask, atol=0, rtol=1e-6)
            compared += int((gradient[masking.masks[layer] < 1] != 0).any())
    assert len(first.gradients) == 2 * agent._n_updates > n_first_phase and compared > 100


def test_step_target_leaves_the_gradients_alone() -> None:
    first, last = Gradients(), Gradients()
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[first, on_training_steps(), last])
    agent.learn(90)
    assert len(first.gradients) == 2 * agent._n_updates > 80
    for (_, raw), (_, given) in zip(first.gradients, last.gradients, strict=True):
        assert all(th.equal(gradient, given[name]) for name, gradient in raw.items())


@pytest.mark.parametrize("optimizer", [th.optim.SGD, th.optim.AdamW, th.optim.RMSprop, th.optim.Adagrad])
def test_the_step_is_scaled_whatever_the_optimizer(optimizer: type[th.optim.Optimizer]) -> None:
    results = []
    for masking in (on_training_steps(mask_networks="critic"), None):
        policy_kwargs = {"net_arch": [8, 8], "optimizer_class": optimizer}
        interventions = [] if masking is None else [masking]
        agent = tiny(ContinualSAC, tagged_sequence(), interventions=interventions, policy_kwargs=policy_kwargs)
        agent.learn(FIRST_MASKED_STEP - 1)
        before = parameters(agent)
        agent.learn(1, reset_num_timesteps=False)
        results.append((masking, before, parameters(agent)))
    (masking, before, after), (_, _, plain) = results
    assert masking is not None
    for layer, mask in masking.masks.items():
        old, new, free = before[f"{layer}.weight"], after[f"{layer}.weight"], plain[f"{layer}.weight"]
        assert (free - old).abs().max() > 1e-6
        th.testing.assert_close(new - old, mask.float()[:, None] * (free - old), atol=2e-7, rtol=0)


def test_a_run_that_diverged_leaves_nothing_behind() -> None:
    agent = masked(tagged_sequence())
    agent.learn(100)
    assert masking_of(agent)._steps.keys() == {"actor", "critic"}
    parts = agent.policy, agent.actor.optimizer, agent.critic.optimizer, agent.ent_coef_optimizer
    good, log_ent_coef = [copy.deepcopy(part.state_dict()) for part in parts], agent.log_ent_coef.item()
    with th.no_grad():
        for parameter in agent.policy.parameters():
            parameter.fill_(float("nan"))
    agent.train(2, 8)
    scratch = masked_step._ADDED[masking_of(agent)._steps["actor"]]._changes
    assert scratch and all(each.isnan().any() for each in scratch)
    for part, state in zip(parts, good, strict=True):
        part.load_state_dict(state)
    agent.log_ent_coef.data.fill_(log_ent_coef)
    agent.train(1, 8)
    agent.learn(10, reset_num_timesteps=False)
    assert all(parameter.isfinite().all() for parameter in agent.policy.parameters())
    assert any(not th.equal(value, good[0][name]) for name, value in agent.policy.state_dict().items())
