from fractions import Fraction

import numpy as np
import pytest
import torch as th
from torch import nn

from sb3_nbsp.neurons import (
    activation_score,
    find_neuron_layers,
    goal_oriented_score,
    random_score,
    select_top,
    weight_score,
)
from sb3_nbsp.neurons.layers import split_by_layer
from sb3_nbsp.neurons.scores import dead_neurons


def slow_score(activations: np.ndarray, goal_metric: np.ndarray, exclude_dead: bool) -> list[float]:
    """Equations 1 to 4 step by step in exact fractions."""
    steps, neurons = activations.shape
    q = [Fraction(float(value)) for value in goal_metric]
    q_mean = sum(q) / steps
    scores = []
    for neuron in range(neurons):
        a = [Fraction(float(value)) for value in activations[:, neuron]]
        a_mean = sum(a) / steps
        agree = 0
        for t in range(steps):
            if (a[t] > a_mean) == (q[t] > q_mean):
                agree += 1
        r_over = Fraction(agree, steps)
        score = max(r_over, 1 - r_over)
        if exclude_dead and len(set(a)) == 1:
            score = Fraction(1, 2)
        scores.append(float(score))
    return scores


def test_three_neurons_by_hand() -> None:
    q = th.tensor([0.0, 0, 1, 1])  # mean 0.5: steps 2 and 3 are above
    activations = th.tensor(
        [
            [0.0, 3, 1],
            [1.0, 2, 3],
            [2.0, 0, 1],
            [5.0, 1, 3],
        ]
    )
    # Neuron 0, mean 2: only step 3 is above (step 2 is at the mean), so it agrees at 0, 1, 3: R_over 0.75
    # Neuron 1, mean 1.5: steps 0 and 1 are above, it never agrees: R_over 0, a negative correlation, which counts
    # Neuron 2, mean 2: steps 1 and 3 are above, it agrees at 0 and 3: R_over 0.5
    assert goal_oriented_score(activations, q).tolist() == [0.75, 1.0, 0.5]


def test_three_neurons_of_a_network_by_hand() -> None:
    net = nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 1))
    net[0].weight.data = th.tensor([[1.0], [-1.0], [1.0]])
    net[0].bias.data = th.tensor([0.0, 2.0, -3.0])
    observations = th.tensor([[0.0], [1.0], [2.0], [4.0], [3.0]])
    activations = net[:2](observations)
    # relu(x): 0 1 2 4 3, mean 2; relu(2 - x): 2 1 0 0 0, mean 0.6; relu(x - 3): 0 0 0 1 0, mean 0.2
    returns = th.tensor([10.0, 20.0, 30.0, 60.0, 30.0])  # mean 30: only step 3 is above
    # above: F F F T T, agrees at 0 1 2 3; T T F F F, agrees at 2 and 4; F F F T F, agrees always
    assert goal_oriented_score(activations, returns).tolist() == pytest.approx([0.8, 0.6, 1.0], abs=1e-12)


def test_goal_metric_at_its_mean_is_no_success() -> None:
    q = th.tensor([0.0, 1, 2, 1])  # mean 1: only step 2 is above
    activations = th.tensor([[0.0, 0], [0, 1], [1, 1], [0, 1]])
    assert goal_oriented_score(activations, q).tolist() == [1.0, 0.5]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("exclude_dead", [True, False])
def test_equals_slow_version(seed: int, exclude_dead: bool) -> None:
    generator = np.random.default_rng(seed)
    steps, neurons = int(generator.integers(2, 60)), 9
    # Multiples of 1/8, with ReLU: many ties with the mean and dead neurons
    activations = np.maximum(generator.integers(-20, 20, (steps, neurons)) / 8, 0).astype(np.float32)
    activations[:, 3] = 0.375
    activations[:, 5] = 0
    activations[:, 7] = generator.normal(size=steps)
    metrics = [
        (generator.random(steps) < 0.3).astype(np.float32),
        generator.integers(-3, 4, steps).astype(np.float32),
        generator.normal(size=steps).astype(np.float32),
    ]
    for metric in metrics:
        scores = goal_oriented_score(th.from_numpy(activations), th.from_numpy(metric), exclude_dead)
        np.testing.assert_allclose(scores.numpy(), slow_score(activations, metric, exclude_dead), atol=1e-12)
        assert ((scores >= 0.5) & (scores <= 1)).all()


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e-8, 12345.678])
@pytest.mark.parametrize("successes", [1000, 6007])
def test_dead_neuron(value: float, successes: int) -> None:
    steps = 10_007
    activations = th.full((steps, 1), value)
    q = th.zeros(steps)
    q[:successes] = 1
    # Never above its own mean, so it agrees with every failure
    mean = successes / steps
    literal = goal_oriented_score(activations, q, exclude_dead=False)
    assert literal.item() == pytest.approx(max(mean, 1 - mean), abs=1e-12)
    assert goal_oriented_score(activations, q).item() == 0.5
    assert dead_neurons(activations).tolist() == [True]


