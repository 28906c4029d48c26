"""Cycle reset on real agents: which neurons, when, and what stays as it is."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import gymnasium as gym
import pytest
import torch as th
from tagged_tasks import ImageTask, parameters, tiny

from sb3_nbsp import ContinualPPO, ContinualSAC, CyclePPO, CycleSAC
from sb3_nbsp.interventions import ContinualBackprop, CycleReset, GradientMasking, InnerDistillation, Intervention

SMALL: dict[str, Any] = {"n_steps": 64, "batch_size": 32, "n_epochs": 2, "seed": 0, "device": "cpu"}


def ppo(interventions: list[Intervention], net_arch: Any = (8, 8), env: Any = "Pendulum-v1", **kwargs: Any) -> ContinualPPO:
    arch = net_arch if isinstance(net_arch, dict) else list(net_arch)
    given = {**SMALL, "policy_kwargs": {"net_arch": arch}, **kwargs}
    policy = given.pop("policy", "MlpPolicy")
    return ContinualPPO(policy, env, interventions=interventions, **given)


def cycle_of(agent: Any) -> CycleReset:
    found: CycleReset = agent.all_interventions.find(CycleReset)
    return found


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("width", [8, 64, 100, 256, 300])
def test_every_neuron_exactly_once_in_a_cycle(width: int, rate: float) -> None:
    reset = cycle_of(ppo([CycleReset(reset_rate=rate)], [width, 8]))
    n_resets = {0.01: 100, 0.05: 20, 0.3: 4}[rate]
    for cycle in (1, 2):
        chosen = [reset.choose() for _ in range(n_resets)]
        first_layer = [int(neuron) for neurons, _ in chosen for neuron in neurons]
        assert first_layer == list(range(width))  # in order, each once
        assert Counter(int(neuron) for _, neurons in chosen for neuron in neurons) == dict.fromkeys(range(8), 1), cycle


def test_sizes_of_the_papers_network() -> None:
    """0.01 of 256 is 2.56 neurons: 2 or 3 at a time, which over 300 resets are the 2304 of the paper's table 4."""
    agent = ppo([CycleReset()], {"pi": [256, 256, 256], "vf": [8]})
    reset = cycle_of(agent)
    sizes = []
    for _ in range(300):
        chosen = reset.choose()
        sizes += [len(neurons) for neurons in chosen]
        reset.renew(chosen)
    assert set(sizes) == {2, 3}
    assert sum(int(counts.sum()) for counts in reset.reset_counts.values()) == 2304
    assert all((counts == 3).all() for counts in reset.reset_counts.values())


@pytest.mark.parametrize("clear_moments", [True, False])
def test_one_reset_changes_incoming_parameters_and_their_moments_only(clear_moments: bool) -> None:
    agent = ppo([CycleReset(reset_frequency=10**6, reset_rate=0.25, clear_moments=clear_moments)])
    agent.learn(128)
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    moments = copy.deepcopy(agent.policy.optimizer.state_dict()["state"])
    random = th.get_rng_state()
    reset = cycle_of(agent)
    reset.renew([th.tensor([2, 3]), th.tensor([5])])
    assert th.equal(th.get_rng_state(), random)
    rows = {"mlp_extractor.policy_net.0": [2, 3], "mlp_extractor.policy_net.2": [5]}
    names = [name for name, _ in agent.policy.named_parameters()]
    for index, name in enumerate(names):
        module = name.rsplit(".", 1)[0]
        reset_rows = th.zeros(len(before[name]), dtype=th.bool)
        reset_rows[rows.get(module, [])] = True
        value = agent.policy.state_dict()[name]
        assert th.equal(value[~reset_rows], before[name][~reset_rows]), name
        if module in rows:
            assert not th.isclose(value[reset_rows], before[name][reset_rows]).any(), name
            if name.endswith("bias"):
                assert (value[reset_rows] == 0).all()  # SB3's orthogonal initialization
        after = agent.policy.optimizer.state_dict()["state"][index]
        for key in ("exp_avg", "exp_avg_sq"):
            expected = moments[index][key].clone()
            if clear_moments:
                expected[reset_rows] = 0
            assert th.equal(after[key], expected)
        assert after["step"] == moments[index]["step"]


def test_orthogonal_unless_the_policy_is_not() -> None:
    for ortho_init in (True, False):
        agent = ppo([CycleReset()], policy_kwargs={"net_arch": [16, 16], "ortho_init": ortho_init})
        cycle_of(agent).renew([th.arange(16), th.arange(16)])
        weight = agent.policy.mlp_extractor.policy_net[2].weight.detach()
        is_orthogonal = th.allclose(weight @ weight.T, 2 * th.eye(16), atol=1e-5)
        assert is_orthogonal == ortho_init
        assert (weight.abs().max() <= 0.25) != ortho_init


