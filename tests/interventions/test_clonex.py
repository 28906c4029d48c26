"""ClonEx: what is kept of a phase, the divergence from it, and who explores."""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from forgetting import after_both_tasks, plain_after_both_tasks
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tagged_tasks import (
    SERIAL,
    ImageTask,
    RecordingLogger,
    Spy,
    TaggedTask,
    differing,
    parameters,
    random_states,
    tagged_sequence,
    tiny,
)
from torch.distributions import Categorical, Normal, kl_divergence

from sb3_nbsp import ClonExDiscreteSAC, ClonExSAC, ContinualSAC
from sb3_nbsp.interventions import ClonEx
from sb3_nbsp.interventions.best_return import BestReturnExploration
from sb3_nbsp.tasks import TaskSequence


def clonex_of(agent: Any) -> Any:
    return agent.all_interventions.find(ClonEx)


def policy_in(agent: Any, observations: np.ndarray) -> Normal:
    mean, log_std, _ = agent.actor.get_action_dist_params(th.as_tensor(observations))
    return Normal(mean, log_std.exp())


def kept_policy(arrays: dict[str, np.ndarray]) -> Normal:
    return Normal(th.as_tensor(arrays["0.loc"]), th.as_tensor(arrays["0.scale"]))


def test_states_of_each_phase_are_kept_with_what_the_agent_did_in_them() -> None:
    ends = Spy()
    agent = tiny(ClonExSAC, tagged_sequence(), clone_states=25, interventions=[ends]).learn(190)
    memory = clonex_of(agent).memory
    assert list(memory) == ["red", "blue"]
    for task, tag, end in (("red", 1.0, ends.ends[2]), ("blue", 2.0, ends.ends[1])):  # red came back
        arrays = memory[task]
        assert {float(row[0]) for row in arrays["observations"]} == {tag}
        serials = {round(float(row[1]) / SERIAL) for row in arrays["observations"]}
        assert len(serials) == 25 and (task == "blue" or min(serials) > 60)
        then = end["policy"]
        policy = policy_in(then, arrays["observations"])
        th.testing.assert_close(kept_policy(arrays).loc, policy.loc)
        th.testing.assert_close(kept_policy(arrays).scale, policy.scale)
        q_values = then.critic(th.as_tensor(arrays["observations"]), th.as_tensor(arrays["actions"]))
        th.testing.assert_close(th.as_tensor(arrays["q_values"]), th.cat(q_values, dim=1))


def test_the_penalty_is_the_divergence_of_the_policy_from_what_is_kept() -> None:
    agent = tiny(ClonExSAC, tagged_sequence(), clone_coef=3.0, clone_critic_coef=0.5, clone_states=25).learn(110)
    clonex = clonex_of(agent)
    drawn: list[Any] = []
    sample = clonex._sample
    clonex._sample = lambda: drawn.append(sample()) or drawn[-1]
    penalty = clonex.penalty("actor")
    old, new = kept_policy(drawn[0]), policy_in(agent, drawn[0]["observations"])
    forward, reverse = (kl_divergence(*pair).sum(1).mean() for pair in ((old, new), (new, old)))
    assert len(drawn[0]["observations"]) == 128
    th.testing.assert_close(penalty, 3.0 * forward)
    assert abs(forward - reverse) > 1e-3 * forward > 0
    penalty = clonex.penalty("critic")
    q_values = agent.critic(th.as_tensor(drawn[1]["observations"]), th.as_tensor(drawn[1]["actions"]))
    distances = [(q[:, 0] - th.as_tensor(drawn[1]["q_values"])[:, j]).square().mean() for j, q in enumerate(q_values)]
    th.testing.assert_close(penalty, 0.5 * sum(distances))
    assert penalty > 0 and not np.array_equal(drawn[0]["observations"], drawn[1]["observations"])


def test_a_divergence_by_hand() -> None:
    # One action, two states: KL(N(0, 1) ‖ N(1, 2)) = ln 2 + (1 + 1) / 8 - 1/2 and 0
    clonex = ClonEx(clone_coef=2.0)
    tiny(ContinualSAC, tagged_sequence(), interventions=[clonex])
    clonex._kept = {"red": {"observations": np.zeros((1, 4), np.float32), "0.loc": np.zeros(1), "0.scale": np.ones(1)}}
    new = Normal(th.tensor([1.0, 0.0]), th.tensor([2.0, 1.0]))
    clonex._distribution = lambda observations: [Normal(new.loc[:, None], new.scale[:, None])]
    clonex._sample = lambda: {
        "observations": np.zeros((2, 4), np.float32),
        "0.loc": np.zeros((2, 1), np.float32),
        "0.scale": np.ones((2, 1), np.float32),
    }
    penalty = clonex.penalty("actor")
    assert penalty is not None and penalty.item() == pytest.approx(2 * (np.log(2) - 0.25) / 2, rel=1e-6)


