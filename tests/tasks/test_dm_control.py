"""The DeepMind Control Suite under this package's ids."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

from sb3_nbsp import P3O, SBPSAC
from sb3_nbsp.tasks.dm_control import TASKS, import_dm_control
from sb3_nbsp.tasks.registration import dm_control_ids

SIZES = {  # observation, action
    "hopper-hop": (15, 4),
    "hopper-stand": (15, 4),
    "walker-run": (24, 6),
    "humanoid-walk": (67, 21),
    "quadruped-run": (78, 12),
    "cheetah-run": (17, 6),
    "dog-run": (223, 38),
}


def test_ids():
    """Without importing shimmy."""
    assert len(dm_control_ids()) == 49
    needed = {"hopper-hop", "hopper-stand", "cheetah-run", "quadruped-run", "quadruped-walk", "dog-run"}
    needed |= {f"{domain}-{task}" for domain in ("walker", "humanoid") for task in ("run", "walk", "stand")}
    assert {f"DMC-{name}-v0" for name in needed} <= set(dm_control_ids()) <= set(gym.registry)


def test_without_dm_control_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "shimmy", None)
    with pytest.raises(ImportError, match=r"pip install 'sb3_nbsp\[dmc\]'"):
        gym.make("DMC-hopper-hop-v0")


@pytest.fixture
def suite() -> None:
    pytest.importorskip("dm_control", reason="dm_control is not installed: pip install 'sb3_nbsp[dmc]'")
    pytest.importorskip("shimmy", reason="shimmy is not installed: pip install 'sb3_nbsp[dmc]'")
    import_dm_control()


@pytest.mark.usefixtures("suite")
def test_all_of_the_suite_is_there():
    found = {tuple(env_id.removeprefix("dm_control/").removesuffix("-v0").split("-")) for env_id in gym.registry
             if env_id.startswith("dm_control/")}  # fmt: skip
    known = {(domain, task) for domain, tasks in TASKS.items() for task in tasks}
    domains = {*TASKS, "lqr"}
    assert {pair for pair in found if pair[0] in domains} == known | {("lqr", "lqr_2_1"), ("lqr", "lqr_6_2")}


@pytest.mark.usefixtures("suite")
def test_videos_have_the_speed_of_the_task():
    """One step of the hopper takes 20 milliseconds, of the cheetah 10, of the walker 25."""
    envs = [gym.make(f"DMC-{name}-v0", render_mode="rgb_array") for name in ("hopper-hop", "cheetah-run", "walker-run")]
    assert [env.metadata["render_fps"] for env in envs] == [50, 100, 40]
    sequence = gym.make("GymCycle-v0", env_ids=["DMC-hopper-hop-v0", "DMC-hopper-stand-v0"])
    assert sequence.metadata["render_fps"] == 50


@pytest.mark.usefixtures("suite")
@pytest.mark.parametrize("name, sizes", SIZES.items())
def test_spaces_are_flat_and_a_seed_repeats(name, sizes):
    env, raw = gym.make(f"DMC-{name}-v0"), gym.make(f"dm_control/{name}-v0")
    assert env.observation_space == gym.spaces.Box(-np.inf, np.inf, (sizes[0],), np.float32)
    assert env.action_space.shape == (sizes[1],)
    assert env.action_space.is_bounded() and abs(env.action_space.low).max() < 2
    played = []
    for _ in range(2):
        observations = [env.reset(seed=3)[0]]
        env.action_space.seed(3)
        observations += [env.step(env.action_space.sample())[0] for _ in range(3)]
        assert all(env.observation_space.contains(observation) for observation in observations)
        played.append(observations)
    np.testing.assert_array_equal(*played)
    # The same task as shimmy's
    flat = gym.spaces.flatten(raw.observation_space, raw.reset(seed=3)[0])
    np.testing.assert_array_equal(flat.astype(np.float32), played[0][0])


@pytest.mark.usefixtures("suite")
@pytest.mark.parametrize("name", ["hopper-hop", "walker-run"])
def test_episodes_are_truncated_after_1000_steps(name):
    env = gym.make(f"DMC-{name}-v0")
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(1000)]
    assert ends == [(False, False)] * 999 + [(False, True)]
    env.reset()
    limited = gym.make(f"DMC-{name}-v0", max_episode_steps=3)
    limited.reset()
    assert [limited.step(limited.action_space.sample())[3] for _ in range(3)] == [False, False, True]


@pytest.mark.usefixtures("suite")
def test_gymnasiums_checker_accepts_it():
    check_env(gym.make("DMC-hopper-hop-v0").unwrapped, skip_render_check=True)
    check_env(gym.make("DMC-hopper-hop-v0"), skip_render_check=True)


@pytest.mark.usefixtures("suite")
def test_arguments_of_the_suite():
    env = gym.make("DMC-hopper-hop-v0", task_kwargs={"time_limit": 0.1})
    env.reset(seed=0)
    assert [env.step(env.action_space.sample())[3] for _ in range(5)] == [False] * 4 + [True]


@pytest.mark.usefixtures("suite")
@pytest.mark.parametrize("cls, kwargs", [(P3O, {"n_steps": 16, "batch_size": 16}), (SBPSAC, {"learning_starts": 10})])
def test_agents_learn_on_it(cls, kwargs, tmp_path):
    model = cls("MlpPolicy", gym.make("DMC-hopper-hop-v0"), device="cpu", reset_frequency=10, **kwargs)
    model.learn(32)
    model.save(tmp_path / "model")
    loaded = cls.load(tmp_path / "model", env=gym.make("DMC-hopper-hop-v0"), device="cpu")
    observation = loaded.get_env().reset()
    np.testing.assert_array_equal(*(each.predict(observation, deterministic=True)[0] for each in (model, loaded)))
    assert loaded.learn(16, reset_num_timesteps=False).num_timesteps == 48


@pytest.mark.slow
@pytest.mark.usefixtures("suite")
def test_in_processes():
    venv = make_vec_env("sb3_nbsp:DMC-hopper-hop-v0", n_envs=2, vec_env_cls=SubprocVecEnv)
    try:
        assert venv.reset().shape == (2, 15)
        assert venv.step(np.zeros((2, 4)))[0].shape == (2, 15)
    finally:
        venv.close()
