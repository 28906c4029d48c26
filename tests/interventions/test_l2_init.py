"""L2 Init: the gradient of its penalty, and the parameters that it pulls to."""

from pathlib import Path
from typing import Any

import pytest
import torch as th
from stable_baselines3 import PPO, SAC
from tagged_tasks import TaggedTask, differing, parameters, tiny

from sb3_nbsp import ContinualPPO, ContinualSAC, L2InitPPO, L2InitSAC
from sb3_nbsp.interventions import Intervention, L2Init

KINDS = [(L2InitSAC, ContinualSAC, SAC), (L2InitPPO, ContinualPPO, PPO)]


class Penalty(Intervention):
    """The same by autograd."""

    def on_learn_start(self, reset: bool) -> None:
        self._initial = {name: value.detach().clone() for name, value in self.agent.policy.named_parameters()}

    def penalty(self, network: Any) -> th.Tensor:
        names = [name for name in self._initial if ("value" in name or name.startswith("critic.")) == (network == "critic")]
        named = dict(self.agent.policy.named_parameters())
        return 0.05 * sum(((named[name] - self._initial[name]) ** 2).sum() for name in names if "target" not in name)


@pytest.mark.parametrize("cls", [L2InitSAC, L2InitPPO])
def test_the_gradient_by_hand(cls: type) -> None:
    """λ = 0.25, θ₀ = 1, θ = 3: a gradient of 1 becomes 1 + 2 · 0.25 · 2 = 2, once."""
    agent = tiny(cls, TaggedTask(1.0), l2_init_weight=0.25)
    with pytest.raises(ValueError, match=r"l2_init_weight must be a number in \[0, inf\), not -1"):
        L2Init(-1)
    own = list(agent.policy.parameters()) if cls is L2InitPPO else [*agent.actor.parameters(), *agent.critic.parameters()]
    for value in (1.0, 3.0):
        for each in own:
            each.data.fill_(value)
            each.grad = th.ones_like(each)
        agent.all_interventions.on_learn_start(True)
    for network in ("actor", "critic"):
        agent.all_interventions.find(L2Init).before_step(network)
    assert all(bool((each.grad == 2).all()) for each in own)


@pytest.mark.parametrize(("cls", "base", "plain"), KINDS)
def test_it_is_the_penalty_by_autograd_and_without_weight_sb3(cls: type, base: type, plain: type) -> None:
    options = {"max_grad_norm": 1e9} if plain is PPO else {}
    fast = tiny(cls, TaggedTask(1.0), l2_init_weight=0.05, **options).learn(100)
    slow = tiny(base, TaggedTask(1.0), interventions=[Penalty()], **options).learn(100)
    assert fast._is_by_hand() and not slow._is_by_hand() and fast._n_updates == slow._n_updates > 0
    th.testing.assert_close(parameters(fast), parameters(slow), rtol=1e-3, atol=1e-5)
    off = tiny(cls, TaggedTask(1.0), l2_init_weight=0, fused=False, **options).learn(100)
    assert differing(parameters(off), parameters(tiny(plain, TaggedTask(1.0), **options).learn(100))) == []


@pytest.mark.parametrize("saved", [L2InitSAC, SAC])
def test_it_pulls_to_where_it_began_or_to_a_file_without_the_method(tmp_path: Path, saved: type) -> None:
    agent = tiny(saved, TaggedTask(1.0))
    begin = parameters(agent)
    agent.learn(60).save(tmp_path / "model")
    loaded = L2InitSAC.load(tmp_path / "model", env=TaggedTask(1.0))
    expected = parameters(loaded) if saved is SAC else begin
    loaded.learn(60, reset_num_timesteps=False)
    initial = loaded.all_interventions.find(L2Init).state_dict()["initial"]
    assert {name.split(".")[0] for name in initial} == {"actor", "critic"}
    assert all(th.equal(value, expected[name]) for name, value in initial.items())
