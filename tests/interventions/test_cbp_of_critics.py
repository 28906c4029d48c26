"""Continual backpropagation in the critics of SAC."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch as th
from cbp_checks import DECAY, MATURITY, RATE, Counts, SlowCBP
from gymnasium import spaces
from reset_checks import CASES, Case, Probe, SlowLayer, SmallCnn, check_renewal, chosen_between
from stable_baselines3.common.buffers import ReplayBuffer
from tagged_tasks import ImageTask, differing

from sb3_nbsp import ContinualDiscreteSAC, ContinualSAC
from sb3_nbsp.interventions import ContinualBackprop


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
