"""Skill neurons, identified on fresh steps of the trained policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from identification_checks import (
    check_scores,
    masked,
    masking_of,
    two_sequences,
)
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize
from tagged_tasks import (
    Spy,
    TaggedTask,
    differing,
    parameters,
    random_states,
    tagged_sequence,
    tiny,
)

from sb3_nbsp import ContinualSAC
from sb3_nbsp.interventions import GradientMasking
from sb3_nbsp.interventions.own_seeds import own_seed


@pytest.mark.parametrize("normalized", [False, True])
def test_fresh_steps(normalized: bool) -> None:
    """T steps of the stochastic policy in the finished phase's task, and nothing else is touched."""
    n_steps = 37
    env: Any = DummyVecEnv([lambda: tagged_sequence(horizon=10)])
    env = VecNormalize(env) if normalized else env
    before, after = Spy(), Spy()
    masking = GradientMasking(identification_data="fresh", identification_steps=n_steps)
    agent = tiny(ContinualSAC, env, interventions=[before, masking, after])
    agent.learn(100)
    # Phase 0: 60 steps of training on red, then 37 fresh ones on red; meanwhile 40 of training on blue
    assert {tag: len(steps) for tag, steps in TaggedTask.played.items()} == {1.0: 60 + n_steps, 2.0: 40}
    fresh = TaggedTask.played[1.0][60:]
    assert [step[4] for step in fresh] == [i % 10 == 9 for i in range(n_steps)]
    end = before.ends[0]
    policy = end["policy"]

    def seen(observation: np.ndarray) -> np.ndarray:
        if not normalized:
            return observation
        statistics = end["normalizer"][0]
        return np.clip((observation - statistics.mean) / np.sqrt(statistics.var + 1e-8), -10, 10).astype(np.float32)

    # They are what the policy does with noise of the intervention's own seed
    with th.random.fork_rng():
        th.manual_seed(own_seed(agent, end["phase"], 3))
        for observation, action, _, _, _ in fresh:
            np.testing.assert_allclose(policy.predict(seen(observation)[None])[0][0], action, atol=1e-6)
    inputs = [
        (th.tensor(seen(observation)[None]), th.tensor(policy.scale_action(action)[None])) for observation, action, *_ in fresh
    ]
    check_scores(masking, policy, "red", inputs, [success for *_, success, _ in fresh])
    # The agent, its environment and the global random streams are as they were
    first, last = before.ends[0], after.ends[0]
    assert first["random"] == last["random"]
    assert differing(first["policy"].state_dict(), last["policy"].state_dict()) == []
    for name in ("pos", "full"):
        assert getattr(first["buffer"], name) == getattr(last["buffer"], name)
    np.testing.assert_array_equal(first["buffer"].observations, last["buffer"].observations)
    if normalized:
        np.testing.assert_array_equal(first["normalizer"][0].mean, last["normalizer"][0].mean)
        assert first["normalizer"][0].count == last["normalizer"][0].count
    assert (first["num_timesteps"], first["n_updates"]) == (last["num_timesteps"], last["n_updates"]) == (60, 40)


@pytest.mark.parametrize("metric", ["episode_success", "episode_return"])
def test_fresh_steps_of_an_unfinished_episode_are_left_out(metric: str) -> None:
    spy = Spy()
    options = {"identification_data": "fresh", "identification_steps": 28, "goal_metric": metric, "skill_proportion": 0.5}
    agent = masked(tagged_sequence(success=1), spy, **options)  # the first episode of an environment has no success
    agent.learn(60)
    fresh = TaggedTask.played[1.0][60:]
    assert len(fresh) == 28
    q = []
    for start in (0, 10):
        episode = fresh[start : start + 10]
        value = (
            sum(step[2] for step in episode) if metric == "episode_return" else max(float(step[3] or 0) for step in episode)
        )
        q += [value] * 10
    policy = spy.ends[0]["policy"]
    inputs = [
        (th.tensor(observation[None]), th.tensor(policy.scale_action(action)[None])) for observation, action, *_ in fresh[:20]
    ]
    assert metric == "episode_return" or q == [0] * 10 + [1] * 10
    check_scores(masking_of(agent), policy, "red", inputs, q)


