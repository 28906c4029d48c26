"""What is multiplied with the mask is the optimizer's step."""

import copy
from collections.abc import Callable

import pytest
import torch as th
from torch import nn

from sb3_nbsp.fast.fused_optimizers import can_step_into
from sb3_nbsp.fast.masked_step import take_masked_step
from sb3_nbsp.neurons import MaskedStep, skill_mask
from sb3_nbsp.neurons.masks import mask_gradients

MASK = th.tensor([1.0, 0.06, 0.0, 1.0, 0.1, 0.0], dtype=th.float64)
Optimizer = Callable[..., th.optim.Optimizer]


class Problem:
    """A network with a masked convolution, norm and linear layer, and data to fit."""

    def __init__(self, dtype: th.dtype, make_optimizer: Optimizer) -> None:
        th.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(2, 6, 2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 2)
        ).to(dtype)
        self.x, self.y = th.randn(16, 2, 3, 3, dtype=dtype), th.randn(16, 2, dtype=dtype)
        self.optimizer = make_optimizer(self.net.parameters())
        self.initial = copy.deepcopy(self.net.state_dict())

    def masked(self, mask: th.Tensor = MASK) -> list[tuple[nn.Parameter, th.Tensor]]:
        return [(parameter, mask) for module in (self.net[0], self.net[3], self.net[4]) for parameter in module.parameters()]

    def gradients(self) -> None:
        self.optimizer.zero_grad()
        (self.net(self.x) - self.y).square().mean().backward()

    def run(self, steps: int, *masks: MaskedStep) -> dict[str, th.Tensor]:
        """Take steps. Returns how far every parameter has moved."""
        for _ in range(steps):
            self.gradients()
            take_masked_step(self.optimizer, masks)
        return self.moved()

    def run_gradient_mask(self, steps: int, mask: th.Tensor = MASK) -> dict[str, th.Tensor]:
        for _ in range(steps):
            self.gradients()
            mask_gradients(self.masked(mask))
            self.optimizer.step()
        return self.moved()

    def moved(self) -> dict[str, th.Tensor]:
        return {name: parameter - self.initial[name] for name, parameter in self.net.state_dict().items()}


def adam(parameters: object) -> th.optim.Optimizer:
    return th.optim.Adam(parameters, lr=0.01)


def fused_adam(parameters: object) -> th.optim.Optimizer:
    return th.optim.Adam(parameters, lr=0.01, fused=True)


def sgd(parameters: object) -> th.optim.Optimizer:
    return th.optim.SGD(parameters, lr=0.1)


MASKED_NAMES = {"0.weight", "0.bias", "3.weight", "3.bias", "4.weight", "4.bias"}


@pytest.mark.parametrize("make_optimizer", [adam, fused_adam, sgd])
@pytest.mark.parametrize("dtype", [th.float32, th.float64])
def test_a_step_is_mask_times_the_unmasked_step(make_optimizer: Optimizer, dtype: th.dtype) -> None:
    """The first one, and one with momentum."""
    free, held = Problem(dtype, make_optimizer), Problem(dtype, make_optimizer)
    masks = MaskedStep(held.masked())
    assert_masked(free.run(1), held.run(1, masks), dtype)
    for problem in (free, held):
        problem.net.load_state_dict(problem.initial)
    assert_masked(free.run(1), held.run(1, masks), dtype)
    assert can_step_into(held.optimizer) == (make_optimizer is fused_adam and dtype is th.float32)


def assert_masked(free_step: dict[str, th.Tensor], held_step: dict[str, th.Tensor], dtype: th.dtype) -> None:
    rtol, atol = (1e-9, 1e-14) if dtype is th.float64 else (1e-3, 1e-7)
    assert free_step.keys() > MASKED_NAMES
    for name, step in free_step.items():
        if name not in MASKED_NAMES:
            assert th.equal(held_step[name], step), name  # nobody asked to mask it
            continue
        mask = MASK.view(-1, *[1] * (step.dim() - 1))
        th.testing.assert_close(held_step[name], mask.to(dtype) * step, rtol=rtol, atol=atol)
        assert (step.abs() > 1e-4).flatten(1).any(1).all() if step.dim() > 1 else (step != 0).all()


def decaying_adam(parameters: object) -> th.optim.Optimizer:
    return th.optim.Adam(parameters, lr=0.01, fused=True, weight_decay=0.3)


