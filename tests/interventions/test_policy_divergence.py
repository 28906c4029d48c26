"""α-DKL in closed form against hand-worked numbers and Monte-Carlo estimates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch as th
from torch.distributions import Bernoulli, Beta, Categorical, Distribution, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from sb3_nbsp.interventions.policy_divergence import alpha_dkl, at_states, categorical_gradient, joined, normal_gradient

N_SAMPLES = 200_000


def pair(name: str) -> tuple[list[Distribution], list[Distribution]]:
    """Two policies for three states."""
    th.manual_seed(0)

    def make() -> list[Distribution]:
        if name == "normal":
            return [Normal(0.5 * th.randn(3, 2), th.rand(3, 2) + 0.5)]
        if name == "bernoulli":
            return [Bernoulli(logits=th.randn(3, 4))]
        sizes = [5] if name == "categorical" else [3, 4]
        return [Categorical(logits=th.randn(3, size)) for size in sizes]

    return make(), make()


def monte_carlo(first: Sequence[Distribution], second: Sequence[Distribution]) -> th.Tensor:
    """KL(first ‖ second) per state from samples."""
    total = th.zeros(3)
    for p, q in zip(first, second, strict=True):
        samples = p.sample((N_SAMPLES,))
        difference = p.log_prob(samples) - q.log_prob(samples)
        total += (difference.sum(-1) if difference.dim() > 2 else difference).mean(0)
    return total


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", ["normal", "categorical", "multi-categorical", "bernoulli"])
def test_against_monte_carlo(name: str, alpha: float) -> None:
    teacher, student = pair(name)
    estimate = alpha * monte_carlo(teacher, student) + (1 - alpha) * monte_carlo(student, teacher)
    th.testing.assert_close(alpha_dkl(teacher, student, alpha), estimate, rtol=0.03, atol=0.01)


@pytest.mark.parametrize("name", ["normal", "categorical", "multi-categorical", "bernoulli"])
def test_equal_policies(name: str) -> None:
    policy, other = pair(name)
    th.testing.assert_close(alpha_dkl(policy, policy, 0.4), th.zeros(3), rtol=0, atol=1e-6)
    assert (alpha_dkl(policy, other, 0.4) > 0.01).all()


def test_squashing_changes_nothing() -> None:
    (teacher,), (student,) = pair("normal")
    squashed = [[TransformedDistribution(each, [TanhTransform(cache_size=1)])] for each in (teacher, student)]
    th.testing.assert_close(monte_carlo(*squashed), alpha_dkl([teacher], [student], 1.0), rtol=0.03, atol=0.01)


def test_by_hand() -> None:
    # KL(N(0, 1) ‖ N(1, 2)) = ln 2 + (1 + 1) / 8 - 1/2; KL(N(1, 2) ‖ N(0, 1)) = -ln 2 + (4 + 1) / 2 - 1/2
    teacher, student = [Normal(th.zeros(1, 1), th.ones(1, 1))], [Normal(th.ones(1, 1), 2 * th.ones(1, 1))]
    expected = 0.25 * (math.log(2) - 0.25) + 0.75 * (2 - math.log(2))
    assert alpha_dkl(teacher, student, 0.25).tolist() == pytest.approx([expected])
    # Two dimensions are summed
    doubled = [[Normal(each[0].loc.expand(1, 2), each[0].scale.expand(1, 2))] for each in (teacher, student)]
    assert alpha_dkl(*doubled, 0.25).tolist() == pytest.approx([2 * expected])
    # Categorical (1/2, 1/2) against (1/4, 3/4)
    teacher = [Categorical(th.tensor([[0.5, 0.5]]))]
    student = [Categorical(th.tensor([[0.25, 0.75]]))]
    forward = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    backward = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert alpha_dkl(teacher, student, 0.4).tolist() == pytest.approx([0.4 * forward + 0.6 * backward])


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_gradients_are_those_of_autograd(alpha: float) -> None:
    teacher, student = pair("normal")
    (old,), (new,) = teacher, student
    assert isinstance(old, Normal) and isinstance(new, Normal)
    mean, log_std = new.loc.clone().requires_grad_(), new.scale.log().requires_grad_()
    expected = th.autograd.grad(alpha_dkl([old], [Normal(mean, log_std.exp())], alpha).sum(), (mean, log_std))
    for found, theirs in zip(normal_gradient(old, new, alpha), expected, strict=True):
        assert theirs.dtype == th.float64 and theirs.abs().min() > 1e-3
        th.testing.assert_close(found, theirs, rtol=1e-10, atol=1e-12)

    (discrete_old,), (discrete_new,) = pair("categorical")
    assert isinstance(discrete_old, Categorical) and isinstance(discrete_new, Categorical)
    logits = (discrete_new.logits + 0.3).requires_grad_()  # not normalized
    loss = alpha_dkl([discrete_old], [Categorical(logits=logits)], alpha).sum()
    th.testing.assert_close(
        categorical_gradient(discrete_old, discrete_new, alpha), th.autograd.grad(loss, logits)[0], rtol=1e-10, atol=1e-12
    )


def test_gradients_by_hand() -> None:
    # As in test_by_hand, with r = 2 and d = 1: 1/4 * 1/4 + 3/4, and 1/2 - 1 - 1/4 * 2/4 + 3/4 * 4
    one = th.ones(1, 1)
    mean, log_std = normal_gradient(Normal(0 * one, one), Normal(one, 2 * one), 0.25)
    assert mean.item() == pytest.approx(0.8125)
    assert log_std.item() == pytest.approx(2.375)
    # (1/2, 1/2) against (1/4, 3/4): 0.4 * (p' - p) + 0.6 * p' * (ln(p' / p) - KL)
    found = categorical_gradient(Categorical(th.tensor([[0.5, 0.5]])), Categorical(th.tensor([[0.25, 0.75]])), 0.4)
    divergence = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    first = 0.4 * -0.25 + 0.6 * 0.25 * (math.log(0.5) - divergence)
    assert found.tolist() == [pytest.approx([first, -first])]


@pytest.mark.parametrize("name", ["normal", "categorical", "multi-categorical", "bernoulli"])
def test_parts_of_a_batch(name: str) -> None:
    policy, other = pair(name)
    batches = [at_states(policy, th.tensor([0])), at_states(policy, th.tensor([1, 2]))]
    together = joined(batches)
    th.testing.assert_close(alpha_dkl(together, other, 0.4), alpha_dkl(policy, other, 0.4))
    chosen = th.tensor([2, 0])
    expected = alpha_dkl(policy, other, 0.4)[chosen]
    th.testing.assert_close(alpha_dkl(at_states(policy, chosen), at_states(other, chosen), 0.4), expected)


def test_unknown_distribution() -> None:
    with pytest.raises(ValueError, match="action_space: policies whose actions follow Beta"):
        at_states([Beta(th.ones(2), th.ones(2))], th.tensor([0]))
