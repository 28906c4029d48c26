from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_nbsp.tasks import SequenceCheckpoint, latest_checkpoint
from sb3_nbsp.tasks.checkpoint import save_checkpoint


def agent(env: Any = "Pendulum-v1") -> SAC:
    return SAC(
        "MlpPolicy",
        env,
        learning_starts=5,
        batch_size=4,
        buffer_size=100,
        policy_kwargs={"net_arch": [4]},
        seed=0,
        device="cpu",
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_only_the_last_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = agent()
    model.learn(70, SequenceCheckpoint(20, tmp_path, verbose=1))
    printed = capsys.readouterr().out
    assert [step for step in range(1, 71) if f"checkpoint_{step}_steps" in printed] == [20, 40, 60]
    assert names(tmp_path) == ["checkpoint_60_steps"]
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint == tmp_path / "checkpoint_60_steps"
    assert names(checkpoint) == ["model.zip", "replay_buffer.pkl"]


def test_model_and_buffer_are_of_the_same_step(tmp_path: Path) -> None:
    model = agent()
    model.learn(25, SequenceCheckpoint(25, tmp_path))
    assert latest_checkpoint(tmp_path) is None  # the next rollout, at whose start it is due, does not come
    model.learn(1, SequenceCheckpoint(25, tmp_path), reset_num_timesteps=False)
    assert latest_checkpoint(tmp_path) is None  # 25 steps since training started, not since step 0
    checkpoint = save_checkpoint(model, tmp_path)
    assert checkpoint.name == "checkpoint_26_steps"
    loaded = SAC.load(checkpoint / "model.zip", env=gym.make("Pendulum-v1"), device="cpu")
    loaded.load_replay_buffer(checkpoint / "replay_buffer.pkl")
    assert loaded.num_timesteps == 26
    assert loaded.replay_buffer.size() == 26
    np.testing.assert_array_equal(loaded.replay_buffer.observations, model.replay_buffer.observations)
    for name, value in model.policy.state_dict().items():
        assert th.equal(value, loaded.policy.state_dict()[name]), name


def test_without_a_replay_buffer_and_with_normalization(tmp_path: Path) -> None:
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    env.obs_rms.mean = np.array([1.0, 2.0, 3.0])
    model = PPO("MlpPolicy", env, policy_kwargs={"net_arch": [4]}, device="cpu")
    checkpoint = save_checkpoint(model, tmp_path)
    assert names(checkpoint) == ["model.zip", "vecnormalize.pkl"]
    loaded = VecNormalize.load(str(checkpoint / "vecnormalize.pkl"), DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    assert loaded.obs_rms.mean.tolist() == [1, 2, 3]


def test_latest_of_several(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "none" / "here") is None
    for name in ("checkpoint_900_steps", "checkpoint_1000_steps", "checkpoint_99_steps"):
        (tmp_path / name).mkdir()
    # A half-written one, and names that are not ours
    for name in (
        ".checkpoint_5000_steps",
        "checkpoint_best_steps",
        "checkpoint_6000_steps_old",
        "checkpoint_8000_steps_9_steps",
        "old_checkpoint_7000_steps",
    ):
        (tmp_path / name).mkdir()
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint_1000_steps"


def break_off(*_args: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("steps_later", [0, 7])
def test_killed_while_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps_later: int) -> None:
    model = agent()
    model.num_timesteps = 1000
    good = save_checkpoint(model, tmp_path)
    content = (good / "model.zip").read_bytes()
    model.num_timesteps += steps_later
    with monkeypatch.context() as patched:
        patched.setattr(model, "save_replay_buffer", break_off)  # the model is written, the buffer is not
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(model, tmp_path)
    # The one before is whole, and the half one is not taken for the latest
    assert latest_checkpoint(tmp_path) == good
    assert names(good) == ["model.zip", "replay_buffer.pkl"]
    assert (good / "model.zip").read_bytes() == content
    # The next one tidies up, whatever its step
    for step in (1000, 2000):
        model.num_timesteps = step
        save_checkpoint(model, tmp_path)
        assert names(tmp_path) == [f"checkpoint_{step}_steps"]


@pytest.mark.parametrize("save_freq", [0, -5])
def test_save_freq_out_of_range(tmp_path: Path, save_freq: int) -> None:
    with pytest.raises(ValueError, match=f"save_freq must be at least 1, not {save_freq}"):
        SequenceCheckpoint(save_freq, tmp_path)
