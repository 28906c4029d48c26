"""ReDo and random resets, against the definitions neuron by neuron."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from reset_checks import CASES, Case, Probe, SlowLayer, check_renewal, chosen_between, mean_of_feature, owned_features
from tagged_tasks import RecordingLogger, differing
from torch import nn

from sb3_nbsp import ContinualPPO, ReDoPPO, ReDoSAC
from sb3_nbsp.interventions import InnerDistillation, Intervention, RandomReset, ReDo
from sb3_nbsp.neurons.renewal import Initializer


def slow_scores(layers: list[SlowLayer], outputs: list[th.Tensor]) -> list[list[float]]:
    scores = []
    for layer, output in zip(layers, outputs, strict=True):
        sizes = [sum(mean_of_feature(output, f, True) for f in owned_features(layer, j)) for j in range(layer.n_neurons)]
        mean = sum(sizes) / len(sizes)
        scores.append([size / mean if mean else 0.0 for size in sizes])
    return scores


class Scores(Intervention):
    """The scores that a reset of ReDo is about to see."""

    def after_train(self) -> None:
        self._scores = self.agent.all_interventions.find(ReDo).scores()

    @property
    def scores(self) -> list[th.Tensor]:
        return self._scores


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("threshold", [None, 0.8])
def test_redo_equals_a_slow_version(name: str, threshold: float | None) -> None:
    case = CASES[name]
    redo = ReDo(64, 0.4, threshold, redo_states=50, **case.reset_options)
    first, scored, last = Probe(), Scores(), Probe()
    agent = case.agent([first, scored, redo, last])
    agent.learn(64)
    before, after = first.pictures["after train"][-1], last.pictures["after train"][-1]
    chosen = chosen_between({key: th.zeros_like(each) for key, each in redo.reset_counts.items()}, redo.reset_counts)
    check_renewal(before, after, case.layers, chosen, cuts=True)
    assert any(chosen)

    if "ppo" in name:
        observations = th.as_tensor(agent.rollout_buffer.observations.reshape(64, *agent.observation_space.shape))
        scores = slow_scores(case.layers, case.features(before.parameters, observations))
        for found, expected in zip(scored.scores, scores, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    else:
        scores = [each.tolist() for each in scored.scores]
    for layer, neurons, values in zip(case.layers, chosen, scores, strict=True):
        if threshold is None:
            assert neurons == sorted(np.argsort(values, kind="stable")[: int(0.4 * layer.n_neurons)])
        else:
            assert neurons == [j for j, value in enumerate(values) if value <= threshold]


def test_redo_on_sac_sees_a_draw_from_the_replay_buffer() -> None:
    case = CASES["sac-relu"]
    redo = ReDo(1000, 0.4, redo_states=5000)
    agent = case.agent([redo])
    agent.learn(60)
    with th.no_grad():
        params = {name: parameter.clone() for name, parameter in agent.policy.named_parameters()}
    rows = th.as_tensor(agent.replay_buffer.observations[:60, 0])
    # 5000 draws of 60 states: close to the mean over the states
    for found, expected in zip(redo.scores(), slow_scores(case.layers, case.features(params, rows)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0.1, atol=0.01)
    assert [each.tolist() for each in redo.scores()] == [each.tolist() for each in redo.scores()]
    numpy_state, torch_state = repr(np.random.get_state()), th.get_rng_state()
    redo.choose()
    assert repr(np.random.get_state()) == numpy_state
    assert th.equal(th.get_rng_state(), torch_state)


def test_two_of_256() -> None:
    """The paper's 1 % of layers of 256, rounded down: 2 per reset and layer (table 4: 1800 in 300 resets of 3 layers)."""
    agent = ReDoPPO("MlpPolicy", CASES["ppo-tanh"].env(), n_steps=16, policy_kwargs={"net_arch": [256, 256, 256]})
    agent.learn(16)
    redo = agent.all_interventions.find(ReDo)
    assert [len(neurons) for neurons in redo.choose()] == [2, 2, 2]
    redo.reset_rate = 0.29
    assert redo._share(100) == 29


