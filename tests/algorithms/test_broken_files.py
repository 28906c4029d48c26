"""Files that are broken, or of somebody else, are refused and leave the agent as it was."""

from __future__ import annotations

import ast
import pickle
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from saved_agents import nbsp, state_of
from stable_baselines3 import PPO, TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv
from tagged_tasks import TaggedTask, differing, tagged_sequence, tiny

from sb3_nbsp import NBSPSAC, PISAC, ContinualDiscreteSAC, ContinualPPO, ContinualSAC, CReLUSAC
from sb3_nbsp.interventions.task_memory import FIELDS


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


@pytest.mark.parametrize(
    ("saved", "loading", "reason"),
    [
        (ContinualDiscreteSAC, ContinualSAC, r"ContinualSAC is for continuous actions, not for those of Discrete\(2\)"),
        (ContinualSAC, ContinualDiscreteSAC, r"ContinualDiscreteSAC is for discrete actions, not for those of Box"),
        (ContinualSAC, ContinualPPO, r"model\.zip .* ContinualPPO .*: its policy is SACMlpPolicy, which is no Actor"),
        (ContinualPPO, ContinualSAC, r"model\.zip .* ContinualSAC .*: its policy is PPOMlpPolicy, which is no SACPolicy"),
    ],
)
def test_a_model_of_another_algorithm_is_refused_and_the_error_says_what_it_is(
    tmp_path: Path, saved: type, loading: Any, reason: str
) -> None:
    tiny(saved, "CartPole-v1" if saved is ContinualDiscreteSAC else TaggedTask(1.0)).save(tmp_path / "model.zip")
    with pytest.raises(ValueError, match=reason):
        loading.load(tmp_path / "model.zip")


def test_models_with_masks_need_an_agent_with_masks(tmp_path: Path) -> None:
    agent = nbsp()
    agent.learn(75)
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    with pytest.raises(ValueError, match=r"interventions \['GradientMasking', 'ExperienceReplay'\] which this agent lacks"):
        ContinualSAC.load(tmp_path / "model")
    with pytest.raises(ValueError, match=r"replay buffer has interventions \['ExperienceReplay'\] which this agent lacks"):
        tiny(ContinualSAC, tagged_sequence()).load_replay_buffer(tmp_path / "buffer")


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
    wrong_memory.intervention_memory = {"ExperienceReplay": {"tasks": {"red": 2}, "arrays": {}}}  # type: ignore[attr-defined]
    write("broken memory", wrong_memory)
    arrays = {name: np.zeros((2, 9)) for name in FIELDS}
    memory = {"tasks": {"red": 2}, "arrays": arrays, "generator": np.random.default_rng().bit_generator.state}
    wrong_memory.intervention_memory = {"ExperienceReplay": memory}  # type: ignore[attr-defined]
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
    before, d, d_pre = state_of(agent), agent.replay_buffer, agent.all_interventions._all[1].memory
    with pytest.raises(ValueError, match=f"{name}.pkl does not hold a replay buffer for this agent.*{reason}"):
        agent.load_replay_buffer(tmp_path / f"{name}.pkl")
    assert agent.replay_buffer is d and agent.all_interventions._all[1].memory is d_pre
    assert differing(before, state_of(agent)) == []
    agent.learn(1, reset_num_timesteps=False)
    agent.load_replay_buffer(tmp_path / "good")
    assert agent.replay_buffer.size() == 15 and agent.all_interventions._all[1].memory.size() == 50


def test_networks_of_another_shape_are_named(tmp_path: Path) -> None:
    tiny(ContinualSAC, TaggedTask(1.0)).save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"does not hold a model that CReLUSAC can load: (.|\n)*size mismatch"):
        CReLUSAC.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("cls", "option"), [(PISAC, "head_layers=1"), (PISAC, "injection_networks='critic'"), (ContinualSAC, "use_sde=True")]
)
def test_an_option_that_makes_other_networks_is_named(cls: Any, option: str, tmp_path: Path) -> None:
    agent = tiny(cls, tagged_sequence())
    agent.learn(70)
    agent.save(tmp_path / "model")
    name, value = option.split("=")
    with pytest.raises(ValueError, match=f"{cls.__name__} can load with {option}, which may be what it is not made for: "):
        cls.load(tmp_path / "model", **{name: ast.literal_eval(value)})
