"""The causal score, worked out by hand for the neurons that the output layers read."""

import pytest
import torch as th
from tagged_tasks import tagged_sequence, tiny

from sb3_nbsp import ContinualSAC
from sb3_nbsp.interventions.networks import networks_of
from sb3_nbsp.interventions.scoring import causal_score


def test_is_the_divergence_of_the_policy_and_the_square_of_a_value() -> None:
    """A mean moves by weight times activation: KL(N(μ, σ), N(μ', σ)) = (μ - μ')² / 2σ², a value by the square."""
    agent = tiny(ContinualSAC, tagged_sequence(), seed=1)
    with th.no_grad():
        agent.actor.log_std.weight.zero_()
        agent.actor.log_std.bias.fill_(-1.0)
    actor, first_critic, _ = networks_of(agent)
    observations = th.as_tensor([agent.observation_space.sample() for _ in range(50)])
    actions = th.as_tensor([agent.action_space.sample() for _ in range(50)])
    with th.no_grad():
        of_actor = agent.actor.latent_pi(observations)
        squares = (of_actor.unsqueeze(2) * agent.actor.mu.weight.t()).square().sum(2)  # (states, neurons)
        head = agent.critic.q_networks[0]
        of_critic = head[:-1](th.cat([observations, actions], dim=1)) * head[-1].weight
    n_last = of_actor.shape[1]
    expected = squares.mean(0) / 2 / th.exp(th.tensor(-2.0))
    found = causal_score(actor, observations, actions)
    th.testing.assert_close(found[-n_last:].float(), expected, rtol=1e-3, atol=1e-6)
    assert (found >= 0).all() and found[:-n_last].max() > 0
    found = causal_score(first_critic, observations, actions)
    th.testing.assert_close(found[-of_critic.shape[1] :].float(), of_critic.square().mean(0), rtol=1e-3, atol=1e-6)


def test_of_many_steps_a_thousand_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = tiny(ContinualSAC, tagged_sequence(), seed=1)
    actor = networks_of(agent)[0]
    seen = []
    distribution = actor.distribution
    monkeypatch.setattr(actor, "distribution", lambda obs: seen.append(obs) or distribution(obs))
    observations = th.rand(5001, *agent.observation_space.shape)
    causal_score(actor, observations, th.zeros(5001, 1))
    assert {len(obs) for obs in seen} == {1000} and seen[0][0].equal(observations[0]) and seen[0][-1].equal(observations[-1])
