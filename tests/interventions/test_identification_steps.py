"""Which steps skill neurons are looked for on, and by which measure of success."""

from __future__ import annotations

import copy
import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
from identification_checks import masked, masking_of
from stable_baselines3.common.buffers import ReplayBuffer
from tagged_tasks import RecordingLogger, TaggedTask, differing, tagged_sequence, tiny

from sb3_nbsp import NBSPSAC, ContinualSAC
from sb3_nbsp.interventions import GradientMasking
from sb3_nbsp.interventions.identification_steps import IdentificationSteps
from sb3_nbsp.tasks import TaskSequence

# A window that says nothing


def test_a_constant_metric_falls_back_to_the_return_with_one_warning() -> None:
    logger, masks = RecordingLogger(), []
    for metric, success in (("auto", "never"), ("episode_return", "never"), ("episode_success", "always")):
        agent = masked(tagged_sequence(success=success), goal_metric=metric, mask_accumulation="latest")
        agent.set_logger(logger if metric == "auto" else RecordingLogger())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            agent.learn(10_000)
        ours = [str(each.message) for each in caught if "The goal metric" in str(each.message)]
        assert len(ours) == (0 if metric == "episode_return" else 1)
        assert all(("step_success" if metric == "auto" else "episode_success") in message for message in ours)
        masks.append(masking_of(agent).masks)
    assert logger.values("nbsp/goal_metric_is_constant") == [1, 1, 1, 1]
    for other in masks[1:]:
        assert differing(masks[0], other) == []
    assert min(mask.min() for mask in masks[0].values()) < 0.1


def test_a_metric_that_varies_is_recorded_as_such() -> None:
    logger = RecordingLogger()
    agent = masked(tagged_sequence(), identification_steps=60)
    agent.set_logger(logger)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent.learn(60)
    assert logger.values("nbsp/goal_metric_is_constant") == [0]


def test_an_empty_window_warns_and_keeps_the_masks() -> None:
    agent = masked(tagged_sequence(("red", "blue"), horizon=20, steps_per_task=40, success=None))
    agent.learn(45)
    masking = masking_of(agent)
    before = copy.deepcopy(masking.masks)
    assert before and set(masking.scores) == {"red"}
    agent.set_env(tagged_sequence(("green", "blue"), horizon=20, success=None))  # in the middle of blue's first episode
    with pytest.warns(UserWarning, match=r"phase 2 \(blue\): there is no complete episode"):
        agent.learn(1, reset_num_timesteps=False)
    assert differing(before, masking.masks) == []
    assert set(masking.scores) == set(masking.skill_neurons) == {"red"}


