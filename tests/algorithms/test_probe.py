"""A phase can begin with a probe at what the policy already does on its task."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from phase_checks import Watch
from stable_baselines3.common.vec_env import DummyVecEnv
from tagged_tasks import RecordingLogger, TaggedTask, tagged_sequence, tiny

from sb3_nbsp import ContinualSAC


def learn(n_envs: int = 1, success: Any = "never", **options: Any) -> tuple[ContinualSAC, Watch]:
    """Four phases of 60 steps (per environment), six episodes of 10 steps each."""
    watch = options.pop("watch", None) or Watch()
    env = DummyVecEnv([lambda: tagged_sequence(success=success)] * n_envs)
    usual: dict[str, Any] = {"known_task_threshold": 0.5, "probe_episodes": 4, "ent_coef": "auto_0.5", "reset_ent_coef": True}
    agent = tiny(ContinualSAC, env, interventions=[watch], learning_starts=12, **{**usual, **options})
    agent.learn(10_000)
    return agent, watch


def asked_in(watch: Watch, phase: int) -> list[bool]:
    """By step of a phase: was the policy asked for the action?"""
    steps = watch.steps
    first = steps.index(watch.of_phase(phase)[0])
    counts = [steps[first - 1]["asked"] if first else 0, *(step["asked"] for step in watch.of_phase(phase))]
    return (np.diff(counts) > 0).tolist()


def updates_in(watch: Watch, phase: int) -> list[int]:
    """By step of a phase: updates since its start, before the step."""
    steps = watch.of_phase(phase)
    start = watch.starts[phase - 1]["n_updates"] if phase else 0
    return [step["n_updates"] - start for step in steps]


def test_a_known_task_goes_on_without_random_actions_and_resets():
    agent, watch = learn(success="always")
    for phase in (1, 2, 3):
        assert asked_in(watch, phase) == [True] * 60
        # Two successes of four episodes are enough: 20 steps of probing, then an update per step
        assert updates_in(watch, phase) == [0] * 20 + list(range(1, 41))
    for end, start in zip(watch.ends, watch.starts, strict=False):
        assert start["log_ent_coef"] == end["log_ent_coef"]
    assert agent.log_ent_coef.item() != pytest.approx(np.log(0.5), abs=1e-3)


def test_on_a_known_task_the_policy_acts_in_the_warm_up():
    """Learning from the few steps of the probe alone would take apart what the policy can do."""
    _, watch = learn(success="always", phase_learning_starts=35)
    for phase in (1, 2, 3):
        assert asked_in(watch, phase) == [True] * 60
        # As at the start of an agent's life: an update behind every step after the 35th
        assert updates_in(watch, phase) == [0] * 36 + list(range(1, 25))


def test_a_new_task_has_its_random_actions_after_the_probe():
    _, watch = learn(success="never")
    for phase in (1, 2, 3):
        # After three failures, four episodes can no longer hold two successes: 30 steps, then 12 random ones
        assert asked_in(watch, phase) == [True] * 30 + [False] * 12 + [True] * 18
        assert updates_in(watch, phase) == [0] * 43 + list(range(1, 18))


def test_the_entropy_coefficient_is_reset_at_the_end_of_the_probe():
    coefficients: list[float] = []

    class Coefficient(Watch):
        def on_transition(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
            super().on_transition(rewards, dones, infos)
            coefficients.append(self.agent.log_ent_coef.item())

    learn(success="never", watch=Coefficient())
    before, after = coefficients[89], coefficients[90]  # the transition that ends the probe is number 90
    assert before != pytest.approx(np.log(0.5), abs=1e-3)
    assert after == pytest.approx(np.log(0.5), abs=1e-6)


@pytest.mark.parametrize(("success", "is_known"), [(1, True), (3, False)])
def test_the_threshold_counts(success, is_known):
    """From episode 1 (3) of each task's life on, every episode succeeds: blue's first three are 0 1 1 (0 0 0)."""
    _, watch = learn(success=success, probe_episodes=4, known_task_threshold=0.5)
    assert asked_in(watch, 1) == ([True] * 60 if is_known else [True] * 30 + [False] * 12 + [True] * 18)
    assert updates_in(watch, 1)[:31] == [0] * 30 + [int(is_known)]


def test_shares_are_not_rounded_up():
    """0.28 * 25 is a little more than 7 in floating point."""
    agent = tiny(ContinualSAC, tagged_sequence(), known_task_threshold=0.28, probe_episodes=25)
    agent.set_logger(RecordingLogger())
    agent._is_probing = True
    for n_successes in range(1, 8):
        assert agent._is_probing
        agent._follow_probe(np.array([True]), [{"is_success": True}])
        assert agent._is_known == (n_successes == 7)


def test_without_a_look_every_task_is_new():
    _, watch = learn(success="always", known_task_threshold=None)
    for phase in (1, 2, 3):
        assert asked_in(watch, phase) == [False] * 12 + [True] * 48


def test_a_task_that_reports_no_success_is_new():
    _, watch = learn(success=None)
    for phase in (1, 2, 3):
        assert asked_in(watch, phase) == [True] * 10 + [False] * 12 + [True] * 38


def test_the_first_phase_does_not_probe():
    _, probing = learn(success="always")
    _, plain = learn(success="always", known_task_threshold=None)
    for name in ("asked", "n_updates"):
        assert [step[name] for step in probing.of_phase(0)] == [step[name] for step in plain.of_phase(0)]
    np.testing.assert_array_equal(probing.of_phase(0)[-1]["observations"], plain.of_phase(0)[-1]["observations"])


def test_parallel_environments_probe_together():
    """Two environments: two failures at a time, so that the third and fourth are there at step 20."""
    _, watch = learn(n_envs=2, success="never")
    assert asked_in(watch, 1) == [True] * 20 + [False] * 6 + [True] * 34


def test_a_look_that_was_cut_off_goes_on(tmp_path):
    watch = Watch()
    options: dict[str, Any] = {"known_task_threshold": 0.5, "probe_episodes": 4, "learning_starts": 12}
    agent = tiny(ContinualSAC, tagged_sequence(success="never"), **options)
    agent.learn(75)  # phase 1 began at step 60
    agent.save(tmp_path / "agent")
    loaded = ContinualSAC.load(tmp_path / "agent", env=tagged_sequence(success="never"), interventions=[watch])
    assert loaded._is_probing and loaded._probe == [False]
    loaded.learn(40, reset_num_timesteps=False)
    # Two more failures end the probe
    assert asked_in(watch, 1) == [True] * 20 + [False] * 12 + [True] * 8
    assert not loaded._is_probing


@pytest.mark.parametrize("is_known", [True, False])
def test_what_the_look_found_is_recorded(is_known):
    agent = tiny(
        ContinualSAC, tagged_sequence(success="always" if is_known else "never"), known_task_threshold=1.0, probe_episodes=1
    )
    logger = RecordingLogger()
    agent.set_logger(logger)
    agent.learn(115)
    assert logger.values("phase/known") == [float(is_known)]


@pytest.mark.parametrize(("report", "expected"), [(float("nan"), False), (None, False), (True, True), (np.float32(1), True)])
def test_a_report_that_says_nothing_makes_no_task_known(report: Any, expected: bool) -> None:
    """Tasks that are changed by hand; of a sequence's tasks the sequence makes the report."""

    class Reporting(TaggedTask):
        def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            *rest, info = super().step(action)
            return *rest, {**info, "is_success": report}  # type: ignore[return-value]

    agent = tiny(ContinualSAC, Reporting(1.0), known_task_threshold=0.5, probe_episodes=2)
    agent.start_phase("first")
    agent.learn(20)
    agent.start_phase("second")
    agent.learn(30)
    assert agent._is_known is expected
