"""The diagonal Fisher information: worked out by hand, and by integrating squared gradients over the actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from tagged_tasks import ImageTask, TaggedTask, tiny
from torch import nn
from torch.distributions import Categorical, Normal

from sb3_nbsp import ContinualSAC
from sb3_nbsp.interventions.fisher import diagonal_fisher, policy_outputs


def linear(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(bias))
    with th.no_grad():
        layer.weight.copy_(th.tensor(weight))
        layer.bias.copy_(th.tensor(bias))
    return layer


def assert_close(found: list[th.Tensor], *expected: Any) -> None:
    for each, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(each.numpy(), wanted, rtol=2e-5)


def plain(y: th.Tensor) -> list[tuple[th.Tensor, th.Tensor]]:
    return [(y, th.ones_like(y))]


def test_a_linear_gaussian_policy_by_hand() -> None:
    # μ = w x + b, log σ = v x + c with σ = 0.5, x = 1 and 2
    net = nn.ModuleDict({"mu": linear([[0.5]], [0.0]), "log_std": linear([[0.0]], [float(np.log(0.5))])})

    def outputs(x: th.Tensor) -> Any:
        return policy_outputs([Normal(net["mu"](x), net["log_std"](x).exp())])

    assert_close(diagonal_fisher(net, list(net.parameters()), outputs, th.tensor([[1.0], [2.0]])), [[10]], [4], [[5]], [2])


@pytest.mark.parametrize(
    ("probabilities", "expected"), [([0.75, 0.25], [0.1875, 0.1875]), ([0.5, 0.3, 0.2], [0.25, 0.21, 0.16])]
)
def test_a_categorical_policy_by_hand(probabilities: list[float], expected: list[float]) -> None:
    net = linear([[0.0]] * len(probabilities), np.log(probabilities).tolist())
    (weight, bias) = diagonal_fisher(
        net, list(net.parameters()), lambda x: policy_outputs([Categorical(logits=net(x))]), th.tensor([[2.0]])
    )
    assert_close([weight[:, 0], bias], 4 * np.array(expected), expected)


def test_a_linear_critic_by_hand() -> None:
    net = linear([[0.3, -0.2]], [0.1])
    found = diagonal_fisher(net, list(net.parameters()), lambda x: plain(net(x)), th.tensor([[1.0, 2.0], [3.0, 0.0]]))
    assert_close(found, [[5, 2]], [1])


def test_opposite_gradients_do_not_cancel() -> None:
    net = linear([[1.0]], [0.0])
    found = diagonal_fisher(net, [net.weight], lambda x: plain(net(x)), th.tensor([[1.0], [-1.0]]))
    assert_close(found, [[1]])


def policy_in(agent: Any, states: th.Tensor) -> Normal:
    mean, log_std, kwargs = agent.actor.get_action_dist_params(states)
    policy: Normal = agent.actor.action_dist.proba_distribution(mean, log_std, **kwargs).distribution
    return policy


def integrated(agent: Any, observations: th.Tensor) -> list[th.Tensor]:
    """Mean over the states of the expectation of the squared gradient of log π(a): Gauss and Hermite's rule is exact."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    parameters = list(agent.actor.parameters())
    n_actions = agent.action_space.shape[0]
    sums = [th.zeros_like(each) for each in parameters]
    for state in observations.split(1):
        for place in np.ndindex(*[len(nodes)] * n_actions):
            policy = policy_in(agent, state)
            noise = th.tensor(nodes[list(place)], dtype=th.float32)
            action = (policy.mean + policy.stddev * noise).detach()
            gradients = th.autograd.grad(policy.log_prob(action).sum(), parameters, allow_unused=True, materialize_grads=True)
            weight = float(np.prod(weights[list(place)] / weights.sum()))
            sums = [total + weight * each.square() for total, each in zip(sums, gradients, strict=True)]
    return [each / len(observations) for each in sums]


class Twice(nn.Sequential):
    def forward(self, x: th.Tensor) -> th.Tensor:
        return super().forward(super().forward(x))


def weight_normed(agent: Any) -> None:
    agent.actor.latent_pi[0] = nn.utils.parametrizations.weight_norm(agent.actor.latent_pi[0])


def old_weight_norm(agent: Any) -> None:
    agent.actor.latent_pi[0] = nn.utils.weight_norm(agent.actor.latent_pi[0])


def in_place(agent: Any) -> None:
    agent.actor.latent_pi[1] = nn.ReLU(inplace=True)


def with_a_layer_run_twice(agent: Any) -> None:
    agent.actor.latent_pi[2] = Twice(nn.Linear(8, 8), nn.Tanh())


def with_a_norm(agent: Any) -> None:
    agent.actor.latent_pi[1] = nn.Sequential(nn.LayerNorm(8), nn.ReLU())


# With a σ that the floor of its square does not matter to
SDE = {"use_sde": True, "policy_kwargs": {"net_arch": [8, 8], "log_std_init": 0.0}}
CNN = {"policy": "CnnPolicy", "policy_kwargs": {"net_arch": [8], "features_extractor_kwargs": {"features_dim": 8}}}


@pytest.mark.parametrize(
    ("env", "options", "change"),
    [
        (TaggedTask, {}, None),
        (TaggedTask, {}, in_place),
        (TaggedTask, {}, with_a_layer_run_twice),
        (TaggedTask, {}, with_a_norm),
        (TaggedTask, {}, weight_normed),
        (TaggedTask, {}, old_weight_norm),
        (TaggedTask, SDE, None),
        (ImageTask, CNN, None),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
def test_it_is_the_expected_square_of_the_gradient_of_log_pi(
    env: Any, options: dict[str, Any], change: Callable[[Any], None] | None
) -> None:
    agent = tiny(ContinualSAC, env(1.0) if env is TaggedTask else env(), **options)
    if change is not None:
        change(agent)
    agent.policy.eval()
    space: Any = agent.observation_space
    shape = (2, *space.shape)
    generator = np.random.default_rng(0)
    drawn = generator.normal(size=shape) if space.dtype == np.float32 else generator.integers(256, size=shape)
    states = th.tensor(drawn.astype(space.dtype))
    parameters = list(agent.actor.parameters())
    found = diagonal_fisher(agent.actor, parameters, lambda obs: policy_outputs([policy_in(agent, obs)]), states)
    for each, expected in zip(found, integrated(agent, states), strict=True):
        assert (each - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert sum(each.count_nonzero() for each in found) > 20


def test_it_depends_on_the_states_only_not_on_how_they_come_in_batches() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    states = th.randn(130, 3)  # more than are computed at a time

    def fisher(part: th.Tensor) -> th.Tensor:
        return th.cat([each.flatten() for each in diagonal_fisher(net, list(net.parameters()), lambda x: plain(net(x)), part)])

    whole = fisher(states)
    th.testing.assert_close(fisher(th.cat([states, states])), whole)
    th.testing.assert_close((50 * fisher(states[:50]) + 80 * fisher(states[50:])) / 130, whole)


def test_what_is_frozen_is_left_out() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    states = th.randn(5, 3)
    whole = diagonal_fisher(net, list(net.parameters()), lambda x: plain(net(x)), states)
    net[0].requires_grad_(False)
    net[2].bias.requires_grad_(False)
    (found,) = diagonal_fisher(net, [net[2].weight], lambda x: plain(net(x)), states)
    assert th.equal(found, whole[2])
