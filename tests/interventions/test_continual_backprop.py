"""Continual backpropagation against a slow version that goes neuron by neuron."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from reset_checks import (
    CASES,
    Case,
    Picture,
    Probe,
    SlowLayer,
    SmallCnn,
    check_renewal,
    chosen_between,
    columns_of,
    mean_of_feature,
    owned_features,
    record_batches,
)
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from tagged_tasks import ImageTask, differing

from sb3_nbsp import CBPPPO, CBPSAC, ContinualDiscreteSAC, ContinualPPO, ContinualSAC
from sb3_nbsp.algorithms.autograd_sac import AutogradGradients
from sb3_nbsp.interventions import ContinualBackprop, CycleReset, InnerDistillation, Intervention

RATE, MATURITY, DECAY = 0.04, 3, 0.8


class SlowNeuron:
    """One hidden neuron and what is remembered of it."""

    def __init__(self, layer: SlowLayer, index: int) -> None:
        self.layer, self.index = layer, index
        self.features = owned_features(layer, index)
        self.reset()

    def reset(self) -> None:
        self.age, self.utility, self.means = 0, 0.0, dict.fromkeys(self.features, 0.0)

    def contribution(self, output: th.Tensor, params: dict[str, th.Tensor]) -> float:
        contribution = 0.0
        for feature in self.features:
            total, units = 0.0, 0
            for reader in self.layer.readers:
                weight = params[f"{reader}.weight"]
                for unit in range(len(weight)):
                    units += 1
                    for column in columns_of(self.layer, feature, weight):
                        total += sum(abs(value) for value in weight[unit, column].flatten().tolist())
            contribution += mean_of_feature(output, feature, True) * total / units
        return contribution

    def update(self, output: th.Tensor, params: dict[str, th.Tensor]) -> None:
        self.age += 1
        self.utility = DECAY * self.utility + (1 - DECAY) * self.contribution(output, params)
        for feature in self.features:
            self.means[feature] = DECAY * self.means[feature] + (1 - DECAY) * mean_of_feature(output, feature, False)

    def corrected(self, value: float) -> float:
        return value / (1 - DECAY**self.age)


class SlowCBP:
    def __init__(self, case: Case) -> None:
        self.case = case
        self.neurons = [[SlowNeuron(layer, j) for j in range(layer.n_neurons)] for layer in case.layers]
        self.owed = [0.0] * len(case.layers)

    def step(self, observations: th.Tensor, before: Picture, after: Picture) -> tuple[list[list[int]], list[dict[int, float]]]:
        """Neurons to replace in each layer, and the mean activation of their features."""
        outputs = self.case.features(before.parameters, observations)
        chosen, means = [], []
        for index, neurons in enumerate(self.neurons):
            for neuron in neurons:
                neuron.update(outputs[index], after.parameters)
            eligible = [neuron for neuron in neurons if neuron.age > MATURITY]
            self.owed[index] += RATE * len(eligible)
            number = int(self.owed[index] + 1e-6)
            self.owed[index] -= number
            worst = sorted(eligible, key=lambda neuron: neuron.corrected(neuron.utility))[:number]
            chosen.append(sorted(neuron.index for neuron in worst))
            means.append({f: neuron.corrected(mean) for neuron in worst for f, mean in neuron.means.items()})
            for neuron in worst:
                neuron.reset()
        return chosen, means


class Counts(Intervention):
    """Copies of CBP's counts of resets at the end of every step of a network."""

    def __init__(self, network: str = "actor") -> None:
        self.network = network
        self._book: list[dict[str, th.Tensor]] = []

    @property
    def book(self) -> list[dict[str, th.Tensor]]:
        return self._book

    def after_step(self, network: Any) -> None:
        if network == self.network:
            counts = self.agent.all_interventions.find(ContinualBackprop).reset_counts
            self._book.append({name: each.clone() for name, each in counts.items()})


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


@dataclass
class Critics(Case):
    """Both critics of SAC, one after the other: their inputs are observations and actions."""

    def features(self, parameters: Any, observations: th.Tensor) -> list[th.Tensor]:
        halves = self.layers[:2], self.layers[2:]
        return [each for layers in halves for each in replace(self, layers=layers)._of_one(parameters, observations)]

    def _of_one(self, parameters: Any, observations: th.Tensor) -> list[th.Tensor]:
        return super().features(parameters, observations)