def test_when_it_resets() -> None:
    """Rollouts of 64 steps, a reset every 100: after the updates at 128, 256 (200 and more), 320, ..."""
    reset = CycleReset(reset_frequency=100, reset_rate=0.25)
    agent = ppo([reset])
    totals = []
    for _ in range(6):
        agent.learn(64, reset_num_timesteps=not totals)
        totals.append(int(sum(counts.sum() for counts in reset.reset_counts.values())))
    assert agent.num_timesteps == 384
    assert totals == [0, 4, 4, 8, 12, 12]


def test_a_count_of_steps_that_begins_anew() -> None:
    reset = CycleReset(reset_frequency=100, reset_rate=0.25)
    agent = ppo([reset])
    for total in (4, 8):
        agent.learn(128)
        assert int(sum(counts.sum() for counts in reset.reset_counts.values())) == total


@pytest.mark.parametrize("policy", ["MlpPolicy", "CnnPolicy"])
def test_sac(policy: str) -> None:
    env = ImageTask() if policy == "CnnPolicy" else gym.make("Pendulum-v1")
    kwargs: dict[str, Any] = {"policy": policy, "buffer_size": 200}
    if policy == "CnnPolicy":
        kwargs |= {"policy_kwargs": {"net_arch": [8], "features_extractor_kwargs": {"features_dim": 16}}, "batch_size": 4}
    agent = tiny(CycleSAC, env, reset_frequency=10, reset_rate=0.25, **kwargs)
    agent.learn(40)
    reset = cycle_of(agent)
    names = [layer.name for layer in reset.network.layers]
    if policy == "CnnPolicy":  # its features extractor is its own
        assert names[0] == "actor.features_extractor.cnn.0"
        assert names[-1] == "actor.latent_pi.0"
        assert len(names) == 5
    else:
        assert names == ["actor.latent_pi.0", "actor.latent_pi.2"]
    # Learning starts at step 20, after which steps 21, 30 and 40 are the first beyond a multiple of 10
    assert reset.state_dict()["n_renewals"] == 3
    assert reset.reset_counts[names[0]].sum() == round(0.75 * len(reset.reset_counts[names[0]]))


def test_shared_features_extractor_of_ppo() -> None:
    net_arch = {"pi": [8], "vf": [8]}
    cnn = {"policy": "CnnPolicy", "env": ImageTask()}
    kwargs = {"net_arch": net_arch, "features_extractor_kwargs": {"features_dim": 16}}
    own = cycle_of(ppo([CycleReset()], policy_kwargs=kwargs, **cnn))
    assert [layer.name for layer in own.network.layers] == ["actor.policy_net.0"]
    agent = ppo([CycleReset(renew_shared=True)], policy_kwargs=kwargs, **cnn)
    shared = cycle_of(agent).network.layers
    assert [layer.n_neurons for layer in shared] == [32, 64, 64, 16, 8]
    # The critic reads the features too
    assert shared[3].consumers == [agent.policy.mlp_extractor.policy_net[0], agent.policy.mlp_extractor.value_net[0]]
    separate = ppo([CycleReset()], policy_kwargs={**kwargs, "share_features_extractor": False}, **cnn)
    assert [layer.n_neurons for layer in cycle_of(separate).network.layers] == [32, 64, 64, 16, 8]
    assert cycle_of(separate).network.layers[3].consumers == [separate.policy.mlp_extractor.policy_net[0]]


def test_with_gradient_masking_on_sac() -> None:
    agent = tiny(
        ContinualSAC,
        gym.make("Pendulum-v1"),
        interventions=[GradientMasking(identification="random"), CycleReset(reset_frequency=20, reset_rate=0.25)],
    )
    agent.learn(50)
    assert cycle_of(agent).state_dict()["n_renewals"] == 2


@pytest.mark.parametrize("cls", [CyclePPO, CycleSAC])
def test_bad_options(cls: type) -> None:
    for option, value in {
        "reset_frequency": 0,
        "reset_rate": 0.0,
        "clear_moments": "yes",
        "renew_shared": 3,
    }.items():
        with pytest.raises(ValueError, match=option):
            cls("MlpPolicy", "Pendulum-v1", **{option: value})
    for rate in (1.5, -0.1, float("nan"), True):
        with pytest.raises(ValueError, match="reset_rate"):
            cls("MlpPolicy", "Pendulum-v1", reset_rate=rate)
    with pytest.raises(ValueError, match="net_arch"):
        cls("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": []})