def test_equality_with_the_threshold_counts() -> None:
    agent = CASES["ppo-relu"].agent([ReDo(dormant_threshold=0.0)], ent_coef=0.0)
    agent.learn(64)
    net = agent.policy.mlp_extractor.policy_net
    with th.no_grad():
        net[0].bias[2] = -1e6  # dead: its score is exactly 0
    redo = agent.all_interventions.find(ReDo)
    dead, score = redo.scores()
    assert dead[2] == 0
    assert redo.choose()[0].tolist() == th.nonzero(dead == 0).flatten().tolist()
    for neuron in range(6):
        redo.dormant_threshold = score[neuron].item()
        assert redo.choose()[1].tolist() == th.nonzero(score <= score[neuron]).flatten().tolist()


def test_a_layer_without_any_activation() -> None:
    agent = CASES["ppo-relu"].agent([ReDo(reset_rate=0.3)])
    agent.learn(64)
    with th.no_grad():
        agent.policy.mlp_extractor.policy_net[2].bias.fill_(-1e6)
    redo = agent.all_interventions.find(ReDo)
    assert redo.scores()[1].tolist() == [0.0] * 6
    assert redo.choose()[1].tolist() == [0]
    redo.dormant_threshold = 0.1
    assert redo.choose()[1].tolist() == list(range(6))


def test_redo_cleans_up() -> None:
    agent = CASES["ppo-tanh"].agent([ReDo(64, 0.3)])
    agent.learn(64)
    agent.policy.set_training_mode(True)
    agent.all_interventions.find(ReDo).choose()
    assert agent.policy.training
    assert not any(module._forward_hooks for module in agent.policy.modules())


@pytest.mark.parametrize("name", CASES)
def test_random_resets_renew_incoming_only(name: str) -> None:
    case = CASES[name]
    reset = RandomReset(64, 0.4, **case.reset_options)
    first, last = Probe(), Probe()
    case.agent([first, reset, last]).learn(64)
    chosen = [th.nonzero(counts).flatten().tolist() for counts in reset.reset_counts.values()]
    assert [len(neurons) for neurons in chosen] == [round(0.4 * layer.n_neurons) for layer in case.layers]
    check_renewal(first.pictures["after train"][-1], last.pictures["after train"][-1], case.layers, chosen, cuts=False)


def test_random_resets_lose_no_fraction() -> None:
    agent = CASES["ppo-tanh"].agent([RandomReset(64, 0.06)])
    reset = agent.all_interventions.find(RandomReset)
    numbers = [[len(neurons) for neurons in reset.choose()] for _ in range(100)]
    assert [sum(column) for column in zip(*numbers, strict=True)] == [42, 36]  # 100 * 0.06 of 7 and of 6
    assert {number for row in numbers for number in row} == {0, 1}
    ever = {int(neuron) for _ in range(100) for neuron in reset.choose()[0]}
    assert ever == set(range(7))
    assert [neurons.sort().values.tolist() for neurons in RandomReset.choose(_at_rate(agent, 1.0))] == [
        list(range(7)),
        list(range(6)),
    ]


def _at_rate(agent: Any, rate: float) -> RandomReset:
    reset = RandomReset(64, rate)
    reset.attach(agent)
    return reset


def test_clearing_moments_can_be_left_out() -> None:
    case = CASES["ppo-tanh"]
    for clear_moments in (False, True):
        first, last = Probe(), Probe()
        case.agent([first, ReDo(64, 0.4, clear_moments=clear_moments), last]).learn(64)
        before, after = first.pictures["after train"][-1], last.pictures["after train"][-1]
        assert differing(before.parameters, after.parameters)
        changed = [name for name, moments in before.moments.items() if differing(moments, after.moments[name])]
        assert bool(changed) == clear_moments


def test_new_neurons_are_drawn_with_the_initializer_of_the_policy() -> None:
    agent = CASES["ppo-tanh"].agent([RandomReset(64, 1.0)], policy_kwargs={"net_arch": [6, 6]})
    agent.learn(64)
    weight = agent.policy.mlp_extractor.policy_net[2].weight
    th.testing.assert_close(weight @ weight.t(), 2 * th.eye(6), rtol=0, atol=1e-5)
    assert not agent.policy.mlp_extractor.policy_net[2].bias.any()
    generator = th.Generator().manual_seed(0)
    weight, bias = Initializer().draw(nn.Linear(25, 400), generator)
    assert 0.19 < weight.abs().max() <= 0.2
    assert 0.19 < bias.abs().max() <= 0.2


