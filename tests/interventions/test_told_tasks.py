"""Hooks for methods that know their task, see the batches, or act in the warm-up; and critics that are drawn again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import EvalCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tagged_tasks import TaggedTask, differing, parameters, tagged_sequence, tiny

from sb3_nbsp import ContinualPPO, ContinualSAC, PackNetSAC
from sb3_nbsp.interventions import Intervention
from sb3_nbsp.interventions.base import Phase
from sb3_nbsp.tasks import SequenceEvaluation, TaskSequence


class Told(Intervention):
    """Notes the tasks that it is told of, in training and in evaluation."""

    def attach(self, agent: Any) -> None:
        super().attach(agent)
        self.heard: list[tuple[str, str]] = []

    def on_phase_start(self, phase: Phase) -> None:
        self.heard.append(("phase", phase.task))

    def on_task(self, task: str) -> None:
        self.heard.append(("task", task))


def test_an_evaluation_tells_of_the_tasks_it_plays_and_then_of_the_phase_again() -> None:
    told = Told()
    agent = tiny(ContinualSAC, tagged_sequence(horizon=5, steps_per_task=10), interventions=[told])
    agent.learn(11, SequenceEvaluation(n_eval_episodes=1, progress_bar=False))
    evaluation = [("task", "red"), ("task", "red"), ("task", "blue"), ("task", "red")]
    assert told.heard == [*evaluation, ("phase", "blue")]


def test_the_phases_task_is_back_even_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    agent = tiny(ContinualSAC, tagged_sequence(horizon=5, steps_per_task=10), interventions=[told])
    monkeypatch.setattr(agent, "predict", lambda observation, **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        agent.learn(11, SequenceEvaluation(n_eval_episodes=1, progress_bar=False))
    assert told.heard == [("task", "red"), ("task", "red")]


@pytest.mark.parametrize("wrap", [DummyVecEnv, lambda makers: VecNormalize(DummyVecEnv(makers))])
@pytest.mark.parametrize("saves", [False, True])
def test_sb3s_evaluation_tells_of_the_tasks_it_plays(wrap: Any, saves: bool, tmp_path: Path) -> None:
    told = Told()
    agent = tiny(ContinualSAC, wrap([lambda: tagged_sequence(horizon=5)]), interventions=[told])
    rotating = wrap([lambda: Monitor(TaskSequence(tagged_sequence(horizon=5).task_makers, rotate=True))])
    heard, predict = [], agent.predict

    def predict_and_note(*args: Any, **kwargs: Any) -> Any:
        heard.append(told.heard[-1][1] if told.heard else "red")
        return predict(*args, **kwargs)

    agent.predict = predict_and_note
    folder = str(tmp_path) if saves else None
    callback = EvalCallback(rotating, n_eval_episodes=2, eval_freq=7, verbose=0, best_model_save_path=folder)
    agent.learn(30, callback)
    evaluation = ["red"] * 5 + ["blue"] * 5
    assert heard[:10] == evaluation
    assert [each for each in heard if each == "blue"] == ["blue"] * 5 * 4
    assert told.heard[-1] == ("task", "red")
    callback.callback_on_new_best = StopTrainingOnRewardThreshold(-1e9)
    callback.callback_on_new_best.parent, callback.best_mean_reward = callback, -np.inf
    n_steps, last = agent.num_timesteps, len(heard)
    agent.learn(30, callback, reset_num_timesteps=False)  # in the same environment, and training ends with the evaluation
    assert agent.num_timesteps < n_steps + 10
    assert heard[-10:] == evaluation
    assert len(heard) > last
    assert told.heard[-1] == ("task", "red")


def test_an_evaluation_of_several_tasks_at_a_time_is_refused() -> None:
    agent = tiny(ContinualSAC, tagged_sequence(horizon=5), interventions=[Told()])
    two = DummyVecEnv([lambda: Monitor(tagged_sequence(horizon=5))] * 2)
    with pytest.raises(ValueError, match="its 2 environments may be at different tasks"):
        agent.learn(30, EvalCallback(two, verbose=0))


def test_a_best_model_is_saved_with_the_weights_of_all_tasks(tmp_path: Path) -> None:
    agent: Any = tiny(PackNetSAC, tagged_sequence(cycles=1, steps_per_task=30), retrain_steps=0, learning_starts=5)
    agent.learn(55)
    weight, own = agent.actor.latent_pi[0].weight, agent.actor.latent_pi[0].weight.clone()
    agent._play_for_evaluation("red")
    assert not th.equal(weight, own)
    agent.save(tmp_path / "best")
    assert not th.equal(weight, own), "the evaluation goes on"
    assert th.equal(SAC.load(tmp_path / "best").actor.latent_pi[0].weight, own)  # type: ignore[index]


class Batches(Intervention):
    def attach(self, agent: Any) -> None:
        super().attach(agent)
        self.seen: list[Any] = []

    def on_batch(self, data: Any) -> None:
        self.seen.append(data)


def test_every_gradient_step_shows_its_batch_before_its_losses() -> None:
    batches = Batches()
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[batches], learning_starts=3, batch_size=7)
    sampled = []
    sample = agent.replay_buffer.sample
    agent.replay_buffer.sample = lambda *args, **kwargs: sampled.append(sample(*args, **kwargs)) or sampled[-1]
    agent.learn(9)
    assert len(batches.seen) == 6 and all(a is b for a, b in zip(batches.seen, sampled, strict=True))
    with pytest.raises(ValueError, match=r"Batches overrides on_batch\(\), which ContinualPPO never calls"):
        ContinualPPO("MlpPolicy", "Pendulum-v1", interventions=[Batches()])


class Acts(Intervention):
    def warmup_actions(self, observations: Any) -> np.ndarray:
        return np.full((len(observations), *self.agent.action_space.shape), 0.25, dtype=np.float32)


def test_an_intervention_can_act_in_the_warm_up_of_a_new_task_only() -> None:
    TaggedTask.played.clear()
    agent = tiny(ContinualSAC, tagged_sequence(horizon=5, steps_per_task=10), interventions=[Acts()], phase_learning_starts=4)
    agent.learn(19)
    stored = agent.replay_buffer.actions[: agent.replay_buffer.size()].reshape(agent.replay_buffer.size(), -1)
    scaled = agent.policy.scale_action(np.full(agent.action_space.shape, 0.25, dtype=np.float32))
    in_warm_up = (stored == scaled).all(axis=1)
    assert in_warm_up[:4].all() and not in_warm_up[4:].any()


class Watches(Intervention):
    def __init__(self, needed: bool) -> None:
        self.needed = needed

    def needs_autograd(self) -> bool:
        return self.needed


@pytest.mark.parametrize("cls", [ContinualSAC, ContinualPPO])
def test_an_intervention_can_ask_for_autograd(cls: Any) -> None:
    for needed in (True, False):
        assert cls("MlpPolicy", "Pendulum-v1", interventions=[Watches(needed)])._is_by_hand() is not needed


@pytest.mark.parametrize("share", [False, True])
def test_critics_are_drawn_again_for_a_new_task(share: bool) -> None:
    kwargs: dict[str, Any] = {"policy_kwargs": {"net_arch": [8], "share_features_extractor": share}, "learning_starts": 1000}
    plain = tiny(ContinualSAC, tagged_sequence(steps_per_task=10), **kwargs).learn(12)
    agent = tiny(ContinualSAC, tagged_sequence(steps_per_task=10), reset_critics=True, **kwargs)
    before = parameters(agent)
    agent.critic.optimizer.state[agent.critic.q_networks[0][0].weight] = {"step": th.tensor(3.0)}
    agent.learn(12)
    changed = differing(before, parameters(agent))
    assert changed and all("critic" in name for name in changed)
    assert {name.split(".")[0] for name in changed} == {"critic", "critic_target"}
    for own, target in zip(agent.critic.parameters(), agent.critic_target.parameters(), strict=True):
        assert th.equal(own, target)
    assert not agent.critic.optimizer.state
    # It draws from a generator of its own: the actions of both agents are the same
    np.testing.assert_array_equal(agent.replay_buffer.actions[:2], plain.replay_buffer.actions[:2])