@pytest.mark.parametrize("dtype", [th.float32, th.float64])
@pytest.mark.parametrize("make_optimizer", [adam, fused_adam, decaying_adam])
def test_exact_where_the_mask_is_one_or_zero(make_optimizer: Optimizer, dtype: th.dtype) -> None:
    """Bit for bit, in the first step and in one with momentum."""
    free, held = Problem(dtype, make_optimizer), Problem(dtype, make_optimizer)
    masks = MaskedStep(held.masked())
    for _ in range(2):
        held.net.load_state_dict(free.net.state_dict())
        before = copy.deepcopy(free.net.state_dict())
        free.run(1)
        held.run(1, masks)
        for (name, with_mask), without in zip(held.net.state_dict().items(), free.net.state_dict().values(), strict=True):
            if name in MASKED_NAMES:
                assert th.equal(with_mask[MASK == 1], without[MASK == 1]), name
                assert th.equal(with_mask[MASK == 0], before[name][MASK == 0]), name
            else:
                assert th.equal(with_mask, without)


@pytest.mark.parametrize("make_optimizer", [adam, fused_adam, decaying_adam])
def test_a_mask_of_ones_changes_no_bit_of_a_long_run(make_optimizer: Optimizer) -> None:
    free, held = Problem(th.float32, make_optimizer), Problem(th.float32, make_optimizer)
    free.run(50)
    held.run(50, MaskedStep(held.masked(th.ones(6))))
    for with_mask, without in zip(held.net.state_dict().values(), free.net.state_dict().values(), strict=True):
        assert th.equal(with_mask, without)


