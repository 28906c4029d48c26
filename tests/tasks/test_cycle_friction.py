"""Cycle Friction on the real MuJoCo tasks: what MuJoCo computes with, at which step, and after save and load."""

import warnings
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_nbsp import P3O, SBPSAC, CyclePPO
from sb3_nbsp.tasks import CycleFriction
from sb3_nbsp.tasks.registration import MUJOCO_TASKS, cycle_friction_ids

pytest.importorskip("mujoco")
HOPPER = "CycleFriction-Hopper-v5"
# P3O paper, section 5.1: "It starts at 4, decreases by 1 every million steps to 1, then increases back to 4"
MILLIONS = [4, 3, 2, 1, 2, 3, 4, 3]


def make(**kwargs) -> gym.Env:
    env = gym.make(HOPPER, **kwargs)
    env.reset(seed=0)
    return env


def used(env: gym.Env) -> float:
    """The sliding friction of every geom in MuJoCo's model."""
    (friction,) = set(env.unwrapped.model.geom_friction[:, 0].tolist())
    return friction


def play(env: gym.Env) -> dict:
    return env.step(np.zeros(env.action_space.shape, np.float32))[4]


def ages(model) -> list[int]:
    return model.get_env().get_attr("elapsed_steps")


@pytest.mark.parametrize("million", range(8))
def test_the_papers_schedule(million):
    env = make()
    for step, expected in ((million * 10**6, MILLIONS[million]), (million * 10**6 + 999_999, MILLIONS[million])):
        env.get_wrapper_attr("set_elapsed_steps")(step)
        info = play(env)
        assert used(env) == info["friction"] == expected
        assert env.get_wrapper_attr("elapsed_steps") == step + 1
    # The next step is of the next million, in the same episode
    assert play(env)["friction"] == used(env) == [*MILLIONS, 2][million + 1]


def test_only_sliding_friction_changes():
    plain, env = gym.make("Hopper-v5"), make()
    np.testing.assert_array_equal(env.unwrapped.model.geom_friction[:, 1:], plain.unwrapped.model.geom_friction[:, 1:])
    assert env.unwrapped.model.npair == 0, "a contact pair would have a friction of its own"


def test_friction_changes_what_happens():
    """The same actions from the same state: the foot slides further where it is smooth."""
    states = []
    for friction in (4, 0.01):
        env = make(frictions=[friction])
        actions = np.random.default_rng(0).uniform(-1, 1, (60, 3)).astype(np.float32)
        states.append(np.concatenate([env.step(action)[0] for action in actions]))
        # That of MuJoCo's contacts, which is the larger of two geoms
        assert {contact.friction[0] for contact in env.unwrapped.data.contact} <= {friction}
    assert abs(states[0] - states[1]).max() > 0.1


def test_the_change_comes_in_the_middle_of_an_episode_and_the_count_goes_on_over_resets():
    env = make(frictions=[4, 2.5], steps_per_friction=3)
    assert env.reset()[1]["friction"] == 4
    assert [play(env)["friction"] for _ in range(5)] == [4, 4, 4, 2.5, 2.5]
    assert env.reset()[1]["friction"] == 2.5
    assert [play(env)["friction"] for _ in range(3)] == [2.5, 4, 4]


def test_start_step():
    env = make(start_step=3_000_000)
    assert used(env) == 1 and env.reset()[1]["friction"] == 1
    assert env.get_wrapper_attr("elapsed_steps") == 3_000_000


@pytest.mark.parametrize(
    "options, error",
    [
        ({"frictions": []}, "frictions"),
        ({"frictions": [4, 0]}, "frictions"),
        ({"frictions": [4, -1]}, "frictions"),
        ({"frictions": [float("nan")]}, "frictions"),
        ({"frictions": "4321"}, "frictions"),
        ({"frictions": 4}, "frictions"),
        ({"steps_per_friction": 0}, "steps_per_friction"),
        ({"steps_per_friction": 1.5}, "steps_per_friction"),
        ({"start_step": -1}, "start_step"),
    ],
)
def test_a_wrong_schedule_is_an_error_that_names_the_option(options, error):
    with pytest.raises(ValueError, match=rf"^{error} must be"):
        gym.make(HOPPER, **options)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_an_environment_without_mujoco_is_an_error(env_id):
    with pytest.raises(ValueError, match="env must be a MuJoCo environment"):
        CycleFriction(gym.make(env_id))


def test_ids():
    assert list(cycle_friction_ids()) == [f"CycleFriction-{task}" for task in MUJOCO_TASKS]
    names = {"HumanoidStandup", "Walker2d", "Ant", "HalfCheetah", "Humanoid", "Hopper"}
    assert set(MUJOCO_TASKS) == {f"{name}-v5" for name in names}