def test_training_with_fresh_identification_is_undisturbed() -> None:
    """Without masks (alpha 1, hence factors of at most 0.5, would show): the random streams of training are SAC's."""
    states = []
    for interventions in ([], [GradientMasking(identification_data="fresh", identification_steps=30)]):
        agent = tiny(ContinualSAC, tagged_sequence(), interventions=interventions)
        agent.learn(80)  # up to the end of the warm-up, before the first masked step
        states.append((random_states(), parameters(agent)))
    assert states[0][0] == states[1][0]
    assert differing(states[0][1], states[1][1]) == []


@pytest.mark.parametrize("verbose", [0, 1])
def test_identification_on_fresh_steps_is_announced(verbose: int, capsys: pytest.CaptureFixture[str]) -> None:
    """It can take longer than a short phase."""
    masking = GradientMasking(identification_data="fresh", identification_steps=30)
    tiny(ContinualSAC, tagged_sequence(), interventions=[masking], verbose=verbose).learn(80)
    said = "Skill neurons of red are identified on 30 fresh steps"
    assert (said in capsys.readouterr().out) == bool(verbose)


class FlattenedTwice(gym.ObservationWrapper):
    """Every observation twice."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.observation_space = spaces.Box(-np.inf, np.inf, (8,), np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return np.concatenate([observation, observation])


def stacked(env: gym.Env) -> VecFrameStack:
    return VecFrameStack(DummyVecEnv([lambda: env]), 2)


@pytest.mark.parametrize(("wrap", "same_as"), [(lambda env: env, "fresh"), (FlattenedTwice, "fresh"), (stacked, "training")])
def test_auto_takes_fresh_steps_where_it_can(wrap: Callable[[gym.Env], Any], same_as: str) -> None:
    """Wrappers around the whole sequence are around its single tasks, too, unless they are around a vectorized environment."""
    scores = []
    for data in ("auto", same_as):
        agent = masked(wrap(tagged_sequence()), identification_data=data, identification_steps=40)
        agent.learn(60)
        scores.append(masking_of(agent).scores["red"]["actor"])
    assert th.equal(*scores) and len(scores[0].unique()) > 3


def test_fresh_steps_need_wrappers_that_can_be_rebuilt() -> None:
    agent = masked(stacked(tagged_sequence()), identification_data="fresh", identification_steps=10)
    with pytest.raises(ValueError, match=r"VecFrameStack around the whole sequence .* identification_data='training'"):
        agent.learn(100)
    assert agent.num_timesteps == 0


def test_fresh_steps_of_a_task_whose_environment_was_taken_away() -> None:
    agent = masked(tagged_sequence(), identification_data="fresh", identification_steps=20)
    agent.learn(30)
    agent.set_env(tagged_sequence(("green", "blue")))  # knows nothing of red
    agent.learn(30, reset_num_timesteps=False)
    assert set(masking_of(agent).scores) == {"red"} and agent.phase.task == "green"


def test_fresh_steps_need_an_environment_that_makes_the_task(tmp_path: Any) -> None:
    agent = masked(tagged_sequence(), identification_data="fresh", identification_steps=20)
    agent.learn(30)
    agent.save(tmp_path / "model")
    loaded = ContinualSAC.load(tmp_path / "model", env=tagged_sequence(("green", "blue")))
    with pytest.warns(UserWarning, match=r"phase 1 \(red\): the environment's task_makers lack the task 'red'"):
        loaded.learn(30, reset_num_timesteps=False)
    assert masking_of(loaded).masks == {} and loaded.phase.task == "green"


def test_fresh_steps_with_two_environments() -> None:
    """As many steps as with one, in one environment."""
    agent = masked(two_sequences(), identification_data="fresh", identification_steps=25)
    agent.learn(150)
    assert agent.phase.index == 1
    # The last episodes of phase 0 end at steps 63 and 66: the other environment is cut off one step after the first
    assert len(TaggedTask.played[1.0]) == 63 + 64 + 25
    assert set(masking_of(agent).scores) == {"red"}
