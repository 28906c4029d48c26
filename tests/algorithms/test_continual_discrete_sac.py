"""SAC for discrete actions as an agent: targets, time limits, phases, files, options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from discrete_tasks import game, games, pole, poles, tiny
from gymnasium import spaces
from gymnasium.wrappers import TransformAction
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_nbsp import (
    CBPDiscreteSAC,
    ContinualDiscreteSAC,
    CycleDiscreteSAC,
    NBSPDiscreteSAC,
    PlasticityCallback,
    ReDoDiscreteSAC,
    SBPDiscreteSAC,
)
from sb3_nbsp.algorithms.autograd_discrete_sac import DiscreteGradients
from sb3_nbsp.interventions import ExperienceReplay, GradientMasking
from sb3_nbsp.interventions.networks import networks_of
from sb3_nbsp.neurons.crelu import CReLU


def parameters(agent: Any) -> dict[str, th.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in agent.policy.state_dict().items()}


def differing(one: dict[str, th.Tensor], other: dict[str, th.Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not th.equal(one[name], other[name])]


def when_targets_moved(agent: Any, *totals: int) -> list[int]:
    """Environment steps in the agent's life at which the targets became the critics."""
    moved: list[int] = []
    update = agent._update_targets

    def recording() -> None:
        update()
        moved.append(agent._life_steps)
        pairs = zip(agent.critic.parameters(), agent.critic_target.parameters(), strict=True)
        assert all(th.equal(one, other) for one, other in pairs)

    agent._update_targets = recording
    for total in totals:
        agent.learn(total)
    return moved


@pytest.mark.parametrize(
    ("options", "totals", "expected"),
    [
        ({"train_freq": 4, "target_update_interval": 40}, [100, 70], [40, 80, 120, 160]),
        ({"train_freq": 4, "target_update_interval": 40, "learning_starts": 60}, [130], [80, 120]),
        ({"train_freq": 4, "gradient_steps": 4, "target_update_interval": 2, "learning_starts": 8}, [14], [12, 12, 16, 16]),
        ({"train_freq": 1, "gradient_steps": 2, "target_update_interval": 3, "learning_starts": 3}, [10], [6, 9]),
    ],
    ids=["over two calls of learn", "none ahead of learning_starts", "many steps a rollout", "two a step"],
)
def test_targets_change_at_multiples_of_environment_steps(options: Any, totals: list[int], expected: list[int]) -> None:
    agent = tiny(ContinualDiscreteSAC, **{"tau": 1.0, "learning_starts": 0, **options})
    assert when_targets_moved(agent, *totals) == expected


def test_targets_change_every_8000_environment_steps() -> None:
    env = DummyVecEnv([pole] * 16)
    agent = tiny(ContinualDiscreteSAC, env, tau=1.0, train_freq=25, target_update_interval=8000)
    assert when_targets_moved(agent, 17_000) == [8000, 16_000]


def test_targets_of_parallel_environments() -> None:
    env = DummyVecEnv([pole] * 3)
    agent = tiny(ContinualDiscreteSAC, env, tau=1.0, learning_starts=0, train_freq=2, target_update_interval=20)
    assert when_targets_moved(agent, 66) == [24, 42, 60], "in the rollouts of six steps with 20, 40 and 60 in them"