@pytest.mark.filterwarnings("ignore:The goal metric", "ignore:No skill neurons")
def test_equal_returns_say_nothing_either() -> None:
    """Warned of at every phase: nothing of that phase will be protected."""

    def zero(reward: float, done: bool, info: dict[str, Any]) -> float:
        return 0.0

    class Equal(TaggedTask):
        def step(self, action: np.ndarray) -> Any:
            observation, _, *rest = super().step(action)
            return (observation, 1.0, *rest)

    for metric in ("auto", zero):
        makers = {"red": lambda render_mode=None: Equal(1.0, success="never"), "blue": lambda render_mode=None: Equal(2.0)}
        agent = masked(TaskSequence(makers, steps_per_task=30, mastery_threshold=None), goal_metric=metric)
        with pytest.warns(UserWarning, match=r"phase 1 \(red\): the goal metric is the same at all steps"):
            agent.learn(30)
        masking = masking_of(agent)
        assert masking.masks == masking.scores == masking.skill_neurons == {}
        agent.learn(30, reset_num_timesteps=False)
        assert set(masking.scores) == ({"blue"} if metric == "auto" else set())


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The observations that skill neurons are identified on, for each time."""
    found: list[np.ndarray] = []
    batch = IdentificationSteps._batch

    def spied(steps: Any, buffer: ReplayBuffer, rows: np.ndarray, envs: np.ndarray) -> Any:
        found.append(buffer.observations[rows, envs].copy())
        return batch(steps, buffer, rows, envs)

    monkeypatch.setattr(IdentificationSteps, "_batch", spied)
    return found


def test_the_window_is_aligned_with_the_buffer_it_reads(looked_up: list[np.ndarray]) -> None:
    """The whole chain with a buffer so small that it wraps around several times in a phase."""
    looking = GradientMasking(identification_steps=15, identification_data="training")
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[looking], buffer_size=17)
    agent.learn(10_000)
    assert [rows.shape for rows in looked_up] == [(15, 4)] * 4
    for phase, rows in enumerate(looked_up):
        played = [step[0] for step in TaggedTask.played[1.0 + phase % 2]][(phase // 2) * 60 :][:60]
        np.testing.assert_array_equal(rows, played[-15:])


def test_an_episode_that_a_reset_breaks_off_is_left_out(looked_up: list[np.ndarray]) -> None:
    looking = GradientMasking(goal_metric="episode_return", identification_data="training")
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[looking])
    agent.learn(45)
    agent.learn(25)  # resets the environment five steps into an episode
    assert agent.phase.index == 1
    played = [step[0] for step in TaggedTask.played[1.0]]
    assert len(played) == 65
    np.testing.assert_array_equal(looked_up[0], played[:40] + played[45:])


def test_a_spoilt_state_of_one_agent_is_not_shared() -> None:
    """State handed from one agent to another does not tie them together."""
    first = tiny(NBSPSAC, tagged_sequence(), replay=False)
    first.learn(60)
    second = tiny(NBSPSAC, tagged_sequence(), replay=False)
    second.set_parameters(first.get_parameters())
    second.all_interventions.load_state_dict(first.all_interventions.state_dict())
    assert differing(first.all_interventions._all[0].masks, second.all_interventions._all[0].masks) == []
    second.learn(120)
    assert set(first.all_interventions._all[0].scores) == {"red"}
    assert set(second.all_interventions._all[0].scores) == {"red", "blue"}


# Tasks that report success at an episode's last step only


class ReportsAtTheEnd(TaggedTask):
    """As SB3 asks for: ``info["is_success"]`` at the last step of an episode."""

    every_episode = True

    def step(self, action: np.ndarray) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        success = bool(info.pop("success"))
        if (terminated or truncated) and (self.every_episode or success):
            info["is_success"] = success
        return observation, reward, terminated, truncated, info


class ReportsASuccess(ReportsAtTheEnd):
    """Says nothing of an episode that fails."""

    every_episode = False


@pytest.mark.parametrize("data", ["training", "fresh"])
@pytest.mark.parametrize("task", [ReportsAtTheEnd, ReportsASuccess])
def test_success_of_the_last_step_identifies_on_all_steps_of_the_episodes(task: type[TaggedTask], data: str) -> None:
    makers = {name: partial(task, tag) for name, tag in (("red", 1.0), ("blue", 2.0))}
    logger = RecordingLogger()
    env = TaskSequence(makers, steps_per_task=200, mastery_threshold=None)
    agent = masked(env, None, {"learning_starts": 1000}, identification_steps=100, identification_data=data)
    agent.set_logger(logger)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".* learns nothing in this call")  # it is to act at random only
        agent.learn(200)
    assert logger.values("nbsp/identification_steps") == [100]
    assert logger.values("nbsp/goal_metric_is_constant") == [0]
    played = TaggedTask.played[1.0][100:200] if data == "training" else TaggedTask.played[1.0][200:]
    ends = [success for *_, success, done in played if done]
    assert len(played) == 100 and 0 < sum(ends) < 10  # type: ignore[arg-type]
    for histogram in masking_of(agent).histograms["red"]["actor"]:
        assert sum(histogram["success"]) == 10 * sum(ends)  # type: ignore[arg-type]


def test_far_fewer_steps_than_asked_for_are_warned_of_once() -> None:
    makers = {name: partial(ReportsAtTheEnd, tag) for name, tag in (("red", 1.0), ("blue", 2.0))}
    env = TaskSequence(makers, steps_per_task=100, mastery_threshold=None)
    agent = masked(env, None, {"learning_starts": 1000}, identification_steps=100, goal_metric="step_success")
    with pytest.warns(UserWarning, match=r"on 10 steps instead of identification_steps=100.*\(step_success\)") as seen:
        agent.learn(400)
    assert agent.phase.index == 3 and len([each for each in seen if "identification_steps" in str(each.message)]) == 1