@pytest.mark.parametrize("name", ["ppo-tanh", "sac-relu"])
@pytest.mark.parametrize("kind", [ReDo, RandomReset])
def test_inactive_it_is_the_same_agent(name: str, kind: Any) -> None:
    ends = []
    kwargs = {} if "ppo" in name else {"fused": False}
    for interventions in ([], [kind(1000, 0.5)]):
        agent = CASES[name].agent(interventions, **kwargs)
        agent.learn(130 if "ppo" in name else 60)
        ends.append({key: tensor.clone() for key, tensor in agent.policy.state_dict().items()})
        assert agent._n_updates > 0
    assert differing(*ends) == []


@pytest.mark.parametrize("name", ["ppo-tanh", "ppo-crelu", "sac-relu", "ppo-conv"])
@pytest.mark.parametrize("kind", [ReDo, RandomReset])
def test_with_inner_distillation(name: str, kind: Any) -> None:
    case = CASES[name]
    options = dict(case.reset_options)
    distillation = InnerDistillation(max_distill_epochs=2, distill_states=64)
    reset = kind(64, 0.4, **options)
    agent = case.agent([reset, distillation])
    logger = RecordingLogger()
    agent.set_logger(logger)
    agent.learn(128)
    assert distillation.epochs >= 2
    assert len(logger.values("distillation/loss")) == 2 == len(logger.values("resets/total"))


@pytest.mark.parametrize("cls", [ReDoPPO, ReDoSAC])
def test_thin_classes(cls: type) -> None:
    base = CASES["ppo-tanh" if issubclass(cls, ContinualPPO) else "sac-relu"]
    case = Case(cls, base.env, base.layers, base.function, base.policy_kwargs)
    options: dict[str, Any] = {"reset_frequency": 30, "reset_rate": 0.5, "redo_states": 20, "clear_moments": False}
    agent = case.agent([], **options)
    assert vars(agent.all_interventions.find(ReDo)).items() >= {**options, "dormant_threshold": None}.items()
    agent.learn(64)
    assert any(counts.any() for counts in agent.all_interventions.find(ReDo).reset_counts.values())
    by_threshold = case.agent([], dormant_threshold=0.1)
    assert by_threshold.all_interventions.find(ReDo).dormant_threshold == 0.1
    assert by_threshold.reset_frequency == (50_000 if cls is ReDoPPO else 10_000)


BAD = {
    "reset_frequency": [0, 1.5, None],
    "reset_rate": [0, 1.1, None, float("nan")],
    "clear_moments": ["yes", None],
    "renew_shared": ["yes", None],
}
BAD_REDO = {**BAD, "dormant_threshold": [-0.1, "0.1", float("nan"), True], "redo_states": [0, 1.5, None]}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD_REDO.items() for value in values])
def test_bad_options_of_redo(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        ReDo(**{name: value})
    with pytest.raises(ValueError, match=name):
        ReDoPPO("MlpPolicy", CASES["ppo-tanh"].env(), **{name: value})


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_bad_options_of_random_resets(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        RandomReset(**{name: value})


def test_at_least_one_neuron() -> None:
    """1 % of layers of 7 and 6 neurons."""
    agent = CASES["ppo-tanh"].agent([ReDo()])
    agent.learn(64)
    assert [len(neurons) for neurons in agent.all_interventions.find(ReDo).choose()] == [1, 1]


class Residual(nn.Module):
    """What reads the layer reads its sum with something else."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.out = nn.Sequential(nn.Linear(4, 6), nn.ReLU())

    def forward(self, x: th.Tensor) -> th.Tensor:
        return self.out(self.hidden(x) + x)


def test_outgoing_weights_that_cannot_be_told_are_refused_at_once() -> None:
    class Wide(ContinualPPO):
        def _setup_model(self) -> None:
            self.interventions, kept = [], self.interventions
            super()._setup_model()
            self.policy.mlp_extractor.policy_net = Residual()
            vars(self)["interventions"] = kept  # once there are hooks, it can no longer be set
            for each in kept:
                each.attach(self)

    case = CASES["ppo-tanh"]
    other = Case(Wide, case.env, case.layers, case.function, {"net_arch": [6]})
    other.agent([RandomReset()])
    with pytest.raises(ValueError, match="cannot be told which weights read the neurons of"):
        other.agent([ReDo(reset_rate=0.5)])
