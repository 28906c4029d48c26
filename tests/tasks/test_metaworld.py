"""Real Meta-World."""

import warnings
from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.vec_env import DummyVecEnv

import sb3_nbsp  # noqa: F401  registers the sequences
from sb3_nbsp.tasks import TaskSequence

pytest.importorskip("metaworld")
from sb3_nbsp.tasks.metaworld import OBSERVATION_SPACE, full_task_name, make_metaworld_task, metaworld_cycle

HORIZON = 4
STAY = np.zeros(4, np.float32)


@pytest.fixture(scope="module")
def drawer() -> Iterator[gym.Env]:
    env = make_metaworld_task("drawer-close", horizon=HORIZON)
    yield env
    env.close()


@pytest.fixture(scope="module")
def cycle() -> Iterator[gym.Env]:
    """Through gym.make, with Gymnasium's own checker around it. Two episodes make a phase."""
    env = gym.make(
        "MW-Cycle-v0", tasks=["drawer-close", "button-press-topdown"], horizon=HORIZON, steps_per_task=2 * HORIZON, cycles=2
    )
    yield env
    env.close()


def goals(env: gym.Env, seed: int, n_resets: int) -> np.ndarray:
    """The goal is in the last three entries of an observation."""
    observations = [env.reset(seed=seed)[0]] + [env.reset()[0] for _ in range(n_resets - 1)]
    return np.array(observations)[:, -3:]


def test_seeds_choose_goals_reproducibly(drawer: gym.Env) -> None:
    first, other, again = goals(drawer, 1, 6), goals(drawer, 2, 6), goals(drawer, 1, 6)
    assert len(np.unique(first, axis=0)) > 1  # not the same goal every time
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_environment_of_its_own_has_the_same_goals(drawer: gym.Env) -> None:
    new = make_metaworld_task("drawer-close", horizon=HORIZON)
    np.testing.assert_array_equal(goals(drawer, 3, 6), goals(new, 3, 6))
    for env in (drawer, new):
        env.reset(seed=4)
    for _ in range(3):  # and the same dynamics
        first, second = (env.step(np.full(4, 0.5, np.float32)) for env in (drawer, new))
        np.testing.assert_array_equal(first[0], second[0])
        assert first[1] == second[1]
    new.close()


def test_it_is_the_environment_that_meta_world_makes() -> None:
    import metaworld

    ours = make_metaworld_task("drawer-close", horizon=5, goal_seed=3)
    theirs = metaworld.make_mt_envs("drawer-close-v3", seed=3, max_episode_steps=5)
    assert ours.unwrapped.action_space.sample().tolist() == theirs.unwrapped.action_space.sample().tolist()
    for _ in range(3):  # three goals
        first, second = ours.reset()[0], theirs.reset()[0]
        for action in np.random.default_rng(0).uniform(-1, 1, (5, 4)).astype(np.float32):
            np.testing.assert_array_equal(first, second.astype(np.float32))
            (first, *our_rest, our_info), (second, *their_rest, their_info) = ours.step(action), theirs.step(action)
            assert our_rest == their_rest
            our_times, their_times = (info.get("episode", {}).pop("t", None) for info in (our_info, their_info))
            assert our_info == their_info and (our_times is None) == (their_times is None)
        assert our_rest[-1] and our_times is not None
    ours.close()
    theirs.close()


@pytest.mark.parametrize("seed", [-1, 0.5, None, 2**32])
def test_a_wrong_seed_of_the_goals_is_an_error(seed: object) -> None:
    with pytest.raises(ValueError, match="goal_seed must be a whole number"):
        make_metaworld_task("drawer-close", goal_seed=seed)  # type: ignore[arg-type]


def test_an_unknown_render_mode_is_an_error() -> None:
    with pytest.raises(ValueError, match="render_mode must be one of None, 'human', 'rgb_array', 'depth_array', not 'rgb'"):
        make_metaworld_task("drawer-close", render_mode="rgb")


def test_goal_seed_makes_other_goals(drawer: gym.Env) -> None:
    new = make_metaworld_task("drawer-close", horizon=HORIZON, goal_seed=7)
    own, other = goals(drawer, 0, 60), goals(new, 0, 60)
    new.close()
    # 60 draws out of 50
    assert 20 < len(np.unique(own, axis=0)) <= 50
    assert not {tuple(goal) for goal in own} & {tuple(goal) for goal in other}


def test_global_random_state_stays() -> None:
    np.random.seed(5)
    before = np.random.get_state()
    env = make_metaworld_task("drawer-close", horizon=HORIZON)
    env.reset(seed=0)
    env.reset()
    env.step(STAY)
    env.close()
    after = np.random.get_state()
    assert (before[1] == after[1]).all()
    assert before[2:] == after[2:]


def test_observations_are_in_the_common_space(drawer: gym.Env) -> None:
    drawer.action_space.seed(0)
    assert drawer.observation_space == OBSERVATION_SPACE
    for seed in range(3):
        observation, _ = drawer.reset(seed=seed)
        for _ in range(HORIZON):
            assert observation.dtype == np.float32
            assert observation in drawer.observation_space
            assert np.abs(observation).max() < 10
            observation, reward, _, _, info = drawer.step(drawer.action_space.sample())
            assert 0 <= reward <= 10
            assert info["success"] in (0, 1)


