"""Networks, diagnostics and neuron resets of agents of SB3 itself and of its contrib package."""

import gymnasium as gym
import numpy as np
import pytest
import sb3_contrib
import torch as th
from stable_baselines3 import DDPG, DQN, PPO, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import CallbackList, EvalCallback, EveryNTimesteps
from torch import nn

from sb3_nbsp import ContinualSAC, PlasticityCallback, diagnostics
from sb3_nbsp.interventions import CycleReset, ReDo, ResetCallback
from sb3_nbsp.interventions.networks import actor_of, networks_of

QRDQN, TQC = sb3_contrib.QRDQN, sb3_contrib.TQC
DISCRETE, CONTINUOUS = "CartPole-v1", "Pendulum-v1"
KINDS = [(DQN, DISCRETE), (QRDQN, DISCRETE), (TD3, CONTINUOUS), (DDPG, CONTINUOUS), (TQC, CONTINUOUS)]


def make(cls: type[BaseAlgorithm], env: str, **options) -> BaseAlgorithm:
    options = {"learning_starts": 10, "batch_size": 8, "policy_kwargs": {"net_arch": [16, 12]}, **options}
    return cls("MlpPolicy", env, seed=0, device="cpu", **options)


def states(model: BaseAlgorithm, n: int = 32) -> np.ndarray:
    shape = (n, *model.observation_space.shape)  # type: ignore[misc]
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("cls, env", KINDS)
def test_all_hidden_neurons_are_found_and_no_others(cls, env):
    model = make(cls, env)
    n_critics = {DQN: 0, QRDQN: 0, TD3: 2, DDPG: 1, TQC: 2}[cls]
    networks = networks_of(model)
    assert [network.name for network in networks] == ["actor", *(f"qf{i}" for i in range(n_critics))]
    for network in networks:
        assert [layer.n_neurons for layer in network.layers] == [16, 12]
        modules = {id(module) for module in network.owner.modules() if isinstance(module, nn.Linear)}
        assert all(id(layer.linear) in modules for layer in network.layers)
        moved = {id(each) for group in network.optimizer.param_groups for each in group["params"]}
        assert {id(each) for each in network.parameters} <= moved
    # One for each layer and the output layer or layers, weights and biases
    assert len(networks[0].parameters) == (8 if cls is TQC else 6)


def test_the_distribution_of_agents_that_draw_nothing():
    """DQN: the softmax of its values; QR-DQN: of their means over the quantiles; TD3: normal around its action."""
    dqn, qrdqn, td3 = make(DQN, DISCRETE), make(QRDQN, DISCRETE), make(TD3, CONTINUOUS)
    for model, values in ((dqn, lambda obs: dqn.q_net(obs)), (qrdqn, lambda obs: qrdqn.quantile_net(obs).mean(dim=1))):
        observations = th.as_tensor(states(model))
        [found] = actor_of(model).distribution(observations)
        th.testing.assert_close(found.probs, th.softmax(values(observations), dim=1))
        greedy = th.as_tensor(model.predict(observations.numpy(), deterministic=True)[0])
        assert th.equal(found.probs.argmax(dim=1), greedy)
    observations = th.as_tensor(states(td3))
    [normal] = actor_of(td3).distribution(observations)
    th.testing.assert_close(normal.mean, td3.actor(observations))
    assert (normal.stddev == 1).all()


def test_neurons_of_images():
    model = make(DQN, "CartPole-v1")
    assert len(networks_of(model)[0].layers) == 2
    pytest.importorskip("ale_py")
    atari = DQN("CnnPolicy", gym.make("Atari-Pong-Bowling-v0"), buffer_size=10, device="cpu")
    assert [layer.n_neurons for layer in actor_of(atari).layers] == [32, 64, 64, 512]


@pytest.mark.parametrize("cls, env", KINDS)
def test_diagnostics_leave_the_agent_as_it_is_and_see_dormant_neurons(cls, env):
    model = make(cls, env)
    before = {name: values.clone() for name, values in model.policy.state_dict().items()}
    found = diagnostics(model, states(model))
    assert all(th.equal(values, before[name]) for name, values in model.policy.state_dict().items())
    assert (found.n_neurons, found.n_states) == (28, 32)
    assert all(np.isfinite(value) for value in found.scalars().values())
    assert found.gradient_norm > 0
    layer = actor_of(model).layers[0]
    with th.no_grad():
        layer.linear.weight[:8] = 0
        layer.linear.bias[:8] = -1
    dead = diagnostics(model, states(model)).dormant_ratio
    assert dead >= 8 / 28


