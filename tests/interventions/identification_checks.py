"""Skill neurons, computed one step and one neuron at a time; and small agents that mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.vec_env import DummyVecEnv
from tagged_tasks import (
    Spy,
    tagged_sequence,
    tiny,
)
from torch import nn

from sb3_nbsp import ContinualSAC
from sb3_nbsp.interventions import GradientMasking

# A step that is masked: (environment's row within the phase, environment, goal metric)
Steps = list[tuple[int, int, float]]


def on_training_steps(**options: Any) -> GradientMasking:
    return GradientMasking(**{"identification_data": "training", **options})


def masked(env: Any, spy: Spy | None = None, agent: dict[str, Any] | None = None, **options: Any) -> Any:
    masking = on_training_steps(**options)
    return tiny(ContinualSAC, env, interventions=[masking] if spy is None else [spy, masking], **(agent or {}))


def masking_of(agent: Any) -> GradientMasking:
    (masking,) = (each for each in agent.interventions if isinstance(each, GradientMasking))
    return masking


# One step at a time


def slow_metric(transitions: list[Any], name: str, n_steps: int, limit: int = 10**9) -> Steps:
    """Goal metric of the last steps of a phase, from its list of transitions."""
    n_envs = len(transitions[0][0])
    rows = min(-(-n_steps // n_envs), len(transitions), limit)
    steps: Steps = []
    for env in range(n_envs):
        episode: list[int] = []
        for row, (_, dones, _) in enumerate(transitions):
            episode.append(row)
            if name in ("step_success", "custom"):
                reward, _, infos = transitions[row]
                q = infos[env]["success"] if name == "step_success" else float(reward[env]) ** 2
                steps.append((row, env, q))
            elif dones[env]:
                if name == "episode_return":
                    q = sum(float(transitions[i][0][env]) for i in episode)
                else:
                    q = max(transitions[i][2][env]["success"] for i in episode)
                steps += [(i, env, q) for i in episode]
            if dones[env]:
                episode = []
    return sorted(step for step in steps if step[0] >= len(transitions) - rows)


def slow_scores(
    modules: list[nn.Module], forward: Any, inputs: list[Any], q: list[float], balanced: bool = False
) -> tuple[list[float], list[float]]:
    """
    Scores of the neurons behind some activation modules (equations 1 to 4, or balanced), and the share of the steps on the
    emptier side of their means.
    """
    activations: list[list[float]] = []
    for each in inputs:
        row: list[float] = []
        handles = [
            module.register_forward_hook(lambda _m, _i, out, row=row: row.extend(value.mean().item() for value in out[0]))
            for module in modules
        ]
        with th.no_grad():
            forward(each)
        for handle in handles:
            handle.remove()
        activations.append(row)
    mean_q = sum(q) / len(q)
    scores, shares = [], []
    for neuron in range(len(activations[0])):
        own = [row[neuron] for row in activations]
        mean = sum(own) / len(own)
        constant = all(value == own[0] for value in own)
        agrees: dict[bool, list[bool]] = {True: [], False: []}  # by whether the step is a success
        n_above = 0
        for value, metric in zip(own, q, strict=True):
            is_above = value > mean and not constant
            n_above += is_above
            agrees[metric > mean_q].append(is_above == (metric > mean_q))
        if balanced:
            r_over = sum(sum(each) / len(each) for each in agrees.values()) / 2
        else:
            r_over = sum(map(sum, agrees.values())) / len(q)
        scores.append(max(r_over, 1 - r_over))
        shares.append(min(n_above, len(q) - n_above) / len(q))
    return scores, shares


def activation_modules(*parts: nn.Module) -> list[nn.Module]:
    return [module for part in parts for module in part.modules() if isinstance(module, (nn.ReLU, nn.Tanh))]


def slow_networks(policy: Any) -> dict[str, tuple[list[nn.Module], Any]]:
    """By network: its activation modules, and what runs it on (observation, action)."""
    networks: dict[str, tuple[list[nn.Module], Any]] = {}
    actor, critic = policy.actor, policy.critic
    modules = activation_modules(actor.features_extractor, actor.latent_pi)
    networks["actor"] = modules, lambda step: actor.latent_pi(actor.extract_features(step[0], actor.features_extractor))
    for i, head in enumerate(critic.q_networks):

        def forward(step: Any, head: Any = head) -> Any:
            return head(th.cat([critic.extract_features(step[0], critic.features_extractor), step[1]], dim=1))

        networks[f"qf{i}"] = activation_modules(critic.features_extractor, head), forward
    return networks


def slow_selection(scores: list[float], eligible: list[bool], proportion: float) -> list[bool]:
    """Equation 5: of the eligible, the best first, and the earlier of two equals."""
    order = [i for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)) if eligible[i]]
    number = round(proportion * len(order))
    return [i in order[:number] for i in range(len(scores))]


def check_scores(masking: GradientMasking, policy: Any, task: str, inputs: list[Any], q: list[float]) -> None:
    """Scores, skill neurons and the mask of the phase just ended, from a copy of the policy as it was then."""
    expected_masks: dict[int, float] = {}
    n_skills = n_selectable = 0
    for name, (modules, forward) in slow_networks(policy).items():
        scores, shares = slow_scores(modules, forward, inputs, q, masking.identification == "balanced")
        eligible = [share >= masking.min_active_share for share in shares]
        scores = [score if is_eligible else 0.5 for score, is_eligible in zip(scores, eligible, strict=True)]
        np.testing.assert_allclose(masking.scores[task][name].numpy(), scores, atol=1e-12, err_msg=name)
        selected = slow_selection(scores, eligible, masking.skill_proportion)
        assert masking.skill_neurons[task][name].tolist() == selected
        n_skills += sum(selected)
        n_selectable += round(masking.skill_proportion * len(scores))
        for i, (score, skill) in enumerate(zip(scores, selected, strict=True)):
            hard = masking.mask_type == "hard"
            expected_masks[len(expected_masks)] = (0.0 if hard else masking.mask_alpha * (1 - score)) if skill else 1.0
            assert eligible[i] or not skill
    assert 0 < n_skills <= n_selectable
    if len(masking.skill_neurons) == 1:
        # In the order of the networks and their layers (convolutional extractors apart, those may be shared)
        flat = th.cat([masking.masks[name] for name in masking.masks]).tolist()
        if not any("features_extractor" in name for name in masking.masks):
            assert flat == pytest.approx(list(expected_masks.values()), abs=1e-12)


def inputs_of(spy: Spy, phase: int, steps: Steps, normalize: bool = False) -> list[Any]:
    """Observation and action of each step, as a batch of one."""
    end = spy.ends[phase]
    buffer, statistics = end["buffer"], end["normalizer"]
    n_rows = len(spy.transitions[phase])
    inputs = []
    for row, env, _ in steps:
        index = (buffer.pos - (n_rows - row)) % buffer.buffer_size
        observation = buffer.observations[index, env]
        if normalize:
            mean, var = statistics[0].mean, statistics[0].var
            observation = np.clip((observation - mean) / np.sqrt(var + 1e-8), -10, 10).astype(np.float32)
        inputs.append((th.tensor(observation[None]), th.tensor(buffer.actions[index, env][None])))
    return inputs


def two_sequences(**kwargs: Any) -> DummyVecEnv:
    """Two environments whose episodes end at different times."""
    return DummyVecEnv([lambda: tagged_sequence(horizon=7, **kwargs), lambda: tagged_sequence(horizon=11, **kwargs)])