def test_networks_it_cannot_renew() -> None:
    with pytest.raises(ValueError, match=r"net_arch .* renew_shared"):  # SB3's default for images is no layer of its own
        ppo([CycleReset()], policy="CnnPolicy", env=ImageTask(), policy_kwargs={})
    shared = {"net_arch": [8], "features_extractor_kwargs": {"features_dim": 16}, "share_features_extractor": True}
    with pytest.raises(ValueError, match="renew_shared"):
        tiny(CycleSAC, ImageTask(), policy="CnnPolicy", buffer_size=50, policy_kwargs=shared, renew_shared=True)
    with pytest.raises(ValueError, match="interventions: GradientMasking needs a replay buffer"):
        ppo([GradientMasking()])


def test_saved_and_loaded(tmp_path: Any) -> None:
    """A run that is saved and loaded resets the same neurons to the same values as one that goes on."""
    agent = ppo([CycleReset(reset_frequency=64, reset_rate=0.3)])
    agent.learn(128)
    agent.save(tmp_path / "model")
    loaded = ContinualPPO.load(tmp_path / "model", env=agent.get_env())
    for each in (agent, loaded):
        cycle_of(each).renew(cycle_of(each).choose())
    assert {name: c.tolist() for name, c in cycle_of(loaded).reset_counts.items()} == {
        name: c.tolist() for name, c in cycle_of(agent).reset_counts.items()
    }
    ours, theirs = parameters(loaded), parameters(agent)
    assert all(th.equal(ours[name], theirs[name]) for name in theirs)


def test_added_to_an_agent_that_has_been_trained(tmp_path: Any) -> None:
    """It resets when a multiple of its frequency is passed from then on, not at once."""
    agent = ppo([])
    agent.learn(320)
    agent.save(tmp_path / "model")
    later = ContinualPPO.load(tmp_path / "model", env=agent.get_env(), interventions=[CycleReset(300, 0.25)])
    renewals = []
    for _ in range(5):
        later.learn(64, reset_num_timesteps=False)
        renewals.append(cycle_of(later).state_dict()["n_renewals"])
    assert later.num_timesteps == 640
    assert renewals == [0, 0, 0, 0, 1]


def test_loaded_with_another_rate_the_cycle_goes_on_where_it_was(tmp_path: Any) -> None:
    agent = CyclePPO("MlpPolicy", "Pendulum-v1", reset_rate=0.1, policy_kwargs={"net_arch": [10]}, **SMALL)
    agent.learn(64)
    for _ in range(6):
        cycle_of(agent).renew(cycle_of(agent).choose())
    agent.save(tmp_path / "model")
    for rate, expected in ((0.3, [6, 7, 8]), (0.2, [6, 7]), (0.1, [6])):
        loaded = CyclePPO.load(tmp_path / "model", env=agent.get_env(), reset_rate=rate)
        assert cycle_of(loaded).choose()[0].tolist() == expected


def test_a_frozen_layer_stays_as_it_is() -> None:
    agent = ppo([CycleReset(64, 0.5), InnerDistillation(), ContinualBackprop(0.5, 1)], [8, 8])
    policy_net = agent.policy.mlp_extractor.policy_net
    for parameter in (*policy_net[0].parameters(), agent.policy.log_std):
        parameter.requires_grad_(False)
    agent.all_interventions.attach(agent)
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    agent.learn(192)
    after = agent.policy.state_dict()
    resets = {name: int(counts.sum()) for name, counts in cycle_of(agent).reset_counts.items()}
    assert resets["actor.policy_net.0"] == 0 < resets["actor.policy_net.2"]
    for name, value in before.items():
        is_frozen = name == "log_std" or name.startswith("mlp_extractor.policy_net.0")
        assert th.equal(after[name], value) == is_frozen, name
    for parameter in policy_net.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="net_arch"):
        agent.all_interventions.attach(agent)


def test_two_resets_draw_different_weights() -> None:
    agent = ppo([CycleReset(), CycleReset()])
    drawn = []
    for reset in agent.all_interventions:
        assert isinstance(reset, CycleReset)
        reset.renew([th.arange(8), th.arange(8)])
        drawn.append(agent.policy.mlp_extractor.policy_net[0].weight.detach().clone())
    assert not th.isclose(drawn[0], drawn[1]).any()