def test_batches_come_from_all_tasks_in_equal_shares() -> None:
    agent = tiny(ClonExSAC, tagged_sequence(), clone_states=20, clone_batch_size=2000).learn(130)
    tags, counts = np.unique(clonex_of(agent)._sample()["observations"][:, 0], return_counts=True)
    assert tags.tolist() == [1.0, 2.0] and 850 < counts.min()


def test_the_divergence_falls() -> None:
    agent = tiny(ClonExSAC, tagged_sequence(), clone_coef=1000.0, learning_rate=1e-3).learn(85)
    with th.no_grad():
        for parameter in agent.actor.parameters():
            parameter += 0.1 * th.randn_like(parameter)
    clonex = clonex_of(agent)

    def divergence() -> float:
        return clonex.penalty("actor").item() / 1000

    before = divergence()
    agent.train(150, 16)
    assert divergence() < before / 5


def test_it_keeps_what_the_plain_agent_loses() -> None:
    lost, learned = plain_after_both_tasks()
    assert lost > 1.0 and learned < 0.05
    _, kept, compromise = after_both_tasks(ClonExSAC, clone_coef=1.0)
    assert kept < 0.05 and compromise < 0.1, "the two tasks can be told apart"


@pytest.mark.parametrize("options", [{"fused": False}, {}])
def test_without_a_coefficient_it_is_plain_and_as_fast(options: dict[str, Any]) -> None:
    ends = []
    for cls, own in ((ContinualSAC, {}), (ClonExSAC, {"clone_coef": 0.0})):
        agent = tiny(cls, tagged_sequence(), **own, **options).learn(130)
        assert agent._is_by_hand() is (options == {})
        ends.append((parameters(agent), random_states()))
    assert not differing(ends[0][0], ends[1][0]) and ends[0][1] == ends[1][1]
    assert clonex_of(agent).memory is None


def test_until_a_phase_has_ended_it_is_plain_and_fast() -> None:
    ends = [parameters(tiny(cls, tagged_sequence()).learn(60)) for cls in (ContinualSAC, ClonExSAC)]
    assert not differing(*ends)
    agent = tiny(ClonExSAC, tagged_sequence()).learn(59)
    assert agent._is_by_hand()
    assert not agent.learn(2, reset_num_timesteps=False)._is_by_hand()


def test_its_draws_are_its_own() -> None:
    """Random numbers of the agent are those of a plain one, in as many gradient steps."""
    states = []
    for cls in (ContinualSAC, ClonExSAC):
        tiny(cls, tagged_sequence()).learn(100)
        states.append(random_states())
    assert states[0] == states[1]


class Leaning(TaggedTask):
    """The more the first action is like the tag, the higher the reward."""

    def step(self, action: np.ndarray) -> Any:
        observation, _, *rest = super().step(action)
        return observation, float(-abs(action[0] - self.tag)), *rest


def test_the_best_of_the_earlier_policies_explores() -> None:
    agent = tiny(ClonExSAC, Leaning(1.5, horizon=5), best_return_exploration=True, clone_coef=0.0, phase_learning_starts=40)
    exploration = clonex_of(agent)._exploration
    for task, mean in (("low", -3.0), ("high", 3.0), ("middle", 0.0)):
        with th.no_grad():
            agent.actor.mu.weight.zero_()
            agent.actor.mu.bias.fill_(mean)
            agent.actor.log_std.weight.zero_()
            agent.actor.log_std.bias.fill_(-5.0)
        exploration.keep(task, agent.actor)
    before = parameters(agent)
    agent.start_phase("first")
    agent.learn(5)
    agent.start_phase("second")
    Leaning.played.clear()
    state = random_states()
    agent.learn(40, reset_num_timesteps=False)
    assert not differing(before, parameters(agent))
    acted = np.array([step[1][0] for step in Leaning.played[1.5]]).reshape(-1, 5)
    # The policy of the first phase is that which was kept last; the bounds are -2 and 2
    wanted = 2 * np.tanh([-3.0, 3.0, 0.0, 0.0])
    np.testing.assert_allclose(acted[:4], np.repeat(wanted[:, None], 5, axis=1), atol=0.1)
    np.testing.assert_allclose(acted[4:8], np.full((4, 5), wanted[1]), atol=0.1)
    assert random_states()[1] == state[1], "the agent's generator of noise is not used"


def test_without_earlier_policies_actions_are_random() -> None:
    assert BestReturnExploration().act(tiny(ContinualSAC, tagged_sequence()), np.zeros((1, 4))) is None
    states = []
    for cls, own in ((ContinualSAC, {}), (ClonExSAC, {"clone_coef": 0.0})):
        agent = tiny(cls, tagged_sequence(), **own).learn(75)
        states.append(agent.replay_buffer.actions[:15].copy())
    np.testing.assert_array_equal(*states)


