"""An agent survives its files: save, load, files of plain SB3, broken files."""

from __future__ import annotations

import copy
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tagged_tasks import TaggedTask, differing, parameters, tagged_sequence, tiny

from sb3_nbsp import NBSPSAC, ContinualSAC
from sb3_nbsp.files import atomic_path, atomic_write
from sb3_nbsp.interventions import ExperienceReplay, GradientMasking, Phase
from sb3_nbsp.interventions.task_memory import FIELDS
from sb3_nbsp.tasks import latest_checkpoint
from sb3_nbsp.tasks.checkpoint import save_checkpoint

COUNTERS = ("phase", "phase_steps", "_phase_over", "_env_phase", "_n_updates", "num_timesteps")


def nbsp(env: Any = None, **kwargs: Any) -> Any:
    return tiny(NBSPSAC, tagged_sequence() if env is None else env, **{"memory_size": 50, **kwargs})


def state_of(agent: Any) -> dict[str, th.Tensor]:
    """Everything that NBSP has learned: parameters, optimizers, masks, scores, memory, window and D."""
    masking, replay = agent.hooks._all[:2]
    state = parameters(agent)
    state.update({f"mask.{name}": mask for name, mask in masking.masks.items()})
    for kind in ("scores", "skill_neurons"):
        for task, networks in getattr(masking, kind).items():
            state.update({f"{kind}.{task}.{name}": values for name, values in networks.items()})
    state.update(
        {f"window.{name}": metric.nan_to_num(-7.0) for name, metric in masking.state_dict()["window"]["metrics"].items()}
    )
    for which, buffer in (("D_pre", replay.memory), ("D", agent.replay_buffer)):
        if buffer is not None:
            state.update({f"{which}.{name}": th.tensor(getattr(buffer, name)) for name in FIELDS})
    for name in ("actor", "critic"):
        for index, moments in enumerate(getattr(agent, name).optimizer.state_dict()["state"].values()):
            state.update({f"{name}.{index}.{key}": value for key, value in moments.items()})
    return {name: tensor.detach().clone() for name, tensor in state.items()}


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
    assert loaded.hooks._all[1].memory is None  # it travels with the replay buffer
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert differing(before, state_of(loaded)) == []
    assert {name: getattr(loaded, name) for name in COUNTERS} == counters
    assert "intervention_memory" not in vars(loaded.replay_buffer)
    for name in ("masking", "memory_size", "replay_interval", "mask_alpha", "goal_metric", "clear_replay_buffer", "fused"):
        assert getattr(loaded, name) == getattr(agent, name)
    # The same draws from the memory
    ours, theirs = agent.hooks._all[1].memory, loaded.hooks._all[1].memory
    if ours is None:
        assert theirs is None
    else:
        assert ours.tasks == theirs.tasks and list(ours.tasks) == list(theirs.tasks) and ours.capacity == theirs.capacity
        for _ in range(2):
            assert th.equal(ours.sample(20).observations, theirs.sample(20).observations)
    # And the masks act as before
    for mine, other in zip(agent.hooks._all[0]._steps.values(), loaded.hooks._all[0]._steps.values(), strict=True):
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
    assert agent._n_updates == 59 + 25  # two or three batches came from the memory


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


def test_get_and_set_parameters(tmp_path: Path) -> None:
    agent = nbsp()
    agent.learn(75)
    agent.save(tmp_path / "model")
    for source in (agent.get_parameters(), str(tmp_path / "model.zip")):
        other = nbsp(seed=1)
        other.set_parameters(source)
        assert (
            differing(parameters(agent) | {"log_ent_coef": th.zeros(1)}, parameters(other) | {"log_ent_coef": th.zeros(1)})
            == []
        )
        assert differing(agent.hooks._all[0].masks, other.hooks._all[0].masks) == []
    # What plain SB3 knows of does not touch the masks
    plain = {name: state for name, state in agent.get_parameters().items() if name != "hooks"}
    other = nbsp(seed=1)
    other.learn(60)
    masks = copy.deepcopy(other.hooks._all[0].masks)
    other.set_parameters(plain)
    assert differing(masks, other.hooks._all[0].masks) == [] and masks


