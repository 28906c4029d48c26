"""Which parameters the mask of a neuron holds back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from identification_checks import on_training_steps
from tagged_tasks import ImageTask, TaggedTask, differing, parameters, tagged_sequence, tiny

from sb3_nbsp import NBSPSAC, ContinualSAC
from sb3_nbsp.interventions.networks import networks_of
from sb3_nbsp.interventions.parameter_masks import parameter_masks
from sb3_nbsp.neurons import CReLU, zeroed

IMAGES = {"policy": "CnnPolicy", "batch_size": 4, "buffer_size": 60}
AGENTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "perceptrons": (lambda: TaggedTask(1.0), {}),
    "CReLU": (lambda: TaggedTask(1.0), {"policy_kwargs": {"net_arch": [6, 5], "activation_fn": CReLU}}),
    "gSDE": (lambda: TaggedTask(1.0), {"use_sde": True}),
    "convolutions": (
        ImageTask,
        {**IMAGES, "policy_kwargs": {"net_arch": [7], "features_extractor_kwargs": {"features_dim": 6}}},
    ),
    # As many features as actions: which of the critic's columns are the features' cannot be told by counting
    "a feature beside an action": (
        ImageTask,
        {**IMAGES, "policy_kwargs": {"net_arch": [7], "features_extractor_kwargs": {"features_dim": 1}}},
    ),
}


def outputs(network: Any, observations: th.Tensor, actions: th.Tensor) -> list[th.Tensor]:
    with th.no_grad():
        found = network.forward(observations, actions)
    return [each for each in (found if isinstance(found, tuple) else [found]) if isinstance(each, th.Tensor)]


@pytest.mark.parametrize("name", AGENTS)
def test_without_its_outgoing_weights_a_neuron_is_as_good_as_zero(name: str) -> None:
    """The columns that a mask of 0 picks are the weights that read the neuron: those, all of those, and no others."""
    make_task, options = AGENTS[name]
    agent = tiny(ContinualSAC, make_task(), **options)
    agent.policy.set_training_mode(False)
    generator = th.Generator().manual_seed(0)
    agent.observation_space.seed(0)
    observations = agent.policy.obs_to_tensor(np.stack([agent.observation_space.sample() for _ in range(8)]))[0]
    actions = th.rand(8, *agent.action_space.shape, generator=generator)
    for network in networks_of(agent):
        n_neurons = sum(layer.n_neurons for layer in network.layers)
        neurons = th.rand(n_neurons, generator=generator) < 0.5
        parts = neurons.split([layer.n_neurons for layer in network.layers])
        masks = {layer.name: 1 - part.double() for layer, part in zip(network.layers, parts, strict=True)}
        factors = parameter_masks([network], masks, "outgoing")
        assert len(factors) == len(network.layers) + (network.name == "actor" and not agent.use_sde)  # mu and log_std
        with zeroed(network.layers, neurons):
            expected = outputs(network, observations, actions)
        plain = outputs(network, observations, actions)
        kept = [(parameter, parameter.data.clone()) for parameter in factors]
        for parameter, factor in factors.items():
            parameter.data *= factor.to(parameter)
        found = outputs(network, observations, actions)
        for parameter, old in kept:
            parameter.data.copy_(old)
        for own, other in zip(found, expected, strict=True):
            th.testing.assert_close(own, other)
        assert not all(th.allclose(own, other) for own, other in zip(found, plain, strict=True))


def test_sides_by_hand() -> None:
    """Two hidden layers of two neurons: which entries of the second layer's weight have which mask."""
    agent = tiny(ContinualSAC, TaggedTask(1.0), policy_kwargs={"net_arch": [2, 2]})
    actor = networks_of(agent)[0]
    masks = {"actor.latent_pi.0": th.tensor([0.25, 1.0]), "actor.latent_pi.2": th.tensor([1.0, 0.5])}
    first, second, mu = agent.actor.latent_pi[0], agent.actor.latent_pi[2], agent.actor.mu
    found = {side: parameter_masks([actor], masks, side) for side in ("incoming", "outgoing", "both")}  # type: ignore[arg-type]
    whole = {
        side: th.ones(2, 2) * (mask if mask.dim() == 2 else mask[:, None])
        for side in found
        for mask in [found[side][second.weight]]
    }
    assert whole["incoming"].tolist() == [[1, 1], [0.5, 0.5]]
    assert whole["outgoing"].tolist() == [[0.25, 1], [0.25, 1]]
    assert whole["both"].tolist() == [[0.25, 1], [0.25, 0.5]]  # the smaller of the two
    assert found["both"][mu.weight].tolist() == [[1, 0.5]] and mu.weight not in found["incoming"]
    assert found["both"][first.weight].tolist() == found["both"][first.bias].tolist() == [0.25, 1]
    for side in found:
        assert mu.bias not in found[side] and (second.bias in found[side]) == (side != "outgoing")


@pytest.mark.parametrize("target", ["step", "gradient"])
@pytest.mark.parametrize("side", ["outgoing", "both"])
def test_the_first_masked_step_of_each_side(side: str, target: str) -> None:
    """θ ← θ + mask ⊙ Δ, with gradient descent also of a masked gradient; one weight after another."""
    options: dict[str, Any] = {"fused": False, "policy_kwargs": {"net_arch": [8, 8], "optimizer_class": th.optim.SGD}}
    results = []
    how: dict[str, Any] = {"mask_side": side, "mask_target": target, "mask_type": "hard", "mask_networks": "actor"}
    for masking in (on_training_steps(**how), None):
        agent = tiny(ContinualSAC, tagged_sequence(), interventions=[] if masking is None else [masking], **options)
        agent.learn(60 + 20)  # the first phase and the next one's warm-up
        before = parameters(agent)
        agent.learn(1, reset_num_timesteps=False)
        results.append((masking, before, parameters(agent)))
    (masking, before, after), (_, plain_before, plain) = results
    assert masking is not None and differing(before, plain_before) == []
    held = 0
    chain = [("latent_pi.0", None), ("latent_pi.2", "latent_pi.0"), ("mu", "latent_pi.2"), ("log_std", "latent_pi.2")]
    for name, front in chain:
        old, new, free = (state[f"actor.{name}.weight"] for state in (before, after, plain))
        for (row, column), value in [((i, j), new[i, j]) for i in range(new.shape[0]) for j in range(new.shape[1])]:
            is_column = front is not None and masking.masks[f"actor.{front}"][column] < 1
            is_row = side == "both" and f"actor.{name}" in masking.masks and masking.masks[f"actor.{name}"][row] < 1
            assert value == (old if is_row or is_column else free)[row, column]
            held += int(is_row or is_column)
    assert held >= (8 if side == "both" else 2) and th.equal(after["actor.mu.bias"], plain["actor.mu.bias"])


def test_an_agent_with_all_sides_learns_and_comes_back_from_its_file(tmp_path: Any) -> None:
    agent = tiny(NBSPSAC, tagged_sequence(), mask_side="both", identification_steps=60)
    agent.learn(100)
    agent.save(tmp_path / "agent")
    loaded = NBSPSAC.load(tmp_path / "agent")
    assert loaded.mask_side == "both"
    own, other = (each.all_interventions._all[0]._steps["actor"].masked for each in (agent, loaded))
    assert len(own) == 6 == len(other)  # two layers' weights and biases, mu and log_std
    for (_, mask), (_, again) in zip(own, other, strict=True):
        assert th.equal(mask, again)
