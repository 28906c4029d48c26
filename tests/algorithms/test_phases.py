"""What the end of a phase and the start of the next one mean for the agent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from phase_checks import Watch, sequences
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tagged_tasks import SERIAL, Spy, TaggedTask, differing, tagged_sequence, tiny

from sb3_nbsp import NBSPSAC, ContinualSAC
from sb3_nbsp.interventions import Phase

# What D holds


@pytest.mark.parametrize("terminates", [False, True])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_the_buffer_holds_one_task_only(n_envs: int, terminates: bool) -> None:
    watch = Watch()
    env = DummyVecEnv(sequences(*[{"terminates": terminates}] * n_envs))
    tiny(ContinualSAC, env, interventions=[watch]).learn(10_000)
    assert [len(watch.of_phase(phase)) for phase in range(4)] == [60] * 4
    for phase in range(4):
        tag = 1.0 + phase % 2
        for t, step in enumerate(watch.of_phase(phase)):
            assert step["size"] == t + 1
            assert (step["observations"][:, :, 0] == tag).all()
            assert (step["next_observations"][:, :, 0] == tag).all()  # also behind the last step of an episode


def check_consistent(step: dict[str, Any]) -> None:
    """Every transition leads to the next one, or ends an episode."""
    before, after, done = step["observations"][:, :, 1], step["next_observations"][:, :, 1], step["dones"]
    np.testing.assert_array_equal(after - before, np.float32(SERIAL))
    np.testing.assert_array_equal((after[:-1] != before[1:]), done[:-1] > 0)


def test_two_environments_that_master_their_tasks_at_different_times() -> None:
    """The second one is asked to move on; steps on two tasks at once belong to none."""
    watch = Watch()
    common: dict[str, Any] = {"cycles": 1, "steps_per_task": 10_000, "mastery_threshold": 1.0, "mastery_window": 2}
    env = DummyVecEnv(sequences({**common, "success": 2}, {**common, "success": 7}))
    agent = tiny(ContinualSAC, env, interventions=[watch])
    agent.learn(2 * 200)
    # Episodes of 10 steps; the first environment's episodes 2 and 3 are its first successes: step 40
    red, blue = watch.of_phase(0), watch.of_phase(1)
    assert len(red) == 40
    end = watch.ends[0]
    assert end["num_timesteps"] == 2 * 41  # one step later the second one is there too
    assert {tuple(step["tasks"]) for step in red} == {("red", "red")}
    assert {tuple(step["tasks"]) for step in blue} == {("blue", "blue")}
    for step in (red[-1], blue[-1]):
        check_consistent(step)
    # Observation 1 is that of the reset that seeds a new task, 2 that of the first episode's start, where the second
    # environment is. The first one's life on blue started one step earlier, and that step was left out
    assert (blue[0]["observations"][0, :, 1] / SERIAL).tolist() == [3.0, 2.0]
    assert (blue[-1]["observations"][:, :, 0] == 2.0).all()
    # Blue again: the first masters it after 40 steps of its own, of which one was left out
    assert len(blue) == 39
    assert agent.num_timesteps == 2 * (41 + 39 + 1)
    assert [env_.unwrapped.sequence_over for env_ in env.envs] == [True, True]
    assert len(watch.ends) == 2


def test_mixed_steps_with_normalization() -> None:
    """D keeps the observations as the environment gave them, also behind steps that were left out."""
    watch = Watch()
    common: dict[str, Any] = {"steps_per_task": 10_000, "mastery_threshold": 1.0, "mastery_window": 1}
    env = VecNormalize(DummyVecEnv(sequences({**common, "success": 9}, {**common, "success": 1})))
    tiny(ContinualSAC, env, interventions=[watch]).learn(2 * 60)
    blue = watch.of_phase(1)
    assert len(watch.of_phase(0)) == 20 and len(blue) > 15
    for step in blue:
        check_consistent(step)
        assert (step["observations"][:, :, 0] == 2.0).all()
    assert (blue[0]["observations"][0, :, 1] / SERIAL).tolist() == [2.0, 3.0]  # here the second is ahead


def test_environments_that_cross_at_the_same_time_lose_nothing() -> None:
    watch = Watch()
    env = DummyVecEnv(sequences({}, {}))
    tiny(ContinualSAC, env, interventions=[watch]).learn(10_000)
    for tag in (1.0, 2.0):
        played = sorted(step[0][1] for step in TaggedTask.played[tag])
        stored = np.concatenate(
            [watch.of_phase(phase)[-1]["observations"][:, :, 1].ravel() for phase in (int(tag) - 1, int(tag) + 1)]
        )
        assert sorted(stored.tolist()) == played and len(played) == 240


def test_keeping_the_buffer() -> None:
    watch = Watch()
    tiny(ContinualSAC, tagged_sequence(), interventions=[watch], clear_replay_buffer=False).learn(10_000)
    assert [step["size"] for step in watch.steps] == list(range(1, 241))
    assert watch.steps[-1]["observations"][:, 0, 0].tolist() == [1.0] * 60 + [2.0] * 60 + [1.0] * 60 + [2.0] * 60


# Warm-up


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize(("option", "expected"), [(None, 24), (36, 36), (0, 0), (10_000, 10_000)])
def test_warm_up_of_a_phase(n_envs: int, option: int | None, expected: int) -> None:
    """Uniform random actions and no updates for so many steps (over all environments), then one update a step."""
    watch = Watch()
    env = DummyVecEnv(sequences(*[{}] * n_envs))
    agent = tiny(ContinualSAC, env, interventions=[watch], learning_starts=24, phase_learning_starts=option)
    agent.learn(10_000)
    for phase in range(4):
        warm_up = 24 if phase == 0 else expected
        steps = watch.of_phase(phase)
        first_asked = watch._steps.index(steps[0])
        asked_before = watch.steps[first_asked - 1]["asked"] if first_asked else 0
        asked = [step["asked"] - asked_before for step in steps]
        random_steps = min(-(-warm_up // n_envs), 60)
        assert asked == [max(0, t + 1 - random_steps) for t in range(60)]
        # The update behind a step is seen at the next one. SB3 updates once MORE steps than learning_starts are
        # there; and a batch of 16 must be there
        updates_before = watch.starts[phase - 1]["n_updates"] if phase else 0
        updates = [step["n_updates"] - updates_before for step in steps]
        expected_updates = [
            sum(1 for s in range(1, t + 1) if s * n_envs > warm_up and (s * n_envs >= 16 or phase == 0)) for t in range(60)
        ]
        assert updates == expected_updates


def test_warm_up_actions_cover_the_action_space() -> None:
    """Those of a later phase are as uniform as those of the first."""
    agent = tiny(ContinualSAC, tagged_sequence(steps_per_task=200), learning_starts=200)
    agent.learn(400)
    for tag in (1.0, 2.0):
        actions = np.array([step[1] for step in TaggedTask.played[tag]])
        assert actions.shape == (200, 2) and np.abs(actions).max() <= 2
        np.testing.assert_allclose(actions.mean(0), 0, atol=4 * 4 / np.sqrt(12 * 200))
        np.testing.assert_allclose(actions.std(0), 4 / np.sqrt(12), rtol=0.15)


def test_a_batch_larger_than_the_buffer_does_not_stop_learning() -> None:
    watch = Watch()
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[watch], buffer_size=12, batch_size=16)
    agent.learn(10_000)
    updates = [0, *[start["n_updates"] for start in watch.starts], agent._n_updates]
    assert np.diff(updates).tolist() == [40, 40, 40, 40]


def test_gsde_warm_up_may_use_the_policy() -> None:
    watch = Watch()
    tiny(ContinualSAC, tagged_sequence(), interventions=[watch], use_sde=True, use_sde_at_warmup=True).learn(100)
    assert watch.steps[-1]["asked"] == 100
    assert watch.of_phase(1)[20]["n_updates"] == 40


# What is reset


@pytest.mark.parametrize("reset_optimizers", [False, True])
@pytest.mark.parametrize("reset_ent_coef", [False, True])
def test_resets(reset_optimizers: bool, reset_ent_coef: bool) -> None:
    spy = Spy()
    agent = tiny(
        ContinualSAC,
        tagged_sequence(),
        interventions=[spy],
        ent_coef="auto_0.5",
        reset_optimizers=reset_optimizers,
        reset_ent_coef=reset_ent_coef,
    )
    agent.learn(120)
    for end, start in zip(spy.ends, spy.starts, strict=True):
        assert end["log_ent_coef"] != pytest.approx(np.log(0.5), abs=1e-3)
        expected = np.float32(np.log(0.5)) if reset_ent_coef else end["log_ent_coef"]
        assert start["log_ent_coef"] == pytest.approx(expected, abs=1e-7)
        assert end["moments"] == {"actor": 8, "critic": 12, "ent_coef": 1}
        networks = {"actor": 0, "critic": 0} if reset_optimizers else {"actor": 8, "critic": 12}
        assert start["moments"] == {**networks, "ent_coef": 0 if reset_optimizers or reset_ent_coef else 1}
        assert differing(end["policy"].state_dict(), start["policy"].state_dict()) == []  # networks carry over
    assert len(spy.starts) == 2
    assert agent.log_ent_coef.requires_grad and agent.ent_coef_optimizer.param_groups[0]["params"][0] is agent.log_ent_coef


def test_a_fixed_entropy_coefficient_has_nothing_to_reset() -> None:
    agent = tiny(ContinualSAC, tagged_sequence(), ent_coef=0.2, reset_ent_coef=True, reset_optimizers=True)
    agent.learn(10_000)
    assert agent.log_ent_coef is None and agent.ent_coef_tensor == pytest.approx(0.2)


# The course of a sequence


def test_the_course_of_a_sequence() -> None:
    spy = Spy()
    agent = tiny(ContinualSAC, tagged_sequence(("red", "blue", "red"), cycles=2), interventions=[spy])
    assert agent.phase == Phase(0, "")
    agent.learn(5)
    assert agent.phase == Phase(0, "red")
    agent.learn(100_000, reset_num_timesteps=False)
    tasks = ["red", "blue", "red"] * 2
    assert [end["phase"] for end in spy.ends] == [Phase(i, task) for i, task in enumerate(tasks)]
    assert [start["phase"] for start in spy.starts] == [Phase(i, task) for i, task in enumerate(tasks)][1:]
    assert agent.num_timesteps == 360  # training stops when the sequence is over
    assert agent.phase == Phase(5, "red")


def test_a_finished_sequence_begins_again() -> None:
    watch = Watch()
    agent = tiny(ContinualSAC, tagged_sequence(cycles=1), interventions=[watch])
    agent.learn(10_000)
    assert agent.num_timesteps == 120 and agent._n_updates == 2 * 40
    agent.learn(30, reset_num_timesteps=False)
    assert agent.num_timesteps == 150 and agent._n_updates == 2 * 40 + 10
    assert agent.phase == Phase(2, "red") and agent.replay_buffer.size() == 30
    agent.learn(10_000)
    assert [end["phase"] for end in watch.ends] == [Phase(0, "red"), Phase(1, "blue"), Phase(2, "red"), Phase(3, "blue")]
    for phase in range(4):
        assert len(watch.of_phase(phase)) == 60
        assert (watch.of_phase(phase)[-1]["observations"][:, :, 0] == 1.0 + phase % 2).all()


def test_training_by_episodes() -> None:
    spy = Spy()
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[spy], train_freq=(1, "episode"), gradient_steps=-1)
    agent.learn(10_000)
    assert agent.num_timesteps == 240 and len(spy.ends) == 4
    # By episode of 10 steps: two of warm-up; the last one of a phase is learned from, too
    assert agent._n_updates == 4 * 10 * 4


@pytest.mark.parametrize(
    ("train_freq", "gradient_steps", "at_ends"),
    [
        # Of 60 steps of a phase, 20 are warm-up
        (1, 1, [40, 80, 120, 160]),
        (1, 3, [120, 240, 360, 480]),
        # Rollouts of 25 steps: those that end in the warm-up are not learned from. The second phase begins at 60: 25 of its
        # steps at 100 and 20 at its end; the third: 5 at 125, within its warm-up, 25 at 150, 25 at 175, 5 at its end
        (25, -1, [60, 105, 160, 200]),
        (25, 25, [60, 105, 160, 200]),
        (25, 5, [12, 21, 32, 40]),
        ((2, "episode"), 4, [8, 16, 24, 32]),
        (1000, 1000, [60, 120, 180, 240]),
        (7, 0, [0, 0, 0, 0]),
    ],
)
def test_all_steps_of_a_phase_are_learned_from_before_it_ends(
    train_freq: Any, gradient_steps: int, at_ends: list[int]
) -> None:
    """A rollout that reaches into the next phase leaves nothing behind."""
    spy = Spy()
    options = {"train_freq": train_freq, "gradient_steps": gradient_steps}
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[spy], **options)
    agent.learn(10_000)
    assert [end["n_updates"] for end in spy.ends] == at_ends
    assert agent._n_updates == at_ends[-1]


def test_a_phase_that_ends_in_the_warm_up_is_not_learned_from() -> None:
    spy = Spy()
    tiny(ContinualSAC, tagged_sequence(), interventions=[spy], learning_starts=100).learn(10_000)
    assert [end["n_updates"] for end in spy.ends] == [0, 0, 0, 0]


def test_an_environment_without_phases_is_one_phase() -> None:
    spy = Spy()
    agent = tiny(NBSPSAC, TaggedTask(1.0), interventions=[spy])
    agent.learn(100)
    agent.learn(50, reset_num_timesteps=False)
    assert agent.phase == Phase(0, "") and spy.ends == [] and agent.replay_buffer.size() == 150
    assert agent.all_interventions._all[0].masks == {} and agent.all_interventions._all[1].memory is None