@pytest.mark.parametrize("networks", ["actor", "critic"])
def test_other_networks_to_mask_after_loading(tmp_path: Path, networks: str) -> None:
    agent = nbsp(replay=False)
    agent.learn(75)
    agent.save(tmp_path / "model")
    loaded = NBSPSAC.load(tmp_path / "model", env=tagged_sequence(), mask_networks=networks)
    assert set(loaded.hooks._all[0]._steps) == {networks}
    loaded.learn(60, reset_num_timesteps=False)
    assert loaded.phase.index == 2
    assert {name.split(".")[0] for name in loaded.hooks._all[0].masks} == {networks}


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
    assert set(loaded.hooks._all[0].scores) == {"red", "blue"}


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
        with pytest.raises(ValueError, match=rf"its n_envs is 2, the agent's is {n_envs}"):
            other.load_replay_buffer(tmp_path / "buffer")
        other.learn(2 * n_envs, reset_num_timesteps=False)
        assert [each["phase_steps"] for each in other.env.env_method("get_progress")] == [17] * n_envs
        assert differing(agent.hooks._all[0].masks, other.hooks._all[0].masks) == []
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
    assert (loaded.hooks._all[1].memory.observations[:, 0] == 1.0).all()
    loaded.learn(60, reset_num_timesteps=False)
    assert loaded.phase == Phase(2, "red")


# Files of plain SB3


@pytest.mark.parametrize("cls", [ContinualSAC, NBSPSAC])
@pytest.mark.parametrize("ent_coef", ["auto", 0.1])
def test_a_zip_of_plain_sac(tmp_path: Path, cls: type, ent_coef: Any) -> None:
    plain = tiny(SAC, tagged_sequence(), ent_coef=ent_coef)
    plain.learn(40)
    plain.save(tmp_path / "sac")
    plain.save_replay_buffer(tmp_path / "buffer")
    loaded = cls.load(tmp_path / "sac", env=tagged_sequence(), fused=False)
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
        masking, replay = loaded.hooks._all
        assert set(masking.scores) == {"red", "blue"}
        assert replay.memory.tasks == {"red": 40 + 60 + 60, "blue": 60}  # with what plain SAC had collected


def test_a_replay_buffer_of_plain_sac_replaces_the_memory(tmp_path: Path) -> None:
    plain = tiny(SAC, tagged_sequence())
    plain.learn(33)
    plain.save_replay_buffer(tmp_path / "buffer")
    agent = nbsp()
    agent.learn(75)
    assert agent.hooks._all[1].memory is not None
    agent.load_replay_buffer(tmp_path / "buffer")
    assert agent.hooks._all[1].memory is None and agent.replay_buffer.size() == 33


def test_our_replay_buffer_loads_into_plain_sac(tmp_path: Path) -> None:
    agent = nbsp()
    agent.learn(75)
    agent.save_replay_buffer(tmp_path / "buffer")
    plain = tiny(SAC, tagged_sequence())
    plain.load_replay_buffer(tmp_path / "buffer")
    assert plain.replay_buffer.size() == 15
    plain.learn(30)


# Broken and foreign files


def write_broken_models(folder: Path) -> None:
    agent = nbsp()
    agent.learn(75)
    agent.save(folder / "good")
    whole = (folder / "good.zip").read_bytes()
    (folder / "truncated.zip").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.zip").write_bytes(b"")
    (folder / "text.zip").write_text("no zip at all")
    with zipfile.ZipFile(folder / "other zip.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing of SB3's")
    with zipfile.ZipFile(folder / "good.zip") as good, zipfile.ZipFile(folder / "without optimizer.zip", "w") as archive:
        for name in good.namelist():
            if name != "actor.optimizer.pth":
                archive.writestr(name, good.read(name))
    PPO("MlpPolicy", TaggedTask(1.0), n_steps=64, device="cpu").save(folder / "PPO")
    TD3("MlpPolicy", TaggedTask(1.0), buffer_size=10, device="cpu").save(folder / "TD3")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("truncated", "zip"),
        ("empty", "zip"),
        ("text", "zip"),
        ("other zip", "data"),
        ("without optimizer", r"actor\.optimizer"),
        ("PPO", "NBSPSAC"),
        ("TD3", "SACPolicy|NBSPSAC"),
    ],
)
def test_broken_and_foreign_models(tmp_path: Path, name: str, reason: str) -> None:
    write_broken_models(tmp_path)
    with pytest.raises(ValueError, match=reason) as caught:
        NBSPSAC.load(tmp_path / f"{name}.zip", env=tagged_sequence())
    assert f"{name}.zip" in str(caught.value) or name == "TD3"
    NBSPSAC.load(tmp_path / "good", env=tagged_sequence())


def test_models_with_masks_need_an_agent_with_masks(tmp_path: Path) -> None:
    agent = nbsp()
    agent.learn(75)
    agent.save(tmp_path / "model")
    with pytest.raises(
        ValueError, match=r"interventions \['0\.GradientMasking', '1\.ExperienceReplay'\] which this agent lacks"
    ):
        ContinualSAC.load(tmp_path / "model")
    with pytest.raises(ValueError, match="lacks"):
        NBSPSAC.load(tmp_path / "model", masking=False)


def test_missing_files_are_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        NBSPSAC.load(tmp_path / "model")
    with pytest.raises(FileNotFoundError):
        nbsp().load_replay_buffer(tmp_path / "buffer")


