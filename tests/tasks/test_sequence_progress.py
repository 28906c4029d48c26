"""The position in a sequence: moved, saved, restored and begun again."""

import json

import pytest
from playing import ACTION, MakeSequence, Options, play, play_episode
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_nbsp.tasks.boundaries import steps_left


def test_next_phase_cuts_the_episode_at_the_next_step(make_sequence: MakeSequence, easy: Options) -> None:
    env = make_sequence({"a": {**easy, "horizon": 100}, "b": easy}, cycles=1, mastery_window=1)
    env.reset()
    env.step(ACTION)
    env.next_phase()
    _, _, terminated, truncated, info = env.step(ACTION)
    assert (terminated, truncated) == (False, True)
    assert (info["task"], info["phase"], info["boundary"], info["sequence_over"]) == ("a", 0, True, False)
    assert info["cut_off"] is True
    assert env.reset()[1]["phase"] == 1
    _, _, _, truncated, info = env.step(ACTION)  # the next episode is whole again
    assert (truncated, info["boundary"]) == (False, False)


def test_next_phase_in_the_last_phase(make_sequence: MakeSequence, hard: Options) -> None:
    env = make_sequence({"a": {**hard, "horizon": 5}}, cycles=1)
    env.reset()
    env.next_phase()
    _, _, _, truncated, info = env.step(ACTION)
    assert (truncated, info["boundary"], info["sequence_over"]) == (True, True, True)
    env.reset()
    infos = play_episode(env)  # from now on episodes are whole
    assert len(infos) == 5 and not any("cut_off" in each for each in infos)
    assert not any(info["boundary"] for info in infos)


@pytest.mark.parametrize("finished", [0, 3, 6, 7, 16, 20])
def test_progress_continues_in_another_sequence(make_sequence: MakeSequence, finished: int) -> None:
    """Also through JSON, in the middle of a phase, at its boundary, and after the sequence's end."""
    # a is mastered after 4 episodes (12 steps); b never is, and has had its 13 steps after 7 episodes of 2
    tasks = {
        "a": {"success": lambda episode, step: True, "horizon": 3},
        "b": {"success": lambda *_: False},
    }
    options = {"mastery_window": 4, "steps_per_task": 13, "cycles": 2}
    whole, first, second = (make_sequence(tasks, **options) for _ in range(3))
    uncut = play(whole, 30)
    assert [i for i, (_, _, boundary) in enumerate(uncut) if boundary] == [3, 10, 14, 21]
    said = play(first, finished)
    second.set_progress(json.loads(json.dumps(first.get_progress())))
    assert said + play(second, 30 - finished) == uncut
    assert second.get_progress() == whole.get_progress()


def test_progress_at_a_boundary_is_the_next_phase(make_sequence: MakeSequence, easy: Options) -> None:
    env = make_sequence({"a": easy, "b": easy}, mastery_window=2)
    play(env, 1)
    env.reset()
    assert env.get_progress() == {
        "tasks": ["a", "b"],
        "cycles": 2,
        "phase": 0,
        "phase_steps": 2,
        "successes": [True],
        "sequence_over": False,
        "report_success": ["a"],
    }
    play_episode(env)
    at_boundary = env.get_progress()
    assert (at_boundary["phase"], at_boundary["phase_steps"], at_boundary["successes"]) == (1, 0, [])
    env.reset()
    assert env.get_progress() == at_boundary


def test_restart(make_sequence: MakeSequence, easy: Options, hard: Options) -> None:
    options = {"cycles": 1, "mastery_window": 2, "steps_per_task": 6}
    env, new = (make_sequence({"a": easy, "b": hard}, **options) for _ in range(2))
    for finished in (1, 2, 3, 5, 7):  # in a phase, at a boundary, at the end, behind it
        play(env, finished)
        env.restart()
        # What is known of a task stays
        assert env.get_progress() == {**new.get_progress(), "report_success": env.report_success}
    assert play(env, 7) == play(new, 7)


def test_progress_of_other_tasks_is_ignored(make_sequence: MakeSequence, easy: Options) -> None:
    other = make_sequence({"a": easy, "c": easy}, mastery_window=1)
    play(other, 2)
    env = make_sequence({"a": easy, "b": easy})
    env.set_progress(other.get_progress())
    assert env.reset()[1]["phase"] == 0


def test_the_steps_that_a_sequence_has_left(make_sequence: MakeSequence, hard: Options) -> None:
    """Of the first, second and last phase: 7, 7 and 9 steps, in each of two environments."""
    options = {"tasks": ["a", "b", "a"], "cycles": 1, "steps_per_task": 7, "last_phase_steps": 9}
    env = DummyVecEnv([lambda: make_sequence({"a": hard, "b": hard}, **options)] * 2)
    assert steps_left(env) == 2 * (7 + 7 + 9)
    progress = env.env_method("get_progress")[0]
    assert steps_left(env, {**progress, "phase": 1, "phase_steps": 3}) == 2 * (4 + 9)
    assert steps_left(env, {**progress, "phase": 1, "phase_steps": 12}) == 2 * 9  # an episode goes on beyond the phase's steps
    assert steps_left(env, {**progress, "phase": 2, "phase_steps": 10, "sequence_over": True}) == 0
