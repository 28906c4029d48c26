from fractions import Fraction

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from torch import nn

from sb3_nbsp.neurons import (
    activation_score,
    active_share,
    balanced_score,
    find_neuron_layers,
    goal_oriented_score,
    random_score,
    record_activations,
    select_top,
    weight_score,
)
from sb3_nbsp.neurons.layers import split_by_layer
from sb3_nbsp.neurons.scores import dead_neurons


def slow_score(activations: np.ndarray, goal_metric: np.ndarray, balanced: bool = False) -> list[float]:
    """Equations 1 to 4 step by step in exact fractions; or with successes and failures counted alike."""
    steps, neurons = activations.shape
    q = [Fraction(float(value)) for value in goal_metric]
    q_mean = sum(q) / steps
    scores = []
    for neuron in range(neurons):
        a = [Fraction(float(value)) for value in activations[:, neuron]]
        a_mean = sum(a) / steps
        agree, total = {True: 0, False: 0}, {True: 0, False: 0}
        for t in range(steps):
            success = q[t] > q_mean
            total[success] += 1
            if (a[t] > a_mean) == success:
                agree[success] += 1
        r_over = Fraction(sum(agree.values()), steps)
        if balanced:
            r_over = sum(Fraction(agree[each], total[each]) for each in total) / 2 if total[True] else Fraction(1, 2)
        scores.append(float(max(r_over, 1 - r_over)))
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
@pytest.mark.parametrize("balanced", [True, False])
def test_equals_slow_version(seed: int, balanced: bool) -> None:
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
        score = balanced_score if balanced else goal_oriented_score
        scores = score(th.from_numpy(activations), th.from_numpy(metric))
        np.testing.assert_allclose(scores.numpy(), slow_score(activations, metric, balanced), atol=1e-12)
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
    assert goal_oriented_score(activations, q).item() == pytest.approx(max(mean, 1 - mean), abs=1e-12)
    assert balanced_score(activations, q).item() == pytest.approx(0.5, abs=1e-12)
    assert dead_neurons(activations).tolist() == [True] and active_share(activations).item() == 0


def test_a_neuron_that_moves_once_is_not_dead() -> None:
    activations = th.zeros(100, 2)
    activations[99, 1] = 1e-6
    q = th.zeros(100)
    q[99] = 1
    assert dead_neurons(activations).tolist() == [True, False]
    assert active_share(activations).tolist() == [0, 0.01]
    assert goal_oriented_score(activations, q).tolist() == [0.99, 1.0]


def test_active_share_by_hand() -> None:
    activations = th.tensor([[0.0, 1, 5, 2], [0.0, 1, 5, -2], [0.0, 1, 5, 2], [4.0, -7, 5, -2]])
    # Above their means of 1, -1, 5 and 0: one step, three, none, two
    assert active_share(activations).tolist() == [0.25, 0.25, 0, 0.5]


def test_balanced_score_by_hand() -> None:
    q = th.tensor([0.0, 0, 0, 0, 0, 0, 0, 0, 1, 1])  # mean 0.2
    never, half, opposite = th.zeros(10), th.zeros(10), th.ones(10)
    never[0] = 1  # of ten steps above its mean on one, without success: printed 0.7, by its rarity alone
    half[[0, 2, 4, 6, 8]] = 1  # on half of the failures and half of the successes
    opposite[[7, 8, 9]] = 0  # on seven of the failures and on no success
    activations = th.stack([never, half, opposite], dim=1)
    # True positives 0, 1/2, 0; true negatives 7/8, 1/2, 1/8
    assert balanced_score(activations, q).tolist() == pytest.approx([1 - 7 / 16, 0.5, 1 - 1 / 16], abs=1e-12)
    assert goal_oriented_score(activations, q).tolist() == pytest.approx([0.7, 0.5, 0.9], abs=1e-12)


def test_balanced_score_of_a_constant_goal_says_nothing() -> None:
    assert balanced_score(th.randn(20, 3), th.ones(20)).tolist() == [0.5] * 3


def test_both_scores_are_the_same_if_half_of_the_steps_are_successes() -> None:
    generator = th.Generator().manual_seed(0)
    activations, q = th.randn(400, 30, generator=generator), th.arange(400) % 2
    th.testing.assert_close(balanced_score(activations, q), goal_oriented_score(activations, q))


@pytest.mark.parametrize("rate", [0.5, 0.3, 0.2, 0.1])
def test_only_the_balanced_score_ranks_an_informative_neuron_above_rare_ones(rate: float) -> None:
    generator, steps = th.Generator().manual_seed(0), 10_000
    q = (th.rand(steps, generator=generator) < rate).float()
    near_dead = th.zeros(steps)
    near_dead[:3] = 1e-5
    rare = th.relu(th.randn(steps, generator=generator) - 2)  # active on 2 % of the steps, whatever the goal
    informative = q + 0.7 * th.randn(steps, generator=generator)
    activations = th.stack([near_dead, rare, informative], dim=1)
    printed, balanced = goal_oriented_score(activations, q), balanced_score(activations, q)
    assert balanced[2] > 0.7 and balanced[:2].max() < 0.52
    assert (printed[0] > printed[2]) == (rate <= 0.2)  # the rarer the success, the better the neuron that is never active
    assert (active_share(activations) >= 0.01).tolist() == [False, True, True]


def test_a_goal_by_chance_picks_neurons_of_all_layers_by_the_balanced_score_only() -> None:
    """A coin of 5 % has nothing to do with what SAC's actor does: the printed score takes the rarely active layer."""
    env = gym.make("HalfCheetah-v5")
    model = SAC("MlpPolicy", env, seed=0, buffer_size=1, device="cpu")
    env.action_space.seed(0)
    observations = [env.reset(seed=0)[0]]
    while len(observations) < 4000:
        observation, _, _, truncated, _ = env.step(env.action_space.sample())
        observations.append(env.reset()[0] if truncated else observation)
    layers = find_neuron_layers([("actor", model.actor.latent_pi)])
    seen = th.as_tensor(np.array(observations), dtype=th.float32)
    activations = record_activations(model.actor.latent_pi, [seen], layers)
    q = th.rand(len(seen), generator=th.Generator().manual_seed(0)) < 0.05
    shares = {}
    for score in (goal_oriented_score, balanced_score):
        chosen = select_top(score(activations, q.float()), 0.2, active_share(activations) >= 0.01)
        shares[score] = chosen[256:].double().mean() / (chosen.double().mean() * 2)
    assert shares[goal_oriented_score] > 0.9
    assert 0.3 < shares[balanced_score] < 0.7


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
    # The number counts the eligible: 0.6 of three are two
    assert select_top(scores, 0.6, eligible).tolist() == [False, True, False, True, False]
    assert select_top(scores, 0.3, eligible).tolist() == [False, True, False, False, False]
    assert select_top(scores, 1, eligible).tolist() == eligible.tolist()
    assert not select_top(scores, 0.4, th.zeros(5, dtype=th.bool)).any()


def test_the_whole_network_is_ranked_together() -> None:
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))
    scores = th.tensor([0.60, 0.61, 0.62, 0.63, 0.5, 0.9, 0.8, 0.5, 0.5, 0.5])
    parts = split_by_layer(select_top(scores, 0.2), find_neuron_layers([("net", net)]))
    # Per layer it would be one neuron of each
    assert parts["net.0"].sum() == 0
    assert parts["net.2"].tolist() == [False, True, True, False, False, False]