def test_a_neuron_that_moves_once_is_not_dead() -> None:
    activations = th.zeros(100, 2)
    activations[99, 1] = 1e-6
    q = th.zeros(100)
    q[99] = 1
    assert dead_neurons(activations).tolist() == [True, False]
    assert goal_oriented_score(activations, q).tolist() == [0.5, 1.0]


@pytest.mark.parametrize("width", [1, 16])
def test_mean_of_a_large_activation_that_varies_little(width: int) -> None:
    """A mean summed up in single precision would be off by more than what the neuron varies."""
    steps = 10_000
    q = (th.arange(steps) % 3 == 0).float()
    activations = (12345.5 + q / 256).unsqueeze(1).repeat(1, width)
    assert goal_oriented_score(activations, q).tolist() == [1] * width


def test_activation_score_by_hand() -> None:
    assert activation_score(th.tensor([[-1.0, 2.0, 0.0], [3.0, -4.0, 0.0]])).tolist() == [2, 3, 0]


def test_weight_score_by_hand() -> None:
    conv, linear = nn.Conv2d(2, 2, (1, 2)), nn.Linear(2, 3)
    conv.weight.data = th.tensor([[[[1.0, -2.0]], [[3.0, 0.0]]], [[[0.0, 0.0]], [[-0.5, 0.5]]]])
    linear.weight.data = th.tensor([[1.0, -2.0], [0.0, 0.0], [5.0, -3.0]])
    conv.bias.data.fill_(100)  # not part of it
    linear.bias.data.fill_(100)
    layers = find_neuron_layers([("conv", conv), ("a", nn.ReLU()), ("linear", linear), ("b", nn.ReLU())])
    assert weight_score(layers).tolist() == [1.5, 0.25, 1.5, 0, 4]


def test_random_score_has_a_stream_of_its_own() -> None:
    before = th.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()
    first, again, other = (random_score(50, th.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert th.equal(first, again)
    assert not th.equal(first, other)
    assert len(first.unique()) == 50
    assert ((first >= 0) & (first < 1)).all()
    assert th.equal(before, th.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()


@pytest.mark.parametrize(
    ("neurons", "proportion", "number"),
    [(10, 0.2, 2), (8, 0.2, 2), (7, 0.2, 1), (512, 0.2, 102), (2304, 0.2, 461), (6, 1, 6), (9, 0.05, 0)],
)
def test_number_of_selected_is_rounded(neurons: int, proportion: float, number: int) -> None:
    scores = th.linspace(0.5, 1, neurons)
    selected = select_top(scores, proportion)
    assert selected.sum() == number
    assert not selected[: neurons - number].any()  # the highest are at the end


def test_ties_are_broken_by_position() -> None:
    scores = th.tensor([0.6, 0.9, 0.6, 0.6, 0.5])
    assert select_top(scores, 0.4).tolist() == [True, True, False, False, False]
    assert select_top(scores, 0.6).tolist() == [True, True, True, False, False]
    # Also where an unstable sort would not keep the order by chance
    many = th.full((5000,), 0.75)
    assert select_top(many, 0.2).nonzero().flatten().tolist() == list(range(1000))


def test_ineligible_are_never_selected() -> None:
    scores = th.tensor([1.0, 0.9, 0.8, 0.7, 0.6])
    eligible = th.tensor([False, True, False, True, True])
    # The number counts all neurons: 0.4 of five are two
    assert select_top(scores, 0.4, eligible).tolist() == [False, True, False, True, False]
    # Fewer are eligible than may be selected
    assert select_top(scores, 1, eligible).tolist() == eligible.tolist()
    assert not select_top(scores, 0.4, th.zeros(5, dtype=th.bool)).any()


def test_the_whole_network_is_ranked_together() -> None:
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))
    scores = th.tensor([0.60, 0.61, 0.62, 0.63, 0.5, 0.9, 0.8, 0.5, 0.5, 0.5])
    parts = split_by_layer(select_top(scores, 0.2), find_neuron_layers([("net", net)]))
    # Per layer it would be one neuron of each
    assert parts["net.0"].sum() == 0
    assert parts["net.2"].tolist() == [False, True, True, False, False, False]
