"""Inner distillation on real agents: what it moves, what it leaves alone, when it stops."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tagged_tasks import ImageTask, RecordingLogger, random_states, tiny
from torch.distributions import kl_divergence

from sb3_nbsp import P3O, SBPSAC, ContinualPPO
from sb3_nbsp.interventions import CycleReset, InnerDistillation, Intervention
from sb3_nbsp.interventions.observations import training_observations

SMALL: dict[str, Any] = {"n_steps": 64, "batch_size": 32, "n_epochs": 2, "seed": 0, "device": "cpu"}
NEVER = 10**6
CHOSEN = [th.tensor([0, 1, 2, 3]), th.tensor([4, 5])]


class DrawTask(gym.Env):
    """Random observations, any action space."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self, action_space: spaces.Space) -> None:
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return observation, float(np.sum(action)), False, self.np_random.random() < 0.1, {}


ACTIONS: dict[str, spaces.Space] = {
    "continuous": spaces.Box(-1, 1, (2,)),
    "discrete": spaces.Discrete(3),
    "multi-discrete": spaces.MultiDiscrete([3, 4]),
    "multi-binary": spaces.MultiBinary(4),
}


class Snapshots(Intervention):
    """Copies of the agent around a renewal: put it in front of the distillation."""

    def before_renewal(self) -> None:
        self._before = self._picture()

    def after_renewal(self, renewed: Sequence[Any]) -> None:
        self._between = self._picture()

    def _picture(self) -> dict[str, Any]:
        policy = self.agent.policy
        optimizer = getattr(policy, "optimizer", None) or policy.actor.optimizer
        return {
            "parameters": {name: value.detach().clone() for name, value in policy.named_parameters()},
            "moments": copy.deepcopy(optimizer.state_dict()["state"]),
        }

    @property
    def pictures(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Before the renewal, after it and before the distillation, now."""
        return self._before, self._between, self._picture()


def p3o(action_space: str = "continuous", **kwargs: Any) -> P3O:
    policy_kwargs = kwargs.pop("policy_kwargs", {"net_arch": [32, 32]})
    options = {"reset_frequency": NEVER, "interventions": [], **SMALL, **kwargs}
    agent = P3O("MlpPolicy", DrawTask(ACTIONS[action_space]), policy_kwargs=policy_kwargs, **options)
    agent.learn(64)
    # So that a reset makes a difference: SB3's initial action layer is nearly zero
    with th.no_grad():
        agent.policy.action_net.weight.mul_(500)
    return agent


def distillation_of(agent: Any) -> InnerDistillation:
    found: InnerDistillation = agent.all_interventions.find(InnerDistillation)
    return found


def renew(agent: Any, chosen: list[th.Tensor] = CHOSEN) -> Snapshots:
    """Renew neurons of an agent, and distil; with snapshots in front of the distillation."""
    snapshots = Snapshots()
    snapshots.attach(agent)
    agent.all_interventions._all.insert(0, snapshots)
    agent.set_logger(RecordingLogger())
    agent.all_interventions.find(CycleReset).renew(chosen)
    return snapshots


def loss_by_hand(agent: Any, parameters: dict[str, th.Tensor], states: th.Tensor, teacher: dict[str, th.Tensor]) -> float:
    """Equation 4 over all states at once, from the parameters of teacher and student."""
    policy, alpha = agent.policy, distillation_of(agent).distill_alpha
    now = {name: value.detach().clone() for name, value in policy.named_parameters()}

    def act(values: dict[str, th.Tensor]) -> list[Any]:
        with th.no_grad():
            for name, parameter in policy.named_parameters():
                parameter.copy_(values[name])
            found = agent.all_interventions.find(CycleReset).network.distribution(states)
            for name, parameter in policy.named_parameters():
                parameter.copy_(now[name])
        return found

    total = th.zeros(len(states))
    for old, new in zip(act(teacher), act(parameters), strict=True):
        forward, backward = kl_divergence(old, new), kl_divergence(new, old)
        double = alpha * forward + (1 - alpha) * backward
        total += double.sum(1) if double.dim() > 1 else double
    return total.mean().item()


@pytest.mark.parametrize("action_space", ACTIONS)
def test_the_policy_differs_after_the_reset_and_is_back_after_the_distillation(action_space: str) -> None:
    agent = p3o(action_space, distill_learning_rate=3e-3, distill_batch_size=16)
    before, between, after = renew(agent).pictures
    states = training_observations(agent, 64, 0)
    assert loss_by_hand(agent, before["parameters"], states, before["parameters"]) == pytest.approx(0, abs=1e-6)
    loss_between = loss_by_hand(agent, between["parameters"], states, before["parameters"])
    loss_after = loss_by_hand(agent, after["parameters"], states, before["parameters"])
    assert loss_between > 0.05
    assert loss_after <= 0.01 + 1e-6
    record = agent.logger.values
    assert record("distillation/loss_before") == [pytest.approx(loss_between, rel=1e-4)]
    assert record("distillation/loss") == [pytest.approx(loss_after, rel=1e-3, abs=1e-6)]
    assert record("distillation/at_cap") == [0]
    assert record("distillation/epochs") == record("distillation/total_epochs") == [distillation_of(agent).epochs]
    assert 0 < distillation_of(agent).epochs < 100


def test_what_moves() -> None:
    agent = p3o(distill_threshold=0.0, max_distill_epochs=3)
    before, between, after = renew(agent).pictures
    rows = {"mlp_extractor.policy_net.0": [0, 1, 2, 3], "mlp_extractor.policy_net.2": [4, 5]}
    for index, (name, value) in enumerate(between["parameters"].items()):
        module = name.rsplit(".", 1)[0]
        frozen = th.zeros(len(value), dtype=th.bool)
        frozen[rows.get(module, [])] = True
        is_actor = module in rows or name.startswith(("action_net", "log_std"))
        learned = after["parameters"][name]
        # The neurons just renewed did not move at all; of the rest of the actor everything did; the critic did not
        assert th.equal(learned[frozen], value[frozen]), name
        assert (learned[~frozen] != value[~frozen]).any() == is_actor, name
        # PPO's own moments: zero where it was reset, as they were elsewhere
        for key in ("exp_avg", "exp_avg_sq"):
            now, then = after["moments"][index][key], before["moments"][index][key]
            assert (now[frozen] == 0).all()
            assert th.equal(now[~frozen], then[~frozen]), name
        assert after["moments"][index]["step"] == before["moments"][index]["step"]


def test_the_cap() -> None:
    agent = p3o(distill_threshold=0.0, max_distill_epochs=2)
    renew(agent)
    assert agent.logger.values("distillation/epochs") == [2]
    assert agent.logger.values("distillation/at_cap") == [1]
    agent.learn(64, reset_num_timesteps=False)  # training goes on
    assert agent.num_timesteps == 128


def test_number_of_gradient_steps() -> None:
    """An epoch is one pass over all states, in minibatches."""
    agent = p3o(distill_threshold=0.0, max_distill_epochs=2, distill_batch_size=24)
    seen: list[th.Tensor] = []
    distillation = distillation_of(agent)
    step = distillation._step

    def spy(batch: th.Tensor, *args: Any) -> None:
        seen.append(batch)
        step(batch, *args)

    distillation._step = spy  # type: ignore[method-assign]
    renew(agent)
    assert [len(batch) for batch in seen] == [24, 24, 16] * 2
    for epoch in (seen[:3], seen[3:]):
        assert sorted(th.cat(epoch).tolist()) == list(range(64))
    assert not th.equal(th.cat(seen[:3]), th.cat(seen[3:]))


def test_at_least_one_epoch_unless_told_otherwise() -> None:
    for minimum in (1, 0):
        agent = p3o(distill_threshold=1e9, min_distill_epochs=minimum)
        snapshots = renew(agent)
        _, between, after = snapshots.pictures
        assert distillation_of(agent).epochs == minimum
        is_same = all(th.equal(between["parameters"][name], value) for name, value in after["parameters"].items())
        assert is_same == (minimum == 0)


@pytest.mark.parametrize("share", [True, False])
def test_cnn(share: bool) -> None:
    """A features extractor that the critic shares stays as it is; one of the actor's own learns."""
    arch = {"net_arch": {"pi": [8], "vf": [8]}, "features_extractor_kwargs": {"features_dim": 16}}
    arch["share_features_extractor"] = share  # type: ignore[assignment]
    agent = P3O("CnnPolicy", ImageTask(), reset_frequency=NEVER, policy_kwargs=arch, interventions=[], **SMALL)
    agent.learn(64)
    layers = agent.all_interventions.find(CycleReset).network.layers
    chosen = [th.tensor([1]) for _ in layers]
    _, between, after = renew(agent, chosen).pictures
    moved = {name for name, value in after["parameters"].items() if not th.equal(value, between["parameters"][name])}
    assert any(name.startswith("features_extractor") for name in moved) == (not share)
    assert not any(name.startswith(("vf_", "value_net", "mlp_extractor.value_net")) for name in moved)
    if share:
        assert not any("features_extractor" in name for name in moved)
        shared = P3O("CnnPolicy", ImageTask(), reset_frequency=64, policy_kwargs=arch, renew_shared=True, **SMALL).learn(64)
        reset, epochs = shared.all_interventions.find(CycleReset), distillation_of(shared).epochs
        assert len(reset.network.layers) == 5
        assert epochs >= 1
        shared.policy.zero_grad()  # the shared layers then have no gradients to hold back
        reset.renew([th.tensor([1]) for _ in reset.network.layers])
        assert distillation_of(shared).epochs > epochs


@pytest.mark.parametrize("use_sde", [False, True])
def test_sac(use_sde: bool) -> None:
    """The states come from the replay buffer, normalized; the critics and the entropy coefficient do not move."""
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    options = {"distill_states": 300, "distill_batch_size": 30, "distill_learning_rate": 3e-3}
    agent = tiny(SBPSAC, env, reset_frequency=NEVER, use_sde=use_sde, policy_kwargs={"net_arch": [32, 32]}, **options)
    agent.learn(60)
    states = training_observations(agent, 300, 5)
    assert states.shape == (300, 3)
    stored = agent.replay_buffer.observations[:60, 0]
    normalized = th.as_tensor(env.normalize_obs(stored))
    assert all((normalized == state).all(1).any() for state in states)
    assert not th.equal(states, training_observations(agent, 300, 6))
    assert th.equal(states, training_observations(agent, 300, 5))
    random, ent_coef = random_states(), agent.log_ent_coef.item()
    with th.no_grad():
        (agent.actor.mu[0] if use_sde else agent.actor.mu).weight.mul_(8 if not use_sde else 2)
    _, between, after = renew(agent).pictures
    assert random_states() == random
    assert agent.log_ent_coef.item() == ent_coef
    moved = {name for name, value in after["parameters"].items() if not th.equal(value, between["parameters"][name])}
    assert moved
    assert all(name.startswith("actor") for name in moved)
    assert agent.logger.values("distillation/loss")[0] <= 0.01
    assert agent.logger.values("distillation/loss_before")[0] > 0.05
    for name, value in between["parameters"].items():
        if "latent_pi.0" in name:
            assert th.equal(value[:4], after["parameters"][name][:4])


def test_it_draws_nothing_from_the_global_streams() -> None:
    ends = []
    for interventions in ([], [CycleReset(64, 0.25), InnerDistillation()]):
        agent = ContinualPPO("MlpPolicy", "Pendulum-v1", interventions=interventions, **SMALL).learn(192)
        ends.append(random_states())
    assert distillation_of(agent).epochs > 0
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    ("option", "values"),
    {
        "distill_alpha": [-0.1, 1.1, "0.4", None],
        "distill_threshold": [-1e-9, None],
        "max_distill_epochs": [0, 1.5],
        "min_distill_epochs": [-1, 101],
        "distill_states": [0, 10.5],
        "distill_batch_size": [0],
        "distill_learning_rate": [0, -1],
    }.items(),
)
def test_bad_options(option: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=option):
            P3O("MlpPolicy", "Pendulum-v1", **{option: value})
        with pytest.raises(ValueError, match=option):
            SBPSAC("MlpPolicy", "Pendulum-v1", **{option: value})
