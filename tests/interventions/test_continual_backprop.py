"""Continual backpropagation against a slow version that goes neuron by neuron."""

from __future__ import annotations

from typing import Any

import pytest
import torch as th
from cbp_checks import DECAY, MATURITY, RATE, Counts, SlowCBP
from reset_checks import CASES, Case, Probe, check_renewal, chosen_between, record_batches
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from tagged_tasks import differing

from sb3_nbsp import CBPPPO, CBPSAC, ContinualPPO
from sb3_nbsp.algorithms.autograd_sac import AutogradGradients
from sb3_nbsp.interventions import ContinualBackprop


@pytest.mark.parametrize("name", CASES)
def test_equals_a_slow_version(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    batches = record_batches(monkeypatch)
    cbp = ContinualBackprop(RATE, MATURITY, DECAY, **case.reset_options)
    counts, last, first = Counts(), Probe(), Probe()
    # Behind a step, the last of the list acts first
    agent = case.agent([counts, last, cbp, first])
    agent.learn(128 if "ppo" in name else 45)
    n_steps = len(batches)
    assert n_steps == (16 if "ppo" in name else 25)
    slow = SlowCBP(case)
    previous = {key: th.zeros_like(each) for key, each in counts.book[0].items()}
    replaced = 0
    for i in range(n_steps):
        before = first.pictures["after step"][i]
        chosen, means = slow.step(batches[i], first.pictures["before step"][i], before)
        assert chosen_between(previous, counts.book[i]) == chosen, i
        check_renewal(before, last.pictures["after step"][i], case.layers, chosen, cuts=True, means=means)
        replaced += sum(map(len, chosen))
        previous = counts.book[i]
    assert replaced >= 2
    for neurons, layer in zip(slow.neurons, cbp.network.layers, strict=True):
        assert [neuron.age for neuron in neurons] == cbp.ages[layer.name].tolist()
        expected = [neuron.corrected(neuron.utility) if neuron.age else 0.0 for neuron in neurons]
        th.testing.assert_close(cbp.utilities[layer.name], th.tensor(expected), rtol=1e-3, atol=1e-6)


def test_ages_maturity_and_fractions() -> None:
    """With 5 neurons and a rate of 0.1, half a neuron is owed per step from the first eligible one on."""
    case = CASES["ppo-tanh"]
    cbp, counts = ContinualBackprop(0.1, 4, 0.9), Counts()
    case.agent([counts, cbp], policy_kwargs={"net_arch": {"pi": [5], "vf": [3]}}, n_epochs=3).learn(64)
    totals = [int(next(iter(each.values())).sum()) for each in counts.book]
    # Owed: steps 5 and 6, 0.5 each: one replaced. Then 0.4 a step with 4 eligible ones: at step 9 it is 1.2, another
    # replaced. 0.2, 0.3 with 3 eligible ones, and 0.4 twice with the first one replaced, which has come of age: 1.3
    assert totals == [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    # Without outgoing weights, it is of the least use, and is replaced again
    assert sorted(cbp.ages[next(iter(cbp.ages))].tolist()) == [0, 3, 12, 12, 12]
    assert sorted(next(iter(cbp.reset_counts.values())).tolist()) == [0, 0, 0, 1, 2]


def test_beyond_maturity_nothing_happens() -> None:
    """Inactive, it is the same agent without it, bit for bit; it takes autograd."""
    for name in ("ppo-tanh", "sac-relu"):
        ends = []
        for interventions in ([], [ContinualBackprop(maturity_threshold=1000)]):
            agent = CASES[name].agent(interventions, fused=False)
            agent.learn(130 if "ppo" in name else 60)
            ends.append({key: tensor.clone() for key, tensor in agent.policy.state_dict().items()})
            assert agent._n_updates > 0
        assert differing(*ends) == []


def test_gradients_by_hand_step_back() -> None:
    agent = CASES["sac-relu"].agent([ContinualBackprop()])
    assert agent.fused
    assert isinstance(agent._make_gradients(), AutogradGradients)
    assert not isinstance(CASES["sac-relu"].agent([])._make_gradients(), AutogradGradients)


@pytest.mark.parametrize("cls", [CBPPPO, CBPSAC])
def test_thin_classes(cls: type) -> None:
    options: dict[str, Any] = {"replacement_rate": 0.05, "maturity_threshold": 3, "decay_rate": 0.9, "clear_moments": False}
    base = CASES["ppo-tanh" if issubclass(cls, ContinualPPO) else "sac-relu"]
    case = Case(cls, base.env, base.layers, base.function, base.policy_kwargs)
    agent = case.agent([], **options)
    assert vars(agent.all_interventions.find(ContinualBackprop)).items() >= {**options, "renew_shared": False}.items()
    agent.learn(70)
    assert any(counts.any() for counts in agent.all_interventions.find(ContinualBackprop).reset_counts.values())
    default = cls("MlpPolicy", base.env()).all_interventions.find(ContinualBackprop)
    assert (default.replacement_rate, default.maturity_threshold, default.decay_rate) == (1e-4, 10_000, 0.99)


def test_loading_restores_everything_bit_for_bit(tmp_path: Any) -> None:
    case = CASES["ppo-crelu"]
    agent = case.agent([ContinualBackprop(RATE, MATURITY, DECAY)])
    agent.learn(128)
    agent.save(tmp_path / "model")
    loaded = ContinualPPO.load(tmp_path / "model")
    old, new = agent.all_interventions.state_dict(), loaded.all_interventions.state_dict()
    (old, new) = (state["ContinualBackprop"] for state in (old, new))
    assert old.keys() == new.keys() == {"counts", "n_renewals", "utilities", "means", "ages", "owed"}
    assert old["owed"] == new["owed"]
    assert any(0 < owed < 1 for owed in old["owed"].values())
    for name in ("utilities", "means", "ages"):
        assert differing(old[name], new[name]) == []
    assert differing(old["counts"], new["counts"]) == []
    assert old["n_renewals"] == new["n_renewals"] > 0
    # And they are no longer the same tensors
    other = case.agent([ContinualBackprop(RATE, MATURITY, DECAY)])
    other.all_interventions.load_state_dict(agent.all_interventions.state_dict())
    before = {name: counts.clone() for name, counts in agent.all_interventions.find(ContinualBackprop).reset_counts.items()}
    other.learn(128)
    assert differing(before, agent.all_interventions.find(ContinualBackprop).reset_counts) == []


def test_shared_layers_are_the_actors() -> None:
    with pytest.raises(ValueError, match="renew_shared: a features extractor that is shared is the actor's"):
        ContinualBackprop(networks="critic", renew_shared=True)
    with pytest.raises(ValueError, match="no hidden layer that belongs to the critic alone"):
        CASES["ppo-conv"].agent([ContinualBackprop(networks="critic")])


def test_attached_twice_it_watches_once() -> None:
    cbp = ContinualBackprop()
    agent = CASES["ppo-tanh"].agent([cbp])
    agent.all_interventions.attach(agent)
    assert sum(len(module._forward_hooks) for module in agent.policy.modules()) == len(cbp.network.layers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("replacement_rate", value) for value in (0, -0.1, 1.1, "1", None, float("nan"), True)],
        *[("maturity_threshold", value) for value in (-1, 2.5, "1", None, True)],
        *[("decay_rate", value) for value in (-0.1, 1, 1.0, 1.1, None, float("nan"))],
        *[("clear_moments", value) for value in ("yes", None, 2)],
        *[("renew_shared", value) for value in ("yes", None, 2)],
        *[("networks", value) for value in ("critics", None, ("actor", "critic"))],
    ],
)
def test_bad_options(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        ContinualBackprop(**{name: value})
    with pytest.raises(ValueError, match=name):
        CBPPPO("MlpPolicy", CASES["ppo-tanh"].env(), **{name: value})


@pytest.mark.parametrize(("rate", "per_neuron"), [(0.01, 6.0), (1e-4, 3.0)])
def test_number_of_replacements_in_a_long_run(rate: float, per_neuron: float) -> None:
    """
    With a maturity of 10 000, a neuron is replaced about every 10 000 + 1/rate steps: the rate of 0.01 gives the 57.6
    resets per neuron of the P3O paper's table 4 in its 586 000 steps, 1e-4 about half as many.
    """
    cbp = ContinualBackprop(rate, 10_000)
    ContinualPPO("MlpPolicy", "Pendulum-v1", interventions=[cbp], policy_kwargs={"net_arch": [256]}, device="cpu")
    replaced = 0
    for _ in range(61_000):
        cbp._averages[0].ages += 1
        chosen = cbp._choose(cbp._averages[0])
        cbp._averages[0].ages[chosen] = 0
        replaced += len(chosen)
    assert replaced / 256 == pytest.approx(per_neuron, abs=0.4)


class Extractor(BaseFeaturesExtractor):
    """Its forward pass can go past the activation function that it has."""

    def __init__(self, space: Any, goes_past: bool) -> None:
        super().__init__(space, 4)
        self.net, self.goes_past = th.nn.Sequential(th.nn.Linear(space.shape[0], 4), th.nn.ReLU()), goes_past

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return th.nn.functional.silu(self.net[0](observations)) if self.goes_past else self.net(observations)


def with_extractor(goes_past: bool) -> CBPPPO:
    options = {"features_extractor_class": Extractor, "share_features_extractor": False, "net_arch": [4]}
    options["features_extractor_kwargs"] = {"goes_past": goes_past}
    return CBPPPO("MlpPolicy", "Pendulum-v1", n_steps=20, batch_size=20, policy_kwargs=options, device="cpu")


def test_what_no_activation_function_reads_is_no_layer_of_neurons() -> None:
    layers = [
        with_extractor(goes_past).all_interventions.find(ContinualBackprop).network.layers for goes_past in (False, True)
    ]
    assert [[layer.name for layer in each] for each in layers] == [
        ["actor.features_extractor.net.0", "actor.policy_net.0"],
        ["actor.policy_net.0"],
    ]


def test_a_layer_that_is_no_longer_used_is_named() -> None:
    agent = with_extractor(goes_past=False)
    agent.learn(20)
    agent.all_interventions.find(ContinualBackprop)._find_layers = lambda: None  # type: ignore[method-assign]
    agent.policy.pi_features_extractor.goes_past = True
    with pytest.raises(ValueError, match="its activation function, a ReLU, is not called"):
        agent.learn(20)