@pytest.mark.parametrize(
    ("options", "n_steps"),
    [
        ({"train_freq": 4}, 4 * 60),
        ({"train_freq": 1, "gradient_steps": 2}, 30),
        ({"train_freq": 1, "gradient_steps": -1}, 60),
        ({"train_freq": (2, "episode"), "gradient_steps": 5}, 2 * 10 * 60 // 5),
    ],
)
def test_further_gradient_steps_move_the_targets_as_often_as_others(options: Any, n_steps: int) -> None:
    """60 gradient steps beside the environment steps, as PackNet makes them, count as the environment steps of 60."""
    agent = tiny(ContinualDiscreteSAC, pole(horizon=10), tau=1.0, learning_starts=0, target_update_interval=15, **options)
    moved = when_targets_moved(agent, 40)
    assert moved and agent._life_steps == 40
    before = len(moved)
    agent.train_further(60)
    assert agent._life_steps == 40 + n_steps
    assert len(moved) - before == (40 + n_steps) // 15 - 40 // 15
    agent.learn(20, reset_num_timesteps=False)
    assert agent._life_steps == 60 + n_steps and len(moved) == (60 + n_steps) // 15


def test_time_limits_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    critic_loss = DiscreteGradients.critic_loss

    def recording(self: Any, data: Any, target_q_values: th.Tensor) -> th.Tensor:
        seen.append((data, target_q_values, self.next_values(data, agent.ent_coef_tensor)))
        return critic_loss(self, data, target_q_values)

    monkeypatch.setattr(DiscreteGradients, "critic_loss", recording)
    agent = tiny(ContinualDiscreteSAC, pole(horizon=1), ent_coef=0.1, fused=False)
    agent.learn(24)
    assert agent.replay_buffer.dones[:20].all() and agent.replay_buffer.timeouts[:20].all()
    for data, target, following in seen:
        th.testing.assert_close(target, data.rewards + 0.99 * following)
        assert not th.equal(data.observations, data.next_observations)

    seen.clear()
    agent = tiny(ContinualDiscreteSAC, pole(), ent_coef=0.1, fused=False)
    agent.learn(60)
    ends = [(data.dones.flatten() == 1, target, data.rewards) for data, target, _ in seen]
    assert any(done.any() for done, _, _ in ends)
    for done, target, rewards in ends:
        assert th.equal(target[done], rewards[done]), "a fall ends it"


@pytest.mark.parametrize("cls", [ContinualDiscreteSAC, NBSPDiscreteSAC, CycleDiscreteSAC])
def test_the_same_seed_gives_the_same_run_with_or_without_idle_methods(cls: Any) -> None:
    runs = [parameters(tiny(each, fused=False).learn(60)) for each in (ContinualDiscreteSAC, cls)]
    assert differing(*runs) == []
    assert differing(runs[0], parameters(tiny(cls, seed=1).learn(60)))


@pytest.mark.parametrize("n_envs", [1, 2])
def test_nbsp_over_a_sequence_is_saved_and_loaded(n_envs: int, tmp_path: Path) -> None:
    env = DummyVecEnv([poles] * n_envs)
    options: dict[str, Any] = {"identification_steps": 60, "memory_size": 40, "replay_interval": 2, "train_freq": 4}
    agent = tiny(NBSPDiscreteSAC, env, **options)
    agent.learn(160 * n_envs)
    masking, replay = (agent.all_interventions.find(kind) for kind in (GradientMasking, ExperienceReplay))
    assert agent.phase.index == 2 and set(masking.skill_neurons) == {"short", "long"}
    assert replay.memory is not None and set(replay.memory.tasks) == {"short", "long"}
    agent.save(tmp_path / "agent.zip")
    agent.save_replay_buffer(tmp_path / "buffer.pkl")
    loaded = NBSPDiscreteSAC.load(tmp_path / "agent.zip", DummyVecEnv([poles] * n_envs))
    loaded.load_replay_buffer(tmp_path / "buffer.pkl")
    assert differing(parameters(agent), parameters(loaded)) == [] and loaded._life_steps == agent._life_steps
    loaded.learn(40 * n_envs, reset_num_timesteps=False)
    assert loaded.phase.index >= 2 and loaded._n_updates > agent._n_updates
    memory = loaded.all_interventions.find(ExperienceReplay).memory
    assert memory is not None and set(memory.tasks) == {"short", "long"}


@pytest.mark.parametrize("is_shared", [False, True])
def test_channels_are_neurons(is_shared: bool) -> None:
    extractor = {"features_extractor_kwargs": {"features_dim": 16}, "net_arch": [16], "share_features_extractor": is_shared}
    options: dict[str, Any] = {"policy": "CnnPolicy", "policy_kwargs": extractor, "buffer_size": 100, "learning_starts": 10}
    options |= {"identification_steps": 16, "memory_size": 20, "gradient_steps": 4, "train_freq": 16}
    agent = tiny(NBSPDiscreteSAC, games(30), **options, goal_metric=lambda reward, done, info: info["episode_frame_number"])
    agent.learn(40)
    found = {network.name: [layer.n_neurons for layer in network.layers] for network in networks_of(agent)}
    assert found == {name: [32, 64, 64, 16, 16] for name in ("actor", "qf0", "qf1")}
    (task,) = agent.all_interventions.find(GradientMasking).skill_neurons
    masks = agent.all_interventions.find(GradientMasking).masks
    assert task == "Pong" and len(masks) == (11 if is_shared else 15)
    assert any((mask < 1).any() for name, mask in masks.items() if "cnn" in name)


@pytest.mark.parametrize("cls", [SBPDiscreteSAC, CycleDiscreteSAC, ReDoDiscreteSAC, CBPDiscreteSAC])
def test_resets_reach_the_convolutions(cls: Any) -> None:
    own = {"maturity_threshold": 2, "replacement_rate": 0.3} if cls is CBPDiscreteSAC else {}
    own = own or {"reset_frequency": 24, "reset_rate": 0.3}
    own |= {"max_distill_epochs": 1, "distill_states": 16} if cls is SBPDiscreteSAC else {}
    kwargs = {"features_extractor_kwargs": {"features_dim": 16}, "kaiming_init": True}
    options: dict[str, Any] = {"policy": "CnnPolicy", "policy_kwargs": kwargs, "buffer_size": 100, "learning_starts": 10}
    agent = tiny(cls, game("Pong"), **options, train_freq=8, **own)
    agent.learn(60)
    (counts, *_) = [each.reset_counts for each in agent.all_interventions if hasattr(each, "reset_counts")]
    assert len(counts) == 4 and sum(int(each.sum()) for name, each in counts.items() if "cnn" in name) > 0


def test_reset_critics_draws_in_the_policys_way() -> None:
    agent = tiny(ContinualDiscreteSAC, poles(), reset_critics=True, policy_kwargs={"net_arch": [64], "kaiming_init": True})
    agent.learn(10)
    before = parameters(agent)
    agent._renew_critics()
    changed = differing(before, parameters(agent))
    assert changed and not any(name.startswith("actor") for name in changed)
    for critic in (agent.critic, agent.critic_target):
        for net in critic.q_networks:
            assert all(not layer.bias.any() for layer in net if isinstance(layer, nn.Linear))
            assert net[2].weight.std().item() == pytest.approx(np.sqrt(2 / 64), rel=0.25)
    assert not agent.critic.optimizer.state


def test_kaiming_init_and_the_eps_of_all_optimizers() -> None:
    kwargs = {"net_arch": [256], "kaiming_init": True, "optimizer_kwargs": {"eps": 1e-4}}
    agent = tiny(ContinualDiscreteSAC, policy_kwargs=kwargs)
    layers = [module for module in agent.policy.modules() if isinstance(module, nn.Linear)]
    assert len(layers) == 10 and not any(layer.bias.any() for layer in layers)
    hidden = agent.actor.action_net.weight
    assert hidden.std().item() == pytest.approx(np.sqrt(2 / 256), rel=0.1)
    assert [group["eps"] for optimizer in agent._optimizers() for group in optimizer.param_groups] == [1e-4] * 3
    assert networks_of(agent)[0].initializer.kaiming
    assert agent.critic.features_extractors[0] is not agent.critic.features_extractors[1]


def test_the_policy_is_sampled_and_its_mode_is_deterministic(tmp_path: Path) -> None:
    agent = tiny(ContinualDiscreteSAC)
    agent.actor.action_net.bias.data = th.tensor([0.0, 2.0])
    observations = np.zeros((400, 4), dtype=np.float32)
    sampled, best = (agent.predict(observations, deterministic=each)[0] for each in (False, True))
    prob = agent.actor.distribution(th.zeros(1, 4)).probs[0, 1].item()
    assert sampled.mean() == pytest.approx(prob, abs=0.08) and 0 < sampled.mean() < 1 and (best == 1).all()
    agent.policy.save(tmp_path / "policy.pkl")
    loaded = type(agent.policy).load(tmp_path / "policy.pkl")
    assert (loaded.predict(observations, deterministic=True)[0] == 1).all()


def test_diagnostics_and_crelu() -> None:
    agent = tiny(ContinualDiscreteSAC, policy_kwargs={"net_arch": [8, 8], "activation_fn": CReLU})
    agent.learn(40, callback=PlasticityCallback(record_freq=20, plot=False))
    assert agent.actor.action_net.in_features == 16
    assert [layer.features_per_neuron for layer in networks_of(agent)[1].layers] == [2, 2]


class Shifted(gym.Wrapper):
    action_space = spaces.Discrete(2, start=1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"use_sde": True}, ValueError, "gSDE"),
        ({"action_noise": NormalActionNoise(np.zeros(1), np.ones(1))}, ValueError, "action_noise"),
        ({"env": Shifted(pole())}, ValueError, "begin at 1, but must begin at 0"),
        ({"env": "Pendulum-v1"}, AssertionError, "Discrete"),
        ({"loss_reduction": "median"}, ValueError, "loss_reduction must be one of 'mean', 'sum'"),
        ({"target_entropy_scale": 1.5}, ValueError, r"target_entropy_scale must be a number in \[0, 1\], not 1.5"),
        ({"target_entropy_scal": 0.5}, TypeError, "target_entropy_scale"),
        ({"target_entropy": -2.0}, ValueError, r"between 0 and log\(2\) = 0.693, the largest entropy of 2 actions, not -2.0"),
        ({"target_entropy": 0.7}, ValueError, r"between 0 and log\(2\) = 0.693"),
        ({"target_entropy": "aut"}, ValueError, r"target_entropy must be \"auto\" or between 0 .* not 'aut'"),
        ({"target_update_interval": 0}, ValueError, "target_update_interval must be a whole number of at least 1, not 0"),
        ({"policy_kwargs": {"log_std_init": -3}}, TypeError, "log_std_init"),
    ],
)
def test_bad_input(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tiny(ContinualDiscreteSAC, **options)


def test_shifted_actions_can_be_wrapped() -> None:
    env = TransformAction(Shifted(pole()), lambda action: action - 1, spaces.Discrete(2))
    assert tiny(ContinualDiscreteSAC, env).action_space.start == 0


def test_the_target_entropy_of_a_loaded_agent(tmp_path: Path) -> None:
    tiny(ContinualDiscreteSAC).save(tmp_path / "agent.zip")
    load = ContinualDiscreteSAC.load
    assert load(tmp_path / "agent.zip").target_entropy == pytest.approx(0.89 * np.log(2))
    assert load(tmp_path / "agent.zip", target_entropy_scale=0.5).target_entropy == pytest.approx(0.5 * np.log(2))
    assert load(tmp_path / "agent.zip", target_entropy=0.1).target_entropy == 0.1
    agent = tiny(ContinualDiscreteSAC, target_entropy=0.3)
    agent.save(tmp_path / "agent.zip")
    assert load(tmp_path / "agent.zip").target_entropy == 0.3
    with pytest.raises(AttributeError, match="target_entropy_scale of ContinualDiscreteSAC is fixed"):
        agent.target_entropy_scale = 0.5
    agent.loss_reduction = "sum"
    assert agent.actor_loss_scale == 1