@pytest.mark.parametrize("networks", ["critic", "both"])
def test_critics_equal_a_slow_version(networks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the actor's loss runs through the critics plays no part, and their targets are left to polyak averaging."""
    layers = [
        SlowLayer(f"critic.qf{i}.{place}", [f"critic.qf{i}.{place + 2}"], width)
        for i in range(2)
        for place, width in ((0, 7), (2, 6))
    ]
    case = Critics(ContinualSAC, CASES["sac-relu"].env, layers, th.relu, {"net_arch": {"pi": [5], "qf": [7, 6]}})
    inputs: list[th.Tensor] = []
    sample = ReplayBuffer.sample

    def recorded(*args: Any, **kwargs: Any) -> Any:
        samples = sample(*args, **kwargs)
        inputs.append(th.cat([samples.observations, samples.actions], dim=1))
        return samples

    monkeypatch.setattr(ReplayBuffer, "sample", recorded)
    cbp = ContinualBackprop(RATE, MATURITY, DECAY, networks=networks)
    counts, last, first = Counts("critic"), Probe("critic"), Probe("critic")
    agent = case.agent([counts, last, cbp, first])
    agent.learn(45)
    slow = SlowCBP(case)
    names = [name for name in counts.book[0] if name.startswith("critic")]
    assert names == [f"critic.qf{i}.{place}" for i in range(2) for place in (0, 2)]
    previous = {name: th.zeros_like(counts.book[0][name]) for name in names}
    assert len(inputs) == len(counts.book) == 25
    for i, batch in enumerate(inputs):
        after = first.pictures["after step"][i]
        chosen, means = slow.step(batch, first.pictures["before step"][i], after)
        now = {name: counts.book[i][name] for name in names}
        assert chosen_between(previous, now) == chosen, i
        check_renewal(after, last.pictures["after step"][i], layers, chosen, cuts=True, means=means)
        previous = now
    assert sum(int(each.sum()) for each in previous.values()) >= 4
    assert ("actor.latent_pi.0" in cbp.ages) == (networks == "both")


@pytest.mark.parametrize("name", ["ppo-tanh", "sac-relu", "ppo-conv"])
@pytest.mark.parametrize("networks", ["critic", "both"])
def test_critics_beyond_maturity_nothing_happens(name: str, networks: Any) -> None:
    case, ends = CASES[name], []
    policy_kwargs = {**case.policy_kwargs, **({"net_arch": [4]} if name == "ppo-conv" else {})}
    for interventions in ([], [ContinualBackprop(maturity_threshold=1000, networks=networks)]):
        agent = case.agent(interventions, fused=False, policy_kwargs=policy_kwargs)
        agent.learn(130 if "ppo" in name else 60)
        ends.append({key: tensor.clone() for key, tensor in agent.policy.state_dict().items()})
    assert differing(*ends) == []
    (ages, *_) = (each for layer, each in agent.all_interventions.find(ContinualBackprop).ages.items() if "critic" in layer)
    assert (ages > 0).all()


def test_critics_have_state_that_is_saved(tmp_path: Any) -> None:
    agent = CASES["sac-relu"].agent([ContinualBackprop(RATE, MATURITY, DECAY, networks="both")])
    agent.learn(50)
    agent.save(tmp_path / "model")
    own, other = (each.all_interventions.find(ContinualBackprop) for each in (agent, ContinualSAC.load(tmp_path / "model")))
    assert own.networks == other.networks == "both"
    assert list(own.ages) == ["actor.latent_pi.0", "actor.latent_pi.2", "critic.qf0.0", "critic.qf1.0"]
    assert differing(own.ages, other.ages) == [] and differing(own.utilities, other.utilities) == []
    assert differing(own.reset_counts, other.reset_counts) == [] and own.reset_counts["critic.qf1.0"].any()


def test_features_extractors_of_critics() -> None:
    """SAC's critics read theirs together with the action; discrete SAC's have one each."""
    found = {}
    for cls, actions in ((ContinualSAC, spaces.Box(-1, 1, (1,))), (ContinualDiscreteSAC, spaces.Discrete(2))):
        env = ImageTask()
        env.action_space = actions
        policy_kwargs = {"net_arch": [4], "features_extractor_class": SmallCnn}
        cbp = ContinualBackprop(networks="critic")
        agent = cls("CnnPolicy", env, buffer_size=10, policy_kwargs=policy_kwargs, interventions=[cbp], device="cpu")
        found[cls] = list(agent.all_interventions.find(ContinualBackprop).ages)
    assert found[ContinualSAC] == ["critic.qf0.0", "critic.qf1.0"]
    assert len(found[ContinualDiscreteSAC]) == 8 and len(set(found[ContinualDiscreteSAC])) == 8


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


def test_renewals_of_others_begin_a_new_life() -> None:
    case = CASES["ppo-tanh"]
    cbp = ContinualBackprop(maturity_threshold=1000)
    agent = case.agent([CycleReset(64, 0.3), cbp])
    agent.learn(64)
    assert [ages.tolist() for ages in cbp.ages.values()] == [[0, 0] + [8] * 5, [0, 0] + [8] * 4]
    assert [utility[:2].tolist() for utility in cbp.utilities.values()] == [[0, 0], [0, 0]]


@pytest.mark.parametrize("first", [True, False])
def test_distillation_is_no_training_step(first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Distillation right behind a reset, in whatever order: the next step's activations are the minibatch's."""
    case = CASES["ppo-tanh"]
    batches = record_batches(monkeypatch)
    distillation = InnerDistillation(distill_threshold=0.0, max_distill_epochs=1, distill_batch_size=32)
    cbp = ContinualBackprop(RATE, MATURITY, DECAY)
    others = [distillation, CycleReset(64, 0.3)]
    probe = Probe()
    seen: list[list[tuple[th.Tensor, th.Tensor]]] = []
    after_step = cbp.after_step

    def watched(network: Any) -> None:
        if network == "actor":
            seen.append([cbp._batch[i] for i in range(2)])
        after_step(network)

    monkeypatch.setattr(cbp, "after_step", watched)
    agent = case.agent([cbp, *others, probe] if first else [*others, cbp, probe])
    agent.learn(192)
    assert distillation.epochs > 3
    assert len(seen) == len(batches) == 24
    for i, (batch, means) in enumerate(zip(batches, seen, strict=True)):
        outputs = case.features(probe.pictures["before step"][i].parameters, batch)
        for output, (magnitudes, mean) in zip(outputs, means, strict=True):
            th.testing.assert_close(magnitudes[:, 0], output.abs().mean(0), rtol=1e-4, atol=1e-6)
            th.testing.assert_close(mean[:, 0], output.mean(0), rtol=1e-4, atol=1e-6)
    assert agent.policy.training and cbp._batch == {}


@pytest.mark.parametrize("name", ["ppo-tanh", "sac-relu"])
def test_passes_of_penalties_are_no_training_steps(name: str) -> None:
    class Elsewhere(Intervention):
        """A penalty on what the actor does in other states, of no weight."""

        def penalty(self, network: Any) -> th.Tensor | None:
            states = th.full((3, 4), 5.0)
            policy = self.agent.policy
            if name == "ppo-tanh":
                return 0 * policy.get_distribution(states).distribution.mean.sum()
            return 0 * policy.actor.get_action_dist_params(states)[0].sum() if network == "actor" else None

    utilities = []
    for others in ([], [Elsewhere()]):
        cbp = ContinualBackprop()
        CASES[name].agent([cbp, *others], **({"fused": False} if name == "sac-relu" else {})).learn(64)
        utilities.append(cbp.utilities)
    th.testing.assert_close(utilities[0], utilities[1], rtol=0, atol=0)


def test_training_goes_on_in_training_mode_after_a_distillation() -> None:
    modes = []

    class Modes(Intervention):
        def after_step(self, network: Any) -> None:
            modes.append(self.agent.policy.training)

    distillation = InnerDistillation(max_distill_epochs=1)
    agent = CASES["ppo-tanh"].agent([Modes(), ContinualBackprop(0.2, 1), distillation])
    agent.learn(64)
    assert distillation.epochs > 1
    assert set(modes) == {True}


def test_early_stopping_leaves_nothing_behind() -> None:
    cbp = ContinualBackprop()
    agent = CASES["ppo-tanh"].agent([cbp], target_kl=1e-9, n_epochs=5)
    agent.learn(256)
    assert cbp._batch == {}
    (ages, _) = cbp.ages.values()
    assert 0 < ages[0] < 4 * 5 * 4  # some updates were broken off


def test_in_front_of_what_undoes_steps_replacements_stay() -> None:
    class Standstill(Intervention):
        def before_step(self, network: Any) -> None:
            self._old = [parameter.detach().clone() for parameter in self.agent.actor.parameters()]

        @th.no_grad()
        def after_step(self, network: Any) -> None:
            for parameter, old in zip(self.agent.actor.parameters(), self._old if network == "actor" else [], strict=False):
                parameter.copy_(old)

    moved = []
    for interventions in ([ContinualBackprop(0.1, 1), Standstill()], [Standstill(), ContinualBackprop(0.1, 1)]):
        agent = CASES["sac-relu"].agent(interventions)
        start = agent.actor.latent_pi[0].weight.detach().clone()
        agent.learn(40)
        (counts, _) = agent.all_interventions.find(ContinualBackprop).reset_counts.values()
        assert counts.any()
        moved.append(th.equal((agent.actor.latent_pi[0].weight != start).any(1), counts > 0))
    assert moved[0]


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