@pytest.mark.parametrize("cls, env", KINDS)
def test_training_is_recorded_and_not_touched(cls, env, tmp_path):
    alone, watched = make(cls, env).learn(60), make(cls, env)
    watched.learn(60, callback=PlasticityCallback(20, tmp_path, n_states=16, plot=False))
    lines = (tmp_path / "plasticity.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["0", "20", "40", "60"]
    for name, values in alone.policy.state_dict().items():
        assert th.equal(values, watched.policy.state_dict()[name]), name


@pytest.mark.parametrize("cls, env", [*KINDS, (PPO, CONTINUOUS)])
def test_redo_renews_dormant_neurons_of_the_network_that_acts(cls, env):
    """Their incoming weights are new, their outgoing ones 0; neurons that are not dormant, and targets, stay as they are."""
    options = {"n_steps": 20} if cls is PPO else {"learning_starts": 15}
    model = PPO("MlpPolicy", env, n_steps=20, batch_size=10, seed=0, device="cpu") if cls is PPO else make(cls, env, **options)
    layer = actor_of(model).layers[0]
    with th.no_grad():
        layer.linear.weight[3] = 0
        layer.linear.bias[3] = -1 if cls is not PPO else 0  # of tanh, 0 is silent
    redo = ReDo(reset_frequency=20, dormant_threshold=0.0, redo_states=32)
    before: dict[str, th.Tensor] = {}

    class Watch(ResetCallback):
        def _on_rollout_end(self) -> None:
            earlier = {name: values.clone() for name, values in model.policy.state_dict().items()}
            super()._on_rollout_end()
            if redo.reset_counts and sum(int(each.sum()) for each in redo.reset_counts.values()) and not before:
                before.update(earlier)
                renewed = redo.reset_counts[layer.name] > 0
                assert renewed[3]
                assert (layer.linear.weight[3] != 0).any()
                below = actor_of(model).layers[1]
                kept = redo.reset_counts[below.name] == 0  # between two that are renewed together, the weight is a new one
                assert kept.any()
                assert (below.linear.weight[kept, 3] == 0).all()
                name = next(key for key, each in model.policy.named_parameters() if each is layer.linear.weight)
                assert th.equal(layer.linear.weight[~renewed], earlier[name][~renewed])
                targets = [key for key in earlier if "target" in key]
                assert all(th.equal(earlier[key], model.policy.state_dict()[key]) for key in targets)

    model.learn(41, callback=Watch(redo))
    assert before


def test_resets_come_at_multiples_of_their_frequency_and_a_seed_repeats():
    counts = []
    for _ in range(2):
        model, reset = make(DQN, DISCRETE, learning_starts=20), CycleReset(reset_frequency=10, reset_rate=0.25)
        model.learn(60, callback=ResetCallback(reset))
        model.learn(20, callback=ResetCallback(reset), reset_num_timesteps=False)
        counts.append({name: each.tolist() for name, each in reset.reset_counts.items()})
    assert counts[0] == counts[1]
    assert sum(map(sum, counts[0].values())) > 0


def test_what_the_callback_refuses():
    with pytest.raises(TypeError, match="reset must be a ReDo, a RandomReset or a CycleReset, not 3"):
        ResetCallback(3)  # type: ignore[arg-type]
    model = make(ContinualSAC, CONTINUOUS)
    with pytest.raises(ValueError, match=r"ContinualSAC takes it without a callback: interventions=\[ReDo"):
        model.learn(5, callback=ResetCallback(ReDo()))


@pytest.mark.parametrize("in_list", [False, True])
@pytest.mark.parametrize("outer", [EveryNTimesteps, EvalCallback])
def test_resets_inside_callbacks_that_hand_on_steps_only_are_refused(outer, in_list):
    model, inside = make(DQN, DISCRETE), ResetCallback(ReDo())
    given = CallbackList([inside]) if in_list else inside
    options = {"callback": given, "n_steps": 10} if outer is EveryNTimesteps else {"callback_on_new_best": given}
    callback = outer(**options) if outer is EveryNTimesteps else outer(gym.make(DISCRETE), eval_freq=3, **options)
    with pytest.raises(ValueError, match=f"ResetCallback must see every step and cannot be inside {outer.__name__}"):
        model.learn(5, callback=callback)
