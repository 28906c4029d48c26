"""Neuron-level plasticity control: importances, learning rates, and that neurons freeze when the formula says so."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import gymnasium as gym
import pytest
import torch as th
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from tagged_tasks import ImageTask, RecordingLogger, differing, parameters, random_states, tagged_sequence, tiny
from torch import nn

from sb3_nbsp import NPCSAC, ContinualSAC, NPCDiscreteSAC
from sb3_nbsp.interventions import NPC, ClonEx, Intervention
from sb3_nbsp.interventions.npc import learning_rates
from sb3_nbsp.neurons import NeuronLayer
from sb3_nbsp.neurons.crelu import CReLU
from sb3_nbsp.neurons.utility import taylor_importance
from sb3_nbsp.tasks import TaskSequence


def npc_of(agent: Any) -> Any:
    return agent.all_interventions.find(NPC)


def layer_of(linear: Any, activation: nn.Module | None = None) -> NeuronLayer:
    return NeuronLayer("layer", linear, nn.ReLU() if activation is None else activation)


def test_importance_by_hand() -> None:
    activation = th.tensor([[1.0, 0.0], [2.0, 1.0]])
    gradient = th.tensor([[3.0, 5.0], [-1.0, 2.0]]) / 2  # of the mean of two samples: ĉ = (2.5, 1)
    found = taylor_importance(layer_of(nn.Linear(1, 2)), activation, gradient)
    th.testing.assert_close(found, th.tensor([1.313064, 0.525226]))
    assert found.square().mean().item() == pytest.approx(1)
    doubled = taylor_importance(layer_of(nn.Linear(1, 2)), activation.repeat(2, 1), gradient.repeat(2, 1) / 2)
    th.testing.assert_close(doubled, found)
    assert not taylor_importance(layer_of(nn.Linear(1, 2)), 0 * activation, gradient).any()


def test_positions_are_averaged_before_the_absolute_value() -> None:
    activation = th.tensor([[[[1.0, -1.0]], [[1.0, 1.0]]]])  # one sample, two channels, 1 × 2 positions
    found = taylor_importance(layer_of(nn.Conv2d(1, 2, 1)), activation, th.full((1, 2, 1, 2), 2.0))
    th.testing.assert_close(found, th.tensor([0.0, math.sqrt(2)]))


def test_the_two_features_of_a_neuron_are_taken_together() -> None:
    activation = th.tensor([[1.0, 0.0, 0.0, 3.0]])  # relu(x) of two neurons, then relu(-x)
    gradient = th.tensor([[1.0, 9.0, 9.0, -1.0]])
    found = taylor_importance(layer_of(nn.Linear(1, 2), CReLU()), activation, gradient)
    th.testing.assert_close(found, th.tensor([1.0, 3.0]) / math.sqrt(5))


def test_learning_rates_by_hand() -> None:
    importance = th.tensor([1.0, 0.25, 0.0])
    rates = {t: learning_rates(importance, t, beta=4.0, alpha=1.0).tolist() for t in (1, 2, 4, 8, 16)}
    for t, expected in {1: (1, 1), 2: (0.643594, 1), 4: (0, 1), 8: (0, 0.643594), 16: (0, 0)}.items():
        assert rates[t] == pytest.approx([*expected, 1], abs=1e-6)
    assert learning_rates(importance, 2, beta=4.0, alpha=0.5)[0].item() == pytest.approx(0.643594 / 2, abs=1e-6)


class Gradients(Intervention):
    """Of a single sample: activation times gradient is the sum of weights times their gradients over what reads the neuron."""

    def attach(self, agent: Any) -> None:
        super().attach(agent)
        self._found: dict[str, th.Tensor] = {}

    def before_step(self, network: Any) -> None:
        for of, layer in npc_of(self.agent)._layers:
            if of == network:
                terms = [(each.weight.grad * each.weight).sum(0) for each in layer.consumers]
                self._found[layer.name] = th.stack(terms).sum(0)[: layer.n_neurons].abs().detach()


@pytest.mark.parametrize("penalty", [False, True])
def test_importances_are_those_of_the_losses_own_pass(penalty: bool) -> None:
    gradients, others = Gradients(), [ClonEx(clone_coef=1.0, clone_critic_coef=1.0)] if penalty else []
    agent = tiny(NPCSAC, tagged_sequence(), npc_delta=0.0, batch_size=1, interventions=[gradients, *others])
    agent.learn(100 if penalty else 23)
    assert set(npc_of(agent).importances) == {
        f"{of}.{n}" for of in ("actor.latent_pi", "critic.qf0", "critic.qf1") for n in (0, 2)
    }
    for name, found in npc_of(agent).importances.items():
        expected = gradients._found[name]
        expected = expected / expected.square().mean().sqrt()
        same = th.allclose(found, expected, rtol=1e-3, atol=1e-4)
        assert same is not penalty, "gradients of weights are those of the penalty, too"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_several_passes_the_first_counts(order: tuple[int, int]) -> None:
    """The loss's own, whether its gradient comes before or after that of a penalty's pass."""
    npc = npc_of(tiny(NPCSAC, tagged_sequence()))
    npc.on_batch(None)
    _, layer = npc._layers[0]
    outputs = [th.rand(4, layer.n_neurons, requires_grad=True) for _ in order]
    gradients = [th.rand(4, layer.n_neurons) for _ in order]
    for output in outputs:
        npc.watch(0, output)
    for n in order:
        outputs[n].backward(gradients[n])
    th.testing.assert_close(npc._found[layer.name][1], taylor_importance(layer, outputs[0].detach(), gradients[0]))


def test_the_running_average() -> None:
    agents = [tiny(NPCSAC, tagged_sequence(), npc_delta=delta).learn(21) for delta in (0.0, 0.9)]
    assert agents[0]._n_updates == 1
    for name, found in npc_of(agents[1]).importances.items():
        th.testing.assert_close(found, 0.1 * npc_of(agents[0]).importances[name])


class Frozen(Intervention):
    """Which parameters have moved in each gradient step."""

    def attach(self, agent: Any) -> None:
        super().attach(agent)
        self._moved: list[dict[str, th.Tensor]] = []
        self._rates: list[dict[str, th.Tensor]] = []

    def on_batch(self, data: Any) -> None:
        self._before = parameters(self.agent)

    def after_step(self, network: Any) -> None:
        if network == "actor":
            self._moved.append({name: value != self._before[name] for name, value in parameters(self.agent).items()})
            self._rates.append({name: rates.clone() for name, rates in npc_of(self.agent).masks.items()})


def test_neurons_freeze_when_the_formula_says_so() -> None:
    frozen = Frozen()
    options = {"npc_beta": 30.0, "npc_delta": 0.5, "output_layers": True}
    agent = tiny(NPCSAC, tagged_sequence(["red"], 1, 1000), interventions=[frozen], **options)
    agent.learn(20)
    agent.learn(110, reset_num_timesteps=False)
    named = dict(agent.policy.named_modules())
    n_frozen = 0
    for moved, rates in zip(frozen._moved, frozen._rates, strict=True):
        for name, rate in rates.items():
            layer: Any = named[name]
            still = rate == 0
            n_frozen += int(still.sum())
            assert not moved[f"{name}.weight"][still].any() and not moved[f"{name}.bias"][still].any()
            assert layer.weight.shape[0] == len(rate)
    assert n_frozen > 1000
    # A single output has an importance that tends to 1: full rate until a quarter of β, frozen from β on
    rates = [each["critic.qf0.4"].item() for each in frozen._rates]
    assert rates[:7] == [1.0] * 7 and 0 < rates[20] < 1 and rates[29:] == [0.0] * len(rates[29:])
    moved = [bool(each["critic.qf0.4.weight"].any()) for each in frozen._moved]
    assert all(moved[:28]) and not any(moved[29:])
    th.testing.assert_close(
        frozen._rates[20]["critic.qf0.4"], learning_rates(th.tensor([1 - 0.5**21]), 21, 30.0, 1.0), rtol=1e-4, atol=1e-5
    )


def test_output_layers_are_free_unless_they_are_told() -> None:
    frozen = Frozen()
    agent = tiny(NPCSAC, tagged_sequence(["red"], 1, 1000), npc_beta=1e-6, npc_delta=0.0, interventions=[frozen])
    agent.learn(60)
    moved, rates = frozen._moved[-1], npc_of(agent).masks
    heads = {"actor.mu", "actor.log_std", "critic.qf0.4", "critic.qf1.4"}
    assert all(moved[f"{head}.weight"].any() for head in heads) and not heads & set(rates)
    assert all((rate == 0).float().mean() > 0.5 for rate in rates.values())
    assert not any(moved[f"{name}.weight"][rate == 0].any() for name, rate in rates.items())


def test_by_default_all_are_free_in_the_first_phase_and_average_neurons_freeze_after_four() -> None:
    agent = tiny(NPCSAC, tagged_sequence(), npc_delta=0.9).learn(60)
    npc = npc_of(agent)
    assert npc.masks == {} and npc.needs_autograd()
    agent.learn(81, reset_num_timesteps=False)
    steps = npc._t["critic"]
    assert npc._beta() == 4 * npc._first_phase and 35 <= npc._first_phase < steps
    for name, rates in npc.masks.items():
        th.testing.assert_close(rates, learning_rates(npc.importances[name], steps, npc._beta(), 1.0))


def test_the_clock_of_phases() -> None:
    agent = tiny(NPCSAC, tagged_sequence(), npc_clock="phases", npc_delta=0.9, npc_beta=2.0).learn(61)
    npc = npc_of(agent)
    first = {name: rates.clone() for name, rates in npc.masks.items()}
    at_end = {name: values.clone() for name, values in npc._largest.items()}
    agent.learn(58, reset_num_timesteps=False)
    assert not differing(first, npc.masks), "rates are fixed within a phase"
    assert differing(at_end, npc.importances)
    for name, rates in first.items():
        th.testing.assert_close(rates, learning_rates(at_end[name], 1, 2.0, 1.0))
    agent.learn(5, reset_num_timesteps=False)
    for name, rates in npc.masks.items():
        assert (npc._largest[name] >= at_end[name]).all()
        th.testing.assert_close(rates, learning_rates(npc._largest[name], 2, 2.0, 1.0))


@pytest.mark.parametrize("options", [{"fused": False}, {}])
def test_with_an_infinite_beta_it_is_plain_and_as_fast(options: dict[str, Any]) -> None:
    ends = []
    for cls, own in ((ContinualSAC, {}), (NPCSAC, {"npc_beta": math.inf})):
        agent = tiny(cls, tagged_sequence(), **own, **options).learn(130)
        assert agent._is_by_hand() is (options == {})
        ends.append((parameters(agent), random_states()))
    assert not differing(ends[0][0], ends[1][0]) and ends[0][1] == ends[1][1]
    assert not any(importance.any() for importance in npc_of(agent).importances.values())


def test_as_long_as_all_rates_are_one_it_is_plain() -> None:
    ends = [
        parameters(tiny(cls, tagged_sequence(), fused=False, **own).learn(130))
        for cls, own in ((ContinualSAC, {}), (NPCSAC, {"npc_beta": 1e9}))
    ]
    assert not differing(*ends)


def test_images_and_records() -> None:
    options = {"policy_kwargs": {"net_arch": [8], "features_extractor_kwargs": {"features_dim": 16}}, "batch_size": 4}
    agent = tiny(NPCSAC, ImageTask(), policy="CnnPolicy", buffer_size=50, learning_starts=5, **options)
    agent.set_logger(logger := RecordingLogger())
    agent.start_phase("red")
    agent.learn(10)
    agent.start_phase("blue")
    agent.learn(20, reset_num_timesteps=False)
    found = npc_of(agent).importances
    assert len(found["actor.features_extractor.cnn.0"]) == 32 and len(found["critic.features_extractor.linear.0"]) == 16
    assert all(importance.any() for importance in found.values())
    agent.start_phase("red")
    assert 0 < logger.values("npc/actor_mean_rate")[-1] <= 1 and logger.values("npc/critic_frozen_share")[-1] >= 0


@pytest.mark.parametrize("cls", [NPCSAC, NPCDiscreteSAC])
def test_a_shared_features_extractor_is_held_back_by_the_loss_that_moves_it(cls: Any) -> None:
    makers = dict.fromkeys(("red", "blue"), partial(gym.make, "CartPole-v1" if cls is NPCDiscreteSAC else "Pendulum-v1"))
    agent = tiny(
        cls, TaskSequence(makers, steps_per_task=40, mastery_threshold=None), npc_delta=0.0, policy_kwargs=dict(SHARED)
    )
    agent.learn(30)
    (name, importance), *others = [each for each in npc_of(agent).importances.items() if "features_extractor" in each[0]]
    assert importance.any() and not others, name
    assert [of for of, layer in npc_of(agent)._layers if layer.name == name] == [
        "critic" if cls is NPCDiscreteSAC else "actor"
    ]


class Extractor(BaseFeaturesExtractor):
    def __init__(self, space: Any) -> None:
        super().__init__(space, 6)
        self.net = nn.Sequential(nn.Linear(space.shape[0], 6), nn.Tanh())

    def forward(self, observations: th.Tensor) -> th.Tensor:
        features: th.Tensor = self.net(observations)
        return features


SHARED = {"net_arch": [8], "share_features_extractor": True, "features_extractor_class": Extractor}


@pytest.mark.parametrize(
    "wrong",
    [
        {"npc_beta": 0.0},
        {"npc_beta": float("nan")},
        {"npc_alpha": -1.0},
        {"npc_delta": 1.0},
        {"output_layers": 2},
        {"npc_clock": "epochs"},
    ],
)
def test_bad_options(wrong: dict[str, Any]) -> None:
    ((name, _),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} must be"):
        tiny(NPCSAC, tagged_sequence(), **wrong)


def test_networks_whose_neurons_cannot_be_held_back() -> None:
    with pytest.raises(ValueError, match="net_arch gives the network 'actor' no hidden layer to hold back"):
        tiny(NPCSAC, tagged_sequence(), policy_kwargs={"net_arch": []})
    agent = tiny(NPCSAC, tagged_sequence())
    agent.actor.latent_pi[0] = nn.Sequential(agent.actor.latent_pi[0], nn.BatchNorm1d(8))
    with pytest.raises(ValueError, match="cannot be frozen: their batch norm"):
        agent.learn(1)


class DoubleExtractor(FlattenExtractor):
    """SB3 hands observations over in single precision."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return super().forward(observations.double())


def test_networks_in_double_precision() -> None:
    """As torch.set_default_dtype(torch.float64) makes them."""
    before = th.get_default_dtype()
    th.set_default_dtype(th.float64)
    try:
        agent = tiny(NPCSAC, tagged_sequence(), policy_kwargs={"net_arch": [8], "features_extractor_class": DoubleExtractor})
        agent.learn(100)
    finally:
        th.set_default_dtype(before)
    assert agent.phase.index == 1 and next(agent.actor.parameters()).dtype is th.float64
    assert npc_of(agent).masks and all(importance.any() for importance in npc_of(agent).importances.values())