def write_broken_buffers(folder: Path) -> None:
    def of(env: Any, **kwargs: Any) -> ReplayBuffer:
        agent = tiny(ContinualSAC, env, **kwargs)
        agent.learn(30)
        return agent.replay_buffer

    agent = nbsp()
    agent.learn(75)
    agent.save_replay_buffer(folder / "good")
    whole = (folder / "good.pkl").read_bytes()
    (folder / "truncated.pkl").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.pkl").write_bytes(b"")
    (folder / "text.pkl").write_text("no pickle at all")

    def write(name: str, thing: Any) -> None:
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(thing))

    write("dictionary", {"observations": np.zeros(3)})
    write("other observations", of(gym.make("Pendulum-v1")))
    smaller = of(TaggedTask(1.0))
    smaller.action_dim, smaller.actions = 1, smaller.actions[:, :, :1]
    write("other actions", smaller)
    write("two environments", of(DummyVecEnv([lambda: TaggedTask(1.0), lambda: TaggedTask(1.0)])))
    wrong_memory = of(TaggedTask(1.0))
    wrong_memory.intervention_memory = {"1.ExperienceReplay": {"tasks": {"red": 2}, "arrays": {}}}  # type: ignore[attr-defined]
    write("broken memory", wrong_memory)
    arrays = {name: np.zeros((2, 9)) for name in FIELDS}
    memory = {"tasks": {"red": 2}, "arrays": arrays, "generator": np.random.default_rng().bit_generator.state}
    wrong_memory.intervention_memory = {"1.ExperienceReplay": memory}  # type: ignore[attr-defined]
    write("memory of other observations", wrong_memory)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("truncated", ""),
        ("empty", ""),
        ("text", ""),
        ("dictionary", "ReplayBuffer"),
        ("other observations", r"obs_shape is \(3,\), the agent's is \(4,\)"),
        ("other actions", "action_dim is 1, the agent's is 2"),
        ("two environments", "n_envs is 2, the agent's is 1"),
        ("broken memory", ""),
        ("memory of other observations", r"memory holds observations of shape \(9,\)"),
    ],
)
def test_broken_and_foreign_replay_buffers(tmp_path: Path, name: str, reason: str) -> None:
    write_broken_buffers(tmp_path)
    agent = nbsp(seed=3)
    agent.learn(80)
    before, d, d_pre = state_of(agent), agent.replay_buffer, agent.hooks._all[1].memory
    with pytest.raises(ValueError, match=f"{name}.pkl does not hold a replay buffer for this agent.*{reason}"):
        agent.load_replay_buffer(tmp_path / f"{name}.pkl")
    assert agent.replay_buffer is d and agent.hooks._all[1].memory is d_pre
    assert differing(before, state_of(agent)) == []
    agent.learn(1, reset_num_timesteps=False)
    agent.load_replay_buffer(tmp_path / "good")
    assert agent.replay_buffer.size() == 15 and agent.hooks._all[1].memory.size() == 50


# Atomic files


@pytest.mark.parametrize("what", ["model.zip", "buffer.pkl", "text", "path"])
def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    agent = nbsp()
    agent.learn(75)

    def write() -> None:
        if what == "model.zip":
            agent.save(tmp_path / what)
        elif what == "buffer.pkl":
            agent.save_replay_buffer(tmp_path / what)
        elif what == "text":
            atomic_write(tmp_path / what, "old" if not (tmp_path / what).exists() else "new")
        else:
            with atomic_path(tmp_path / what) as path:
                path.write_text("half")
                if (tmp_path / what).exists():
                    raise OSError("no space left on device")

    write()
    old = (tmp_path / what).read_bytes()
    assert old

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on device")

    # In the middle: the zip has begun, the pickle has its first bytes
    monkeypatch.setattr("stable_baselines3.common.save_util.th.save", fail)
    monkeypatch.setattr(
        "stable_baselines3.common.save_util.pickle.dump", lambda _obj, file, **_: (file.write(b"half"), fail())
    )
    monkeypatch.setattr(
        "pathlib.Path.write_text", lambda self, text, **_: self.write_bytes(text.encode()[:1]) if what == "path" else fail()
    )
    with pytest.raises(OSError, match="no space"):
        write()
    assert (tmp_path / what).read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == [what]
    monkeypatch.undo()
    if what in ("model.zip", "buffer.pkl"):
        write()
        assert "intervention_memory" not in vars(agent.replay_buffer)


def test_new_folders_are_made(tmp_path: Path) -> None:
    agent = nbsp()
    agent.save(tmp_path / "a" / "b" / "model")
    agent.save_replay_buffer(str(tmp_path / "c" / "buffer"))
    assert (tmp_path / "a" / "b" / "model.zip").is_file() and (tmp_path / "c" / "buffer.pkl").is_file()