@pytest.mark.parametrize("env_id, task", cycle_friction_ids().items())
def test_every_id_is_its_task_but_for_the_friction(env_id, task):
    env, plain = gym.make(env_id), gym.make(task)
    assert (env.observation_space, env.action_space) == (plain.observation_space, plain.action_space)
    assert env.spec.max_episode_steps == plain.spec.max_episode_steps == 1000
    assert isinstance(env, TimeLimit)
    for each in (env, plain):
        each.reset(seed=1)
    np.testing.assert_array_equal(env.unwrapped.data.qpos, plain.unwrapped.data.qpos)
    assert used(env) == 4
    # With the task's own friction, everything is the task's
    env.unwrapped.model.geom_friction[:] = plain.unwrapped.model.geom_friction
    env.unwrapped.step(np.zeros(env.action_space.shape))
    plain.unwrapped.step(np.zeros(env.action_space.shape))
    # MuJoCo's solver starts from the forces of the reset
    np.testing.assert_allclose(env.unwrapped.data.qpos, plain.unwrapped.data.qpos, atol=1e-6)


@pytest.mark.parametrize("env_id, task", cycle_friction_ids().items())
def test_gymnasiums_checker_says_what_it_says_of_the_task(env_id, task):
    said = []
    for each in (task, env_id):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            check_env(_bare(each), skip_render_check=True)
        said.append({str(warning.message).replace(env_id, task) for warning in caught})
    # It wants the bare environment; of a wrapper it says only that
    assert {message for message in said[1] if "different from the unwrapped version" not in message} <= said[0]


def _bare(env_id: str) -> gym.Env:
    """The environment without Gymnasium's own wrappers."""
    env = gym.make(env_id)
    while not isinstance(env, CycleFriction) and isinstance(env, gym.Wrapper):
        env = env.env
    return env


def test_arguments_of_the_task_and_a_limit_of_ones_own():
    env = make(forward_reward_weight=2.0, max_episode_steps=5, terminate_when_unhealthy=False)
    assert env.unwrapped._forward_reward_weight == 2.0
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(5)]
    assert ends == [(False, False)] * 4 + [(False, True)]


def test_the_spec_makes_it_again():
    spec = make(frictions=[2, 1], steps_per_friction=10).spec
    again = gym.make(spec)
    again.reset()
    assert again.get_wrapper_attr("frictions") == (2, 1)


@pytest.mark.parametrize("cls", [DummyVecEnv, SubprocVecEnv])
def test_vectorized(cls):
    kwargs = {"frictions": [4, 1], "steps_per_friction": 2}
    venv = make_vec_env(f"sb3_nbsp:{HOPPER}", n_envs=2, vec_env_cls=cls, env_kwargs=kwargs)
    try:
        venv.reset()
        assert [info["friction"] for info in venv.reset_infos] == [4, 4]
        venv.env_method("set_elapsed_steps", 1, indices=1)
        seen = [[info["friction"] for info in venv.step(np.zeros((2, 3), np.float32))[3]] for _ in range(3)]
        assert seen == [[4, 4], [4, 1], [1, 1]]
        assert venv.get_attr("elapsed_steps") == [3, 4]
    finally:
        venv.close()


# --- agents that continue

P3O_SMALL = partial(P3O, "MlpPolicy", n_steps=10, batch_size=10, n_epochs=1, device="cpu")
SAC_SMALL = partial(SBPSAC, "MlpPolicy", learning_starts=5, batch_size=4, buffer_size=100, device="cpu")
SHORT = {"frictions": [4, 3, 2, 1], "steps_per_friction": 15}


@pytest.mark.parametrize("make_agent", [P3O_SMALL, SAC_SMALL])
def test_a_loaded_agent_continues_at_its_friction(make_agent, tmp_path):
    model = make_agent(gym.make(HOPPER, **SHORT)).learn(20)
    assert ages(model) == [20]
    model.save(tmp_path / "model")

    env = gym.make(HOPPER, **SHORT)
    loaded = type(model).load(tmp_path / "model", env=env, device="cpu")
    loaded.learn(20, reset_num_timesteps=False)
    assert (loaded.num_timesteps, ages(loaded), used(env)) == (40, [40], 2)
    # The environment goes on as it is with each further call
    loaded.learn(10, reset_num_timesteps=False)
    assert (ages(loaded), used(env)) == ([50], 1)


@pytest.mark.parametrize("make_agent", [P3O_SMALL, SAC_SMALL])
def test_the_papers_schedule_of_a_loaded_agent(make_agent, tmp_path):
    model = make_agent(gym.make(HOPPER)).learn(10)
    model.num_timesteps = 2_999_999
    model.save(tmp_path / "model")
    seen = []

    def record(locals_, globals_):
        seen.extend(info["friction"] for info in locals_["infos"])
        return True

    env = VecNormalize(make_vec_env(HOPPER))
    loaded = type(model).load(tmp_path / "model", env=env, device="cpu")
    loaded.learn(3, callback=record, reset_num_timesteps=False)
    assert seen[:3] == [2, 1, 1]


