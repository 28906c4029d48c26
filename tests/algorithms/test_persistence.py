"""An agent survives its files: save, load, files of plain SB3."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from saved_agents import COUNTERS, nbsp, state_of
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tagged_tasks import TaggedTask, differing, parameters, tagged_sequence, tiny

from sb3_nbsp import NBSPSAC, P3O, ContinualPPO, ContinualSAC
from sb3_nbsp.interventions import ExperienceReplay, GradientMasking, Phase
from sb3_nbsp.tasks import latest_checkpoint
from sb3_nbsp.tasks.checkpoint import save_checkpoint

# Round trips


@pytest.mark.parametrize("steps", [30, 75, 130, 240])
def test_round_trip(tmp_path: Path, steps: int) -> None:
    agent = nbsp()
    agent.learn(steps)
    before, counters = state_of(agent), {name: getattr(agent, name) for name in COUNTERS}
    progress = agent.env.env_method("get_progress")
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["buffer.pkl", "model.zip"]
    assert "intervention_memory" not in vars(agent.replay_buffer)
    loaded = NBSPSAC.load(tmp_path / "model", env=tagged_sequence())
    assert loaded.all_interventions._all[1].memory is None  # it travels with the replay buffer
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert differing(before, state_of(loaded)) == []
    assert {name: getattr(loaded, name) for name in COUNTERS} == counters
    assert "intervention_memory" not in vars(loaded.replay_buffer)
    for name in ("masking", "memory_size", "replay_interval", "mask_alpha", "goal_metric", "clear_replay_buffer", "fused"):
        assert getattr(loaded, name) == getattr(agent, name)
    # The same draws from the memory
    ours, theirs = agent.all_interventions._all[1].memory, loaded.all_interventions._all[1].memory
    if ours is None:
        assert theirs is None
    else:
        assert ours.tasks == theirs.tasks and list(ours.tasks) == list(theirs.tasks) and ours.capacity == theirs.capacity
        for _ in range(2):
            assert th.equal(ours.sample(20).observations, theirs.sample(20).observations)
    # And the masks act as before
    for mine, other in zip(
        agent.all_interventions._all[0]._steps.values(), loaded.all_interventions._all[0]._steps.values(), strict=True
    ):
        pairs = zip(mine.masked, other.masked, strict=True)
        assert all(th.equal(own_mask, mask) for (_, own_mask), (_, mask) in pairs)
    # The environment continues, at the start of an episode
    loaded.learn(1, reset_num_timesteps=False)
    (now,) = loaded.env.env_method("get_progress")
    if steps == 240:  # a finished sequence begins again
        assert (now["phase"], now["phase_steps"]) == (0, 1) and loaded.phase == Phase(4, "red")
    else:
        assert now == {**progress[0], "phase_steps": progress[0]["phase_steps"] + 1}
        assert loaded.phase == agent.phase and loaded.phase_steps == agent.phase_steps + 1


def test_a_loaded_agent_learns_like_the_original(tmp_path: Path) -> None:
    """One update from the same batch, with masks: bit for bit."""
    agent = nbsp(fused=False)
    agent.learn(100)
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    results = []
    for each in (agent, NBSPSAC.load(tmp_path / "model", env=tagged_sequence())):
        if each is not agent:
            each.load_replay_buffer(tmp_path / "buffer")
            each.learn(0, reset_num_timesteps=False)  # sets up the logger
        th.manual_seed(5)
        np.random.seed(5)
        each.train(gradient_steps=25, batch_size=16)
        results.append(parameters(each))
    assert differing(*results) == []
    assert agent._n_updates == 60 + 25  # two or three batches came from the memory


def test_saving_disturbs_nothing(tmp_path: Path) -> None:
    ends = []
    for save in (False, True):
        agent = nbsp()
        for steps in (50, 30, 60):
            agent.learn(steps, reset_num_timesteps=False)
            if save:
                agent.save(tmp_path / "model")
                agent.save_replay_buffer(tmp_path / "buffer")
        ends.append(state_of(agent))
    assert differing(*ends) == []


def test_saving_a_loaded_model_again(tmp_path: Path) -> None:
    """Without a call of learn() in between, progress, masks and memory are passed on."""
    agent = nbsp()
    agent.learn(75)
    expected = {name: value for name, value in state_of(agent).items() if not name.startswith("D")}
    agent.save(tmp_path / "first")
    for env in (None, tagged_sequence()):
        loaded = NBSPSAC.load(tmp_path / "first", env=env)
        loaded.save(tmp_path / "second")
        again = NBSPSAC.load(tmp_path / "second", env=tagged_sequence())
        actual = {name: value for name, value in state_of(again).items() if not name.startswith("D")}
        assert differing(expected, actual) == []
        again.learn(1, reset_num_timesteps=False)
        assert again.env.env_method("get_progress")[0]["phase_steps"] == 16 and again.phase == Phase(1, "blue")


def test_file_objects() -> None:
    agent = nbsp()
    agent.learn(75)
    model, buffer = io.BytesIO(), io.BytesIO()
    agent.save(model)
    agent.save_replay_buffer(buffer)
    model.seek(0)
    buffer.seek(0)
    loaded = NBSPSAC.load(model, env=tagged_sequence())
    loaded.load_replay_buffer(buffer)
    assert differing(state_of(agent), state_of(loaded)) == []


def test_set_parameters_from_a_file_brings_the_masks_and_from_a_dictionary_leaves_them(tmp_path: Path) -> None:
    agent = nbsp()
    agent.learn(75)
    agent.save(tmp_path / "model")
    assert set(agent.get_parameters()) == set(tiny(SAC, tagged_sequence()).get_parameters())
    expected = {**parameters(agent), "log_ent_coef": th.zeros(1)}
    for source in (agent.get_parameters(), str(tmp_path / "model.zip")):
        other = nbsp(seed=1)
        other.learn(60)
        masks = copy.deepcopy(other.all_interventions._all[0].masks)
        assert masks
        other.set_parameters(source)
        assert differing(expected, {**parameters(other), "log_ent_coef": th.zeros(1)}) == []
        assert (
            differing(
                masks if isinstance(source, dict) else agent.all_interventions._all[0].masks,
                other.all_interventions._all[0].masks,
            )
            == []
        )


@pytest.mark.parametrize("networks", ["actor", "critic"])
def test_other_networks_to_mask_after_loading(tmp_path: Path, networks: str) -> None:
    agent = nbsp(replay=False)
    agent.learn(75)
    agent.save(tmp_path / "model")
    loaded = NBSPSAC.load(tmp_path / "model", env=tagged_sequence(), mask_networks=networks)
    assert set(loaded.all_interventions._all[0]._steps) == {networks}
    loaded.learn(60, reset_num_timesteps=False)
    assert loaded.phase.index == 2
    assert {name.split(".")[0] for name in loaded.all_interventions._all[0].masks} == {networks}


@pytest.mark.parametrize("fused", [True, False])
def test_fused_can_be_chosen_again(tmp_path: Path, fused: bool) -> None:
    agent = nbsp(fused=not fused)
    agent.learn(40)
    agent.save(tmp_path / "model")
    loaded = NBSPSAC.load(tmp_path / "model", env=tagged_sequence(), fused=fused)
    for optimizer in (loaded.actor.optimizer, loaded.critic.optimizer):
        assert [bool(group["fused"]) for group in optimizer.param_groups] == [fused]
    loaded.learn(30, reset_num_timesteps=False)


def test_interventions_of_the_user(tmp_path: Path) -> None:
    interventions = [
        GradientMasking(skill_proportion=0.5, mask_alpha=0.1, identification_data="training"),
        ExperienceReplay(memory_size=30, replay_interval=3),
    ]
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=interventions)
    agent.learn(75)
    before = state_of(agent)
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    assert state_of(agent).keys() == before.keys()  # saving took nothing away
    loaded = ContinualSAC.load(tmp_path / "model", env=tagged_sequence())
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert differing(before, state_of(loaded)) == []
    masking, replay = loaded.interventions
    assert (masking.skill_proportion, masking.mask_alpha) == (0.5, 0.1) and (replay.memory_size, replay.replay_interval) == (
        30,
        3,
    )
    assert masking is not interventions[0]
    loaded.learn(30, reset_num_timesteps=False)


def squared(reward: float, done: bool, info: dict[str, Any]) -> float:
    return reward**2


def test_a_metric_of_the_user(tmp_path: Path) -> None:
    agent = nbsp(goal_metric=squared)
    agent.learn(75)
    agent.save(tmp_path / "model")
    loaded = NBSPSAC.load(tmp_path / "model", env=tagged_sequence())
    loaded.learn(60, reset_num_timesteps=False)
    assert set(loaded.all_interventions._all[0].scores) == {"red", "blue"}


def test_two_environments_and_another_number_of_them(tmp_path: Path) -> None:
    def two() -> DummyVecEnv:
        return DummyVecEnv([tagged_sequence, tagged_sequence])

    agent = nbsp(two())
    agent.learn(2 * 75)
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    loaded = NBSPSAC.load(tmp_path / "model", env=two())
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert differing(state_of(agent), state_of(loaded)) == []
    loaded.learn(2, reset_num_timesteps=False)
    assert [each["phase_steps"] for each in loaded.env.env_method("get_progress")] == [16, 16]
    for n_envs in (1, 3):
        other = NBSPSAC.load(tmp_path / "model", env=DummyVecEnv([tagged_sequence] * n_envs))
        with pytest.warns(UserWarning, match=f"2 environments, the agent has {n_envs}: the replay buffer starts empty"):
            other.load_replay_buffer(tmp_path / "buffer")
        assert other.replay_buffer.size() == 0 and other.replay_buffer.n_envs == n_envs
        kept, loaded_memory = agent.all_interventions._all[1].memory, other.all_interventions._all[1].memory
        assert loaded_memory.tasks == kept.tasks and (loaded_memory.observations == kept.observations).all()
        other.learn(2 * n_envs, reset_num_timesteps=False)
        assert [each["phase_steps"] for each in other.env.env_method("get_progress")] == [17] * n_envs
        assert differing(agent.all_interventions._all[0].masks, other.all_interventions._all[0].masks) == []
        other.learn(n_envs * 60, reset_num_timesteps=False)
        assert other.phase == Phase(2, "red")


def test_without_an_environment_as_rl_zoo3_loads_it(tmp_path: Path) -> None:
    agent = nbsp(qf_learning_rate=1e-3)
    agent.learn(75)
    agent.save(tmp_path / "model")
    custom_objects = {"learning_rate": 0.0, "lr_schedule": lambda _: 0.0, "clip_range": lambda _: 0.0}
    loaded = NBSPSAC.load(tmp_path / "model", custom_objects=custom_objects, buffer_size=1)
    assert loaded.env is None
    observation = np.array([1.0, 0.5, 0.2, 0.0], dtype=np.float32)
    np.testing.assert_array_equal(
        loaded.predict(observation, deterministic=True)[0], agent.predict(observation, deterministic=True)[0]
    )
    loaded.set_env(tagged_sequence())
    np.testing.assert_array_equal(
        loaded.predict(observation, deterministic=True)[0], agent.predict(observation, deterministic=True)[0]
    )


def test_normalization_statistics(tmp_path: Path) -> None:
    """A checkpoint holds them too."""
    env = VecNormalize(DummyVecEnv([tagged_sequence]))
    agent = nbsp(env)
    agent.learn(75)
    path = save_checkpoint(agent, tmp_path)
    assert path == latest_checkpoint(tmp_path)
    again = VecNormalize.load(str(path / "vecnormalize.pkl"), DummyVecEnv([tagged_sequence]))
    np.testing.assert_array_equal(again.obs_rms.mean, env.obs_rms.mean)
    loaded = NBSPSAC.load(path / "model.zip", env=again)
    loaded.load_replay_buffer(path / "replay_buffer.pkl")
    assert differing(state_of(agent), state_of(loaded)) == []
    assert (loaded.all_interventions._all[1].memory.observations[:, 0] == 1.0).all()
    loaded.learn(60, reset_num_timesteps=False)
    assert loaded.phase == Phase(2, "red")


# Files of plain SB3


@pytest.mark.parametrize("cls", [SAC, NBSPSAC])
def test_a_fixed_entropy_coefficient_that_is_given_to_load_acts(tmp_path: Path, cls: type) -> None:
    tiny(cls, tagged_sequence(), ent_coef=0.1).save(tmp_path / "model")
    for given in ({"ent_coef": 0.5}, {"custom_objects": {"ent_coef": 0.5}}):
        loaded = NBSPSAC.load(tmp_path / "model", **given)
        assert (loaded.ent_coef, loaded.ent_coef_tensor.item()) == (0.5, 0.5)
    assert NBSPSAC.load(tmp_path / "model").ent_coef_tensor.item() == pytest.approx(0.1)


@pytest.mark.parametrize("cls", [ContinualSAC, NBSPSAC])
@pytest.mark.parametrize("ent_coef", ["auto", 0.1])
def test_a_zip_of_plain_sac(tmp_path: Path, cls: type, ent_coef: Any) -> None:
    plain = tiny(SAC, tagged_sequence(), ent_coef=ent_coef)
    plain.learn(40)
    plain.save(tmp_path / "sac")
    plain.save_replay_buffer(tmp_path / "buffer")
    options = {"identification_steps": 60} if cls is NBSPSAC else {}
    loaded = cls.load(tmp_path / "sac", env=tagged_sequence(), fused=False, **options)
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert differing(parameters(plain), parameters(loaded)) == []
    assert (loaded._n_updates, loaded.num_timesteps, loaded.replay_buffer.size()) == (20, 40, 40)
    results = []
    for agent in (plain, loaded):
        agent.learn(0, reset_num_timesteps=False)
        np.random.seed(3)
        th.manual_seed(3)
        agent.train(gradient_steps=5, batch_size=16)
        results.append(parameters(agent))
    assert differing(*results) == []
    loaded.learn(200, reset_num_timesteps=False)
    assert loaded.phase.index == 3
    if cls is NBSPSAC:
        masking, replay = loaded.all_interventions._all
        assert set(masking.scores) == {"red", "blue"}
        assert replay.memory.tasks == {"red": 40 + 60 + 60, "blue": 60}  # with what plain SAC had collected


def test_a_replay_buffer_of_plain_sac_replaces_the_memory(tmp_path: Path) -> None:
    plain = tiny(SAC, tagged_sequence())
    plain.learn(33)
    plain.save_replay_buffer(tmp_path / "buffer")
    agent = nbsp()
    agent.learn(75)
    assert agent.all_interventions._all[1].memory is not None
    agent.load_replay_buffer(tmp_path / "buffer")
    assert agent.all_interventions._all[1].memory is None and agent.replay_buffer.size() == 33


def test_a_buffer_of_another_size_is_the_one_that_counts(tmp_path: Path) -> None:
    agent = tiny(NBSPSAC, tagged_sequence(), buffer_size=60).learn(80)
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    loaded = NBSPSAC.load(tmp_path / "model", env=tagged_sequence(), buffer_size=1000)
    with pytest.warns(UserWarning, match="holds a replay buffer for 60 transitions: buffer_size=1000 has no effect"):
        loaded.load_replay_buffer(tmp_path / "buffer")
    assert loaded.buffer_size == loaded.replay_buffer.buffer_size == 60


def test_our_replay_buffer_loads_into_plain_sac(tmp_path: Path) -> None:
    agent = nbsp()
    agent.learn(75)
    agent.save_replay_buffer(tmp_path / "buffer")
    plain = tiny(SAC, tagged_sequence())
    plain.load_replay_buffer(tmp_path / "buffer")
    assert plain.replay_buffer.size() == 15
    plain.learn(30)


@pytest.mark.parametrize("was_normalized", [True, False])
def test_an_agent_that_continues_on_other_observations_than_it_knows_warns(was_normalized, tmp_path, recwarn):
    raw, normalized = make_vec_env("Pendulum-v1"), VecNormalize(make_vec_env("Pendulum-v1"))
    first, then = (normalized, raw) if was_normalized else (raw, normalized)
    model = P3O("MlpPolicy", first, n_steps=8, batch_size=8, n_epochs=1, device="cpu")
    model.learn(8).save(tmp_path / "model")
    P3O.load(tmp_path / "model", env=first, device="cpu").learn(8, reset_num_timesteps=False)
    assert not [warning for warning in recwarn if "normalized" in str(warning.message)]
    with pytest.warns(UserWarning, match="continues on others, which are") as warned:
        P3O.load(tmp_path / "model", env=then, device="cpu").learn(8, reset_num_timesteps=False)
    assert {each.filename for each in warned if "continues on others" in str(each.message)} == {__file__}


@pytest.mark.parametrize(
    ("giver", "taker", "options"),
    [
        (PPO, ContinualPPO, {"n_steps": 32, "batch_size": 16}),
        (P3O, P3O, {"n_steps": 32, "batch_size": 16, "reset_frequency": 32, "reset_rate": 0.5}),
        (SAC, ContinualSAC, {"learning_starts": 10}),
        (NBSPSAC, NBSPSAC, {"learning_starts": 10}),
    ],
)
def test_agents_that_take_each_others_parameters_do_not_share_them(giver: Any, taker: Any, options: dict[str, Any]) -> None:
    def moments(agent: Any) -> Any:
        return copy.deepcopy({name: each for name, each in agent.get_parameters().items() if name.endswith("optimizer")})

    first = giver("MlpPolicy", TaggedTask(1.0), seed=0, device="cpu", **options).learn(40)
    second = taker("MlpPolicy", TaggedTask(1.0), seed=1, device="cpu", **options)
    second.set_parameters(first.get_parameters())
    before = moments(first)
    for name, of_optimizer in before.items():
        th.testing.assert_close(moments(second)[name]["state"], of_optimizer["state"], rtol=0, atol=0)
    second.learn(40)
    for name, of_optimizer in moments(first).items():
        th.testing.assert_close(of_optimizer["state"], before[name]["state"], rtol=0, atol=0)
