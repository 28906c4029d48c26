"""Episodes of one task, played with an agent."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from scripted_tasks import ScriptedTask
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_nbsp.tasks import SequenceEvaluation, TaskSequence
from sb3_nbsp.tasks.policy_evaluation import evaluate_task

MakeSequence = Callable[..., TaskSequence]
Options = dict[str, Any]


class Spy:
    """An agent that says what it has seen."""

    def __init__(self, normalizer: VecNormalize | None = None) -> None:
        self.normalizer = normalizer
        self.seen: list[np.ndarray] = []

    def get_vec_normalize_env(self) -> VecNormalize | None:
        return self.normalizer

    def predict(
        self, observation: np.ndarray, state: None, episode_start: np.ndarray, deterministic: bool = False
    ) -> tuple[np.ndarray, None]:
        assert deterministic
        self.seen.append(observation.copy())
        return np.full((1, 1), 0.25), None


def one_task(make_sequence: MakeSequence, **options: Any) -> DummyVecEnv:
    make = make_sequence({"a": options}).task_makers["a"]
    return DummyVecEnv([lambda: Monitor(make())])


def test_success_rate_by_hand(make_sequence: MakeSequence) -> None:
    # Episodes 0 (its first step), 2 (its last) and 3 (all steps) of five are successes; one reset came before
    steps = {0: [1], 2: [3], 3: [1, 2, 3]}
    env = one_task(make_sequence, success=lambda episode, step: step in steps.get(episode, []), horizon=3)
    episodes: list[None] = []
    model = Spy()
    assert evaluate_task(model, env, 5, seed=0, on_episode=lambda: episodes.append(None))[:2] == (0.6, "success")
    assert len(episodes) == 5
    assert len(model.seen) == 15


def test_success_rate_has_the_same_episodes_every_time(make_sequence: MakeSequence, easy: Options) -> None:
    env = one_task(make_sequence, **easy)
    first, again, other = Spy(), Spy(), Spy()
    for model, seed in ((first, 3), (again, 3), (other, 4)):
        evaluate_task(model, env, 4, seed)
    np.testing.assert_array_equal(first.seen, again.seen)
    assert not np.array_equal(first.seen, other.seen)


def test_success_rate_sees_what_the_agent_is_used_to(make_sequence: MakeSequence, easy: Options) -> None:
    normalizer = VecNormalize(one_task(make_sequence, **easy))
    normalizer.obs_rms.mean, normalizer.obs_rms.var = np.array([1.0, 0, 0]), np.array([4.0, 1, 0.25])
    count = normalizer.obs_rms.count
    raw, normalized = Spy(), Spy(normalizer)
    for model in (raw, normalized):
        evaluate_task(model, one_task(make_sequence, **easy), 3, seed=0)
    expected = (np.array(raw.seen) - [1, 0, 0]) / [2, 1, 0.5]
    np.testing.assert_allclose(normalized.seen, expected, rtol=1e-5, atol=1e-5)
    assert normalizer.obs_rms.count == count  # not learned from


def test_mean_return_where_no_success_is_reported(make_sequence: MakeSequence) -> None:
    # The reward is the action, 0.25 at each of three steps
    assert evaluate_task(Spy(), one_task(make_sequence, horizon=3), 4, seed=0) == (0.75, "return", 0.75)


class Recorder(ScriptedTask):
    """Keeps the actions that are taken, for each episode."""

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        self.actions = [*getattr(self, "actions", []), []]
        return super().reset(**kwargs)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.actions[-1].append(action.item())
        return super().step(action)


@pytest.mark.parametrize("remembers", [True, False])
def test_a_policy_with_memory_keeps_its_state_within_an_episode(remembers: bool) -> None:
    contrib = pytest.importorskip("sb3_contrib")
    model = contrib.RecurrentPPO(
        "MlpLstmPolicy", Recorder(horizon=4), policy_kwargs={"lstm_hidden_size": 8}, seed=0, device="cpu"
    )
    task, again = Recorder(horizon=4), Recorder(horizon=4)
    evaluate_task(model, DummyVecEnv([lambda: Monitor(task)]), 2, seed=5)

    for episode in range(2):
        observation, _ = again.reset(seed=5 if episode == 0 else None)
        state = None
        for _ in range(4):
            action, state = model.predict(observation, state if remembers else None, deterministic=True)
            observation, *_ = again.step(action)
    same = np.allclose(task.actions[:2], again.actions[:2], atol=1e-6)
    assert same == remembers


class Forbidden(gym.Env):
    """Three of four actions are not allowed; the one that is changes at every step."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (1,), np.float32), gym.spaces.Discrete(4)

    def __init__(self, first: int = 0, render_mode: str | None = None) -> None:
        self.first, self.render_mode = first, render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def action_masks(self) -> np.ndarray:
        return np.arange(4) == (self.first + self.t) % 4

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        allowed = bool(self.action_masks()[action])
        self.t += 1
        return np.zeros(1, np.float32), float(allowed), not allowed or self.t == 3, False, {"success": allowed and self.t == 3}


def test_policies_with_action_masks_get_those_of_the_current_task() -> None:
    contrib = pytest.importorskip("sb3_contrib")
    env = TaskSequence({"a": Forbidden, "b": lambda render_mode: Forbidden(2)}, cycles=1, steps_per_task=30)
    model = contrib.MaskablePPO("MlpPolicy", env, n_steps=16, batch_size=16, n_epochs=1, device="cpu")
    evaluation = SequenceEvaluation(n_eval_episodes=5, progress_bar=False)
    model.learn(100, evaluation)
    assert evaluation.matrix is not None
    assert evaluation.matrix.rows == [[1, 1], [1, 1]]
    assert env.phase == 1


def test_tasks_of_which_only_some_have_action_masks_are_refused() -> None:
    class NoMasks(gym.Env):
        observation_space, action_space = Forbidden.observation_space, Forbidden.action_space

    makers = {"a": Forbidden, "b": lambda render_mode: NoMasks()}
    with pytest.raises(ValueError, match=r"of 'a' and 'b' only one has a method action_masks\(\)"):
        TaskSequence(makers)
