"""Layers that are frozen, exchanged or given another optimizer once the agent exists."""

from __future__ import annotations

from typing import Any

import pytest
import torch as th
from tagged_tasks import TaggedTask, differing, tagged_sequence, tiny
from torch import nn

from sb3_nbsp import CBPPPO, CBPSAC, NBSPSAC, P3O, SBPSAC, ContinualPPO, CyclePPO, CycleSAC, ReDoPPO, ReDoSAC
from sb3_nbsp.interventions import CycleReset, RandomReset
from sb3_nbsp.neurons import find_neuron_layers
from sb3_nbsp.neurons.renewal import Initializer, cut_outgoing, renew_incoming

PPO_OPTIONS: dict[str, Any] = {"n_steps": 32, "batch_size": 16, "n_epochs": 1, "policy_kwargs": {"net_arch": [8, 8]}}
RESET = {"reset_frequency": 32, "reset_rate": 0.5}
CBP = {"replacement_rate": 0.5, "maturity_threshold": 1}
DISTILL = {"max_distill_epochs": 1, "distill_states": 32}


def make(cls: type, **options: Any) -> Any:
    if "PPO" in cls.__name__ or cls is P3O:
        return cls("MlpPolicy", TaggedTask(1.0), seed=0, device="cpu", **PPO_OPTIONS, **options)
    return tiny(cls, TaggedTask(1.0), **options)


def body(agent: Any) -> nn.Sequential:
    policy = agent.policy
    return policy.mlp_extractor.policy_net if hasattr(policy, "mlp_extractor") else policy.actor.latent_pi


AGENTS = {
    CyclePPO: RESET,
    P3O: RESET | DISTILL,
    ReDoPPO: RESET,
    CBPPPO: CBP,
    CycleSAC: RESET,
    SBPSAC: RESET | DISTILL,
    ReDoSAC: RESET,
    CBPSAC: CBP,
}


@pytest.mark.parametrize("cls", AGENTS)
@pytest.mark.parametrize("frozen", [0, 2])
def test_what_is_frozen_after_construction_stays_and_the_rest_is_renewed(cls: type, frozen: int) -> None:
    agent = make(cls, **AGENTS[cls])
    for parameter in body(agent)[frozen].parameters():
        parameter.requires_grad = False
    before = {name: value.clone() for name, value in body(agent).state_dict().items()}
    agent.learn(100)
    changed = differing(before, body(agent).state_dict())
    assert changed == [name for name in before if not name.startswith(str(frozen))]
    counts = next(iter(agent.all_interventions)).reset_counts
    resets = [int(each.sum()) for each in counts.values()]
    cuts = cls in (ReDoPPO, ReDoSAC, CBPPPO, CBPSAC)
    # Where the second layer is frozen, the outgoing weights of the first cannot be cut
    expected = [frozen != 0 and not (frozen == 2 and cuts), frozen != 2]
    assert [number > 0 for number in resets] == expected


def test_layers_frozen_in_the_midst_of_training_and_unfrozen_again() -> None:
    agent = make(CyclePPO, **RESET)
    agent.learn(32)
    reset = agent.all_interventions.find(CycleReset)
    weight = body(agent)[0].weight
    weight.requires_grad = False
    before = weight.clone()
    reset.renew(reset.choose())
    assert th.equal(weight, before)
    weight.requires_grad = True
    reset.renew(reset.choose())
    assert not th.equal(weight, before)


def test_frozen_biases_and_norms_are_not_renewed() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2))
    (layer,) = find_neuron_layers([("net", net[:3])], heads=[net[3]])
    for parameter in (net[0].bias, net[1].weight, net[3].bias):  # type: ignore[union-attr]
        parameter.requires_grad = False  # type: ignore[union-attr]
    nn.init.constant_(net[1].weight, 3.0)  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    renew_incoming(layer, th.tensor([1]), Initializer(), th.Generator().manual_seed(0))
    cut_outgoing(layer, th.tensor([1]), th.ones(4, 1))
    assert differing(before, net.state_dict()) == ["0.weight", "3.weight"]


@pytest.mark.parametrize("cls", [ContinualPPO, SBPSAC])
def test_the_moments_of_another_optimizer_are_cleared(cls: type) -> None:
    reset = RandomReset(10**9, 0.5)
    agent = make(cls, interventions=[reset])
    owner = agent.policy if cls is ContinualPPO else agent.actor
    owner.optimizer = th.optim.AdamW(owner.parameters(), lr=3e-4, weight_decay=0.01)
    agent.learn(64)
    chosen = reset.choose()
    reset.renew(chosen)
    moments = owner.optimizer.state[body(agent)[0].weight]["exp_avg_sq"]
    is_zero = (moments == 0).all(1)
    assert is_zero[chosen[0]].all() and not is_zero.all()


@pytest.mark.parametrize("cls", [CycleSAC, CBPSAC, CBPPPO, SBPSAC])
def test_exchanged_layers_are_the_ones_that_are_renewed(cls: type) -> None:
    agent = make(cls, **AGENTS[cls])
    agent.learn(50)
    old = body(agent)[0]
    old_weight = old.weight.clone()
    owner = agent.policy if cls is CBPPPO else agent.actor
    body(agent)[0] = nn.Linear(4, 8)
    owner.optimizer = th.optim.Adam(owner.parameters(), lr=3e-4)
    new_weight = body(agent)[0].weight.clone()
    method = next(iter(agent.all_interventions))
    before = method.reset_counts
    before = {name: counts.clone() for name, counts in before.items()}
    agent.learn(100, reset_num_timesteps=False)
    assert method.network.layers[0].linear is body(agent)[0]
    assert th.equal(old.weight, old_weight) and not th.isclose(body(agent)[0].weight, new_weight, atol=0.1).all()
    assert all((counts >= before[name]).all() for name, counts in method.reset_counts.items())


def test_exchanged_layers_are_masked_if_they_are_as_wide_and_otherwise_a_word_is_said() -> None:
    agent = tiny(NBSPSAC, tagged_sequence(), mask_type="hard", skill_proportion=1.0, identification="random")
    agent.learn(70)
    masking = next(iter(agent.all_interventions))
    held = masking.masks["actor.latent_pi.0"] == 0
    assert held.any()
    agent.actor.latent_pi[0] = nn.Linear(4, 8)
    agent.actor.optimizer = th.optim.Adam(agent.actor.parameters(), lr=3e-3)
    before = agent.actor.latent_pi[0].weight.clone()
    agent.learn(45, reset_num_timesteps=False)
    assert th.equal(agent.actor.latent_pi[0].weight[held], before[held])
    agent.actor.latent_pi[0], agent.actor.latent_pi[2] = nn.Linear(4, 5), nn.Linear(5, 8)
    agent.actor.optimizer = th.optim.Adam(agent.actor.parameters(), lr=3e-3)
    with pytest.warns(UserWarning, match="actor: the widths of its layers have changed, its masks and scores are dropped"):
        agent.learn(30, reset_num_timesteps=False)
    assert set(masking.masks) and agent.phase.index == 2