def test_the_first_observation_is_already_of_the_right_friction(tmp_path):
    P3O_SMALL(gym.make(HOPPER, **SHORT)).learn(20).save(tmp_path / "model")
    loaded = P3O.load(tmp_path / "model", env=gym.make(HOPPER, **SHORT), device="cpu")
    loaded._setup_learn(10, reset_num_timesteps=False)
    assert loaded.get_env().reset_infos[0]["friction"] == 3


@pytest.mark.parametrize("cls", [DummyVecEnv, SubprocVecEnv])
def test_steps_are_counted_per_environment(cls, tmp_path):
    def venv():
        return make_vec_env(f"sb3_nbsp:{HOPPER}", n_envs=2, vec_env_cls=cls, env_kwargs=SHORT)

    model = CyclePPO("MlpPolicy", venv(), n_steps=10, batch_size=20, n_epochs=1, device="cpu").learn(40)
    assert (model.num_timesteps, ages(model)) == (40, [20, 20])
    model.get_env().close()
    model.save(tmp_path / "model")
    loaded = CyclePPO.load(tmp_path / "model", env=venv(), device="cpu")
    loaded.learn(20, reset_num_timesteps=False)
    assert (loaded.num_timesteps, ages(loaded)) == (60, [30, 30])
    loaded.get_env().close()


@pytest.mark.parametrize(("n_envs", "steps"), [(4, 5), (1, 20)])
def test_another_number_of_environments_continues_at_the_friction_of_each(n_envs, steps, tmp_path):
    def venv(number):
        return make_vec_env(f"sb3_nbsp:{HOPPER}", n_envs=number, env_kwargs=SHORT)

    def check(loaded):
        loaded.learn(20, reset_num_timesteps=False)
        assert ages(loaded) == [20 + steps] * n_envs
        # And back
        loaded.save(tmp_path / "back")
        again = CyclePPO.load(tmp_path / "back", env=venv(2), device="cpu").learn(20, reset_num_timesteps=False)
        assert ages(again) == [20 + steps + 10] * 2

    options = {"n_steps": 5, "batch_size": 5, "n_epochs": 1, "device": "cpu"}
    CyclePPO("MlpPolicy", venv(2), **options).learn(40).save(tmp_path / "model")
    check(CyclePPO.load(tmp_path / "model", env=venv(n_envs), device="cpu"))
    PPO("MlpPolicy", venv(2), **options).learn(40).save(tmp_path / "plain")
    check(CyclePPO.load(tmp_path / "plain", env=venv(n_envs), device="cpu"))


def test_a_run_that_began_later_continues_later(tmp_path):
    P3O_SMALL(gym.make(HOPPER, start_step=30, **SHORT)).learn(10).save(tmp_path / "model")
    for start_step in (30, 40, 0):
        env = gym.make(HOPPER, start_step=start_step, **SHORT)
        loaded = P3O.load(tmp_path / "model", env=env, device="cpu")
        assert ages(loaded.learn(10, reset_num_timesteps=False)) == [50]
    # An environment that is older than the agent stays as it is
    loaded = P3O.load(tmp_path / "model", env=gym.make(HOPPER, start_step=100, **SHORT), device="cpu")
    assert ages(loaded.learn(10, reset_num_timesteps=False)) == [110]


def test_beginning_anew(tmp_path):
    """The agent's count begins anew: a new environment too, a used one goes on as it is."""
    model = P3O_SMALL(gym.make(HOPPER, **SHORT)).learn(20)
    model.save(tmp_path / "model")
    assert ages(model.learn(10)) == [30]
    model.save(tmp_path / "used")
    loaded = P3O.load(tmp_path / "model", env=gym.make(HOPPER, **SHORT), device="cpu")
    assert ages(loaded.learn(10)) == [10]
    # A count that began anew in a used environment: where that was
    again = P3O.load(tmp_path / "used", env=gym.make(HOPPER, **SHORT), device="cpu")
    assert again.num_timesteps == 10
    assert ages(again.learn(10, reset_num_timesteps=False)) == [40]


def test_a_model_of_plain_sb3_continues_at_its_count(tmp_path):
    plain = SAC("MlpPolicy", gym.make(HOPPER, **SHORT), learning_starts=5, batch_size=4, buffer_size=100, device="cpu")
    plain.learn(20).save(tmp_path / "model")
    loaded = SBPSAC.load(tmp_path / "model", env=gym.make(HOPPER, **SHORT), device="cpu")
    assert ages(loaded.learn(10, reset_num_timesteps=False)) == [30]
    # Plain SB3 itself
    again = SAC.load(tmp_path / "model", env=gym.make(HOPPER, start_step=20, **SHORT), device="cpu")
    assert ages(again.learn(10, reset_num_timesteps=False)) == [30]