def test_both_ways_to_mask_adam_agree() -> None:
    fast, slow = Problem(th.float32, fused_adam), Problem(th.float32, adam)
    found = []
    for problem in (fast, slow):
        masks = MaskedStep(problem.masked())
        problem.run(1, masks)
        assert can_step_into(problem.optimizer) == (problem is fast)
        found.append(problem.run(20, masks))
    for name, movement in found[0].items():
        assert movement.abs().max() > 1e-3
        th.testing.assert_close(movement, found[1][name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("make_optimizer", [fused_adam, decaying_adam])
def test_a_mask_given_twice_acts_once(make_optimizer: Optimizer) -> None:
    twice, once = Problem(th.float32, make_optimizer), Problem(th.float32, make_optimizer)
    masks = MaskedStep(twice.masked())
    found = twice.run(5, masks, masks)
    for name, movement in once.run(5, MaskedStep(once.masked())).items():
        assert th.equal(found[name], movement)


def test_the_two_ways_to_mask_adam_take_turns() -> None:
    found = []
    for rates in ([0.01, 0.01, 0.0, 0.01, 0.01], [0.01, 0.01, 1e-30, 0.01, 0.01]):  # with a rate of 0, the slow way
        problem = Problem(th.float32, fused_adam)
        masks = MaskedStep(problem.masked())
        for rate in rates:
            problem.optimizer.param_groups[0]["lr"] = rate
            problem.run(1, masks)
        found.append(problem.moved())
    for name, movement in found[0].items():
        th.testing.assert_close(found[1][name], movement, rtol=0, atol=1e-7)


class OwnOptimizer(th.optim.SGD):
    """Whose step needs autograd."""

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        assert th.is_grad_enabled()
        with th.no_grad():
            super().step()


def test_an_optimizer_of_somebody_s_own_may_use_autograd() -> None:
    problem = Problem(th.float32, lambda parameters: OwnOptimizer(parameters, lr=0.1))
    moved = problem.run(1, MaskedStep(problem.masked()))
    assert moved["3.weight"][MASK == 1].abs().max() > 0


def test_two_masks_for_one_parameter() -> None:
    parameter = nn.Parameter(th.zeros(2))
    with pytest.raises(ValueError, match="two masks"):
        MaskedStep([(parameter, th.ones(2)), (parameter, th.zeros(2))])


@pytest.mark.parametrize("make_optimizer", [fused_adam, decaying_adam])
def test_several_masks_multiply(make_optimizer: Optimizer) -> None:
    halves, quarter = Problem(th.float32, make_optimizer), Problem(th.float32, make_optimizer)
    one_half, other_half = (MaskedStep(halves.masked(th.full((6,), 0.5))) for _ in range(2))
    found = halves.run(5, one_half, other_half)
    for name, movement in quarter.run(5, MaskedStep(quarter.masked(th.full((6,), 0.25)))).items():
        th.testing.assert_close(found[name], movement, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make_optimizer", [adam, fused_adam])
def test_mask_zero_does_not_move_a_bit_though_there_is_momentum(make_optimizer: Optimizer) -> None:
    def frozen(problem: Problem) -> dict[str, th.Tensor]:
        return {name: value[MASK == 0].clone() for name, value in problem.net.state_dict().items() if name in MASKED_NAMES}

    held, literal = Problem(th.float32, make_optimizer), Problem(th.float32, make_optimizer)
    for problem in (held, literal):  # momentum from an earlier phase, which had no mask
        problem.run(20)
    before = frozen(held)
    held.run(30, MaskedStep(held.masked()))
    after = frozen(held)
    assert all(th.equal(before[name], after[name]) for name in MASKED_NAMES)
    # A gradient of zero does not hold Adam back
    before = frozen(literal)
    literal.run_gradient_mask(30)
    after = frozen(literal)
    assert all((before[name] - after[name]).abs().max() > 1e-3 for name in ("0.weight", "3.weight"))


@pytest.mark.parametrize("make_optimizer", [adam, fused_adam])
def test_moments_are_those_of_the_unmasked_run(make_optimizer: Optimizer) -> None:
    free, held = Problem(th.float32, make_optimizer), Problem(th.float32, make_optimizer)
    masks = MaskedStep(held.masked())
    free.run(1)
    held.run(1, masks)
    for problem in (free, held):  # the same gradients again
        problem.net.load_state_dict(problem.initial)
    free.run(1)
    held.run(1, masks)
    for of_free, of_held in zip(free.optimizer.state.values(), held.optimizer.state.values(), strict=True):
        assert th.equal(of_free["exp_avg"], of_held["exp_avg"])
        assert th.equal(of_free["exp_avg_sq"], of_held["exp_avg_sq"])


def test_with_plain_gradient_descent_both_readings_are_one() -> None:
    """Algorithm 2 as printed."""
    step, gradient = Problem(th.float64, sgd), Problem(th.float64, sgd)
    moved_by_step, moved_by_gradient = step.run(30, MaskedStep(step.masked())), gradient.run_gradient_mask(30)
    for name, movement in moved_by_step.items():
        th.testing.assert_close(movement, moved_by_gradient[name], rtol=1e-9, atol=1e-12)
    assert moved_by_step["3.weight"][0].norm() > 0.01


def test_mask_gradients_by_hand() -> None:
    weight, unused = nn.Parameter(th.zeros(3, 2)), nn.Parameter(th.zeros(3))
    weight.grad = th.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    mask = th.tensor([1, 0.5, 0], dtype=th.float64)
    mask_gradients([(weight, mask), (unused, mask)])
    assert weight.grad.tolist() == [[1, 2], [1.5, 2], [0, 0]]
    assert unused.grad is None


def movement_ratio(mode: str, seed: int, steps: int = 600) -> float:
    """Regression with two hidden layers: how far masked rows move, over how far the others do."""
    generator = th.Generator().manual_seed(seed)
    th.manual_seed(seed)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
    x = th.randn(256, 8, generator=generator)
    y = th.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:3]
    mask = th.ones(32)
    mask[::2] = 0.06
    masked = [(parameter, mask) for layer in (net[0], net[2]) for parameter in layer.parameters()]
    initial = [parameter.detach().clone() for parameter, _ in masked]
    optimizer = th.optim.Adam(net.parameters(), lr=1e-3)
    step = MaskedStep(masked)
    for _ in range(steps):
        batch = th.randint(256, (64,), generator=generator)
        optimizer.zero_grad()
        (net(x[batch]) - y[batch]).square().mean().backward()
        if mode == "gradient":
            mask_gradients(masked)
        take_masked_step(optimizer, [step] if mode == "step" else [])
    moved = [(parameter.detach() - old).view(32, -1) for (parameter, _), old in zip(masked, initial, strict=True)]
    rows = th.cat(moved, dim=1).norm(dim=1)
    return float(rows[::2].mean() / rows[1::2].mean())


@pytest.mark.parametrize("seed", [1, 2])
def test_under_adam_only_the_step_mask_holds_back(seed: int) -> None:
    """Measured elsewhere, after 2000 steps: 1.01 without a mask, 1.01 with the gradient mask, 0.056 with the step mask."""
    without = movement_ratio("none", seed)
    assert without == pytest.approx(1, abs=0.3)  # the two halves of the rows are not alike by chance
    assert movement_ratio("gradient", seed) / without == pytest.approx(1, abs=0.05)
    assert movement_ratio("step", seed) / without == pytest.approx(0.06, abs=0.02)


def test_skill_mask_by_hand() -> None:
    scores = th.tensor([0.5, 0.75, 1.0, 0.6], dtype=th.float64)
    selected = th.tensor([True, True, True, False])
    assert skill_mask(scores, selected).tolist() == pytest.approx([0.1, 0.05, 0, 1], abs=1e-15)
    assert skill_mask(scores, selected, alpha=1).tolist() == pytest.approx([0.5, 0.25, 0, 1], abs=1e-15)
    assert skill_mask(scores, selected, hard=True).tolist() == [0, 0, 0, 1]


def test_skill_mask_range() -> None:
    generator = th.Generator().manual_seed(0)
    scores = 0.5 + 0.5 * th.rand(1000, generator=generator, dtype=th.float64)
    selected = th.rand(1000, generator=generator) < 0.2
    mask = skill_mask(scores, selected)
    assert ((mask[selected] >= 0) & (mask[selected] <= 0.1)).all()
    assert (mask[~selected] == 1).all()  # exactly: these learn bit for bit as without a mask
    order = scores[selected].argsort()
    assert (mask[selected][order].diff() <= 0).all()  # the higher the score, the less it moves