@pytest.mark.parametrize("horizon", [1, HORIZON, 500])
def test_horizon(horizon: int) -> None:
    env = make_metaworld_task("button-press-topdown", horizon=horizon)
    for _ in range(2):
        env.reset(seed=0)
        ends = [env.step(STAY)[2:4] for _ in range(horizon)]
        assert ends == [(False, False)] * (horizon - 1) + [(False, True)]
    env.close()


@pytest.mark.parametrize("horizon", [0, 501, -3])
def test_horizon_out_of_range(horizon: int) -> None:
    message = f"horizon must be a whole number from 1 to 500, not {horizon}"
    with pytest.raises(ValueError, match=message):
        make_metaworld_task("drawer-close", horizon=horizon)
    with pytest.raises(ValueError, match=message):
        metaworld_cycle(["drawer-close"], horizon=horizon)


@pytest.mark.parametrize(
    ("wrong", "closest"),
    [("drawer-clos", "drawer-close"), ("button-press-topdwn-v3", "button-press-topdown"), ("Window-Open", "window-open")],
)
def test_unknown_task_names_the_closest(wrong: str, closest: str) -> None:
    with pytest.raises(ValueError, match=f"no task '{wrong}'; did you mean '{closest}'"):
        metaworld_cycle(["drawer-close", wrong])


def test_task_names() -> None:
    assert full_task_name("drawer-close") == full_task_name("drawer-close-v3") == "drawer-close-v3"


@pytest.mark.parametrize("tasks", ["drawer-close", []])
def test_tasks_that_are_no_list(tasks: object) -> None:
    with pytest.raises(ValueError, match="tasks must"):
        metaworld_cycle(tasks)


def test_sequence_moves_on(cycle: gym.Env) -> None:
    sequence = cycle.unwrapped
    assert isinstance(sequence, TaskSequence)
    sequence.set_progress({**sequence.get_progress(), "phase": 0, "phase_steps": 0, "successes": [], "sequence_over": False})
    said = []
    with warnings.catch_warnings():
        # Gymnasium's checker looks at every observation; Meta-World's own bounds would make it complain
        warnings.simplefilter("error")
        for episode in range(9):
            observation, info = cycle.reset(seed=3 if episode == 0 else None)
            assert "is_success" not in info
            for step in range(1, HORIZON + 1):
                observation, reward, terminated, truncated, info = cycle.step(STAY)
                assert isinstance(reward, float)
                assert observation in cycle.observation_space
                assert (terminated, truncated) == (False, step == HORIZON)
                assert info["is_success"] is False  # nothing has been touched yet
                assert info["boundary"] <= truncated
            said.append((info["task"], info["task_index"], info["phase"], info["boundary"], info["sequence_over"]))
    drawer, button = ("drawer-close", 0), ("button-press-topdown", 1)
    assert said == [
        (*drawer, 0, False, False),
        (*drawer, 0, True, False),
        (*button, 1, False, False),
        (*button, 1, True, False),
        (*drawer, 2, False, False),
        (*drawer, 2, True, False),
        (*button, 3, False, False),
        (*button, 3, True, True),
        (*button, 3, False, True),
    ]


def test_sequence_seeds(cycle: gym.Env) -> None:
    sequence = cycle.unwrapped
    start = {**sequence.get_progress(), "phase": 0, "phase_steps": 0, "successes": [], "sequence_over": False}

    def observations(seed: int) -> np.ndarray:
        sequence.set_progress(start)
        seen = []
        for episode in range(4):
            seen.append(cycle.reset(seed=seed if episode == 0 else None)[0])
            seen += [cycle.step(STAY)[0] for _ in range(HORIZON)]
        return np.array(seen)

    first, other, again = observations(1), observations(2), observations(1)
    np.testing.assert_array_equal(first, again)
    half = len(first) // 2
    for part in (slice(half), slice(half, None)):  # of either task
        assert not np.array_equal(first[part], other[part])


def test_boundary_through_auto_reset(cycle: gym.Env) -> None:
    sequence = cycle.unwrapped
    sequence.set_progress({**sequence.get_progress(), "phase": 0, "phase_steps": 0, "successes": [], "sequence_over": False})
    vec_env = DummyVecEnv([lambda: cycle])
    vec_env.seed(0)
    first = vec_env.reset()
    for _ in range(2 * HORIZON):
        observations, _, dones, infos = vec_env.step(STAY[None])
    assert dones[0]
    assert infos[0]["boundary"]
    assert infos[0]["task"] == "drawer-close"
    assert vec_env.reset_infos[0]["task"] == "button-press-topdown"
    assert vec_env.reset_infos[0]["phase"] == 1
    # Entries 4 to 6 are the position of the object: the old task's drawer, then the new one's button
    drawer, button = first[0, 4:7], observations[0, 4:7]
    assert np.abs(infos[0]["terminal_observation"][4:7] - drawer).max() < 0.2
    assert np.abs(button - drawer).max() > 0.2


def test_checkers_find_nothing(cycle: gym.Env) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(cycle.unwrapped, skip_render_check=True)
        sb3_check_env(cycle.unwrapped)
    # That the space has no bounds is deliberate
    messages = [str(warning.message) for warning in caught if "infinity. This is probably too" not in str(warning.message)]
    assert messages == []