def test_each_environment_explores_on_its_own() -> None:
    agent = tiny(ClonExSAC, DummyVecEnv([partial(TaggedTask, 1.0)] * 2), best_return_exploration=True)
    exploration = clonex_of(agent)._exploration
    for task in ("red", "blue"):
        exploration.keep(task, agent.actor)
    exploration.act(agent, np.zeros((2, 4), np.float32))
    assert exploration._playing == ["red", "blue"]
    exploration.follow(np.array([1.0, 5.0]), np.array([True, False]))
    assert exploration._playing == ["red", "blue"], "blue has not returned yet"
    exploration.follow(np.array([1.0, 5.0]), np.array([True, True]))
    assert exploration._returns == {"red": [1.0, 1.0], "blue": [10.0]}
    exploration.follow(np.array([1.0, 5.0]), np.array([True, True]))
    assert exploration._playing == ["blue", "blue"]


def test_the_memory_travels_with_the_replay_buffer(tmp_path: Any) -> None:
    agent = tiny(ClonExSAC, tagged_sequence(), clone_states=20).learn(100)
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    loaded = ClonExSAC.load(tmp_path / "model", env=tagged_sequence())
    with pytest.warns(UserWarning, match="ClonEx has no memory of the phases of this ClonExSAC that are over"):
        loaded.learn(0, reset_num_timesteps=False)
    loaded.load_replay_buffer(tmp_path / "buffer")
    batches = [clonex_of(each)._sample() for each in (agent, loaded)]
    assert all(np.array_equal(batches[0][name], batches[1][name]) for name in batches[0])
    state = pickle.loads(pickle.dumps(clonex_of(agent).memory_state()))
    state["kept"]["red"]["observations"] = np.zeros((20, 3))
    with pytest.raises(ValueError, match=r"kept of 'red' have the shape \(3,\), the agent's observations \(4,\)"):
        clonex_of(loaded).load_memory_state(state)


def test_observations_are_normalized_as_they_are_now() -> None:
    env = VecNormalize(DummyVecEnv([tagged_sequence]), norm_reward=False)
    agent = tiny(ClonExSAC, env, clone_states=20).learn(70)
    raw = clonex_of(agent).memory["red"]["observations"]
    assert {float(row[0]) for row in raw} == {1.0}
    seen: list[th.Tensor] = []
    own = clonex_of(agent)._distribution
    clonex_of(agent)._distribution = lambda observations: seen.append(observations) or own(observations)
    clonex_of(agent)._sample = lambda: clonex_of(agent).memory["red"]
    clonex_of(agent).penalty("actor")
    np.testing.assert_allclose(seen[0].numpy(), env.normalize_obs(raw), rtol=1e-5, atol=1e-5)


def test_discrete_actions() -> None:
    makers = dict.fromkeys(("red", "blue"), partial(gym.make, "CartPole-v1"))
    sequence = TaskSequence(makers, steps_per_task=60, mastery_threshold=None)
    options = {"best_return_exploration": True, "clone_critic_coef": 0.5, "clone_states": 20, "clone_coef": 3.0}
    agent = tiny(ClonExDiscreteSAC, sequence, **options).learn(90)
    clonex = clonex_of(agent)
    assert clonex._exploration._returns, "of whole episodes in the warm-up"
    clonex._sample = lambda: clonex.memory["red"]
    kept = {name: th.as_tensor(array) for name, array in clonex.memory["red"].items()}
    new = agent.actor.distribution(kept["observations"])
    expected = kl_divergence(Categorical(logits=kept["0.logits"]), new).mean()
    th.testing.assert_close(clonex.penalty("actor"), 3.0 * expected)
    taken = [q[range(20), kept["actions"][:, 0]] for q in agent.critic(kept["observations"])]
    distances = [(q - kept["q_values"][:, j]).square().mean() for j, q in enumerate(taken)]
    th.testing.assert_close(clonex.penalty("critic"), 0.5 * sum(distances))


def test_images_and_records() -> None:
    options = {"policy_kwargs": {"net_arch": [8], "features_extractor_kwargs": {"features_dim": 16}}, "batch_size": 4}
    small = {"buffer_size": 50, "learning_starts": 5, "clone_states": 6, "clone_batch_size": 4, "clone_critic_coef": 0.1}
    agent = tiny(ClonExSAC, ImageTask(), policy="CnnPolicy", **options, **small)
    agent.set_logger(logger := RecordingLogger())
    agent.start_phase("red")
    agent.learn(10)
    agent.start_phase("blue")
    assert clonex_of(agent).memory["red"]["observations"].dtype == np.uint8
    agent.learn(10, reset_num_timesteps=False)
    assert len(logger.values("clonex/divergence")) > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"clone_coef": -1.0},
        {"clone_critic_coef": float("nan")},
        {"clone_states": 0},
        {"clone_batch_size": 1.5},
        {"best_return_exploration": "yes"},
    ],
)
def test_bad_options(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
        tiny(ClonExSAC, tagged_sequence(), **wrong)
