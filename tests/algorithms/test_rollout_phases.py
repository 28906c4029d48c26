"""On-policy agents follow the phases of a sequence, too: their interventions hear of them between a rollout and its update."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tagged_tasks import TaggedTask, differing, parameters, tagged_sequence

from sb3_nbsp import P3O, ContinualPPO, ContinualSAC
from sb3_nbsp.interventions import Intervention, Phase, RecoveryTraining
from sb3_nbsp.interventions.base import HOOKS, OFF_POLICY_HOOKS, ON_POLICY_HOOKS
from sb3_nbsp.tasks import SequenceEvaluation


def small(cls: type, env: Any, **kwargs: Any) -> Any:
    options: dict[str, Any] = {"n_steps": 16, "batch_size": 8, "n_epochs": 1, "policy_kwargs": {"net_arch": [8]}, "seed": 0}
    return cls("MlpPolicy", env, device="cpu", **{**options, **kwargs})


class Diary(Intervention):
    """Everything that has to do with phases, and what the buffer and the policy were then."""

    book: ClassVar[list[Any]] = []

    def attach(self, agent: Any) -> None:
        super().attach(agent)
        self.book.clear()

    def on_transition(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        self.book.append(("step", rewards.tolist(), infos[0]["task"], self.agent._n_updates))  # type: ignore[attr-defined]

    def _picture(self, name: str, phase: Phase) -> None:
        agent: Any = self.agent
        tags = agent.rollout_buffer.observations[:, 0, 0].tolist()
        self.book.append((name, phase, agent.num_timesteps, agent._n_updates, tags))

    def on_phase_end(self, phase: Phase) -> None:
        self._picture("end", phase)

    def on_phase_start(self, phase: Phase) -> None:
        self._picture("start", phase)


@pytest.fixture(autouse=True)
def new_book() -> None:
    TaggedTask.played.clear()


@pytest.mark.parametrize("fused", [False, True])
def test_the_course_of_a_sequence(fused: bool) -> None:
    """Phases of 40 steps in rollouts of 16: boundaries at 40 and 80, heard of when the rollouts to 48 and 80 are full."""
    agent = small(ContinualPPO, tagged_sequence(steps_per_task=40, cycles=1), interventions=[Diary()], fused=fused)
    agent.learn(1000)
    steps = [entry for entry in Diary.book if entry[0] == "step"]
    assert [entry[2] for entry in steps] == ["red"] * 40 + ["blue"] * 40
    played = [step[2] for tag in (1.0, 2.0) for step in TaggedTask.played[tag]]
    np.testing.assert_allclose([entry[1][0] for entry in steps], played[:80], rtol=1e-6)
    assert [entry[:4] for entry in Diary.book if entry[0] != "step"] == [
        ("end", Phase(0, "red"), 48, 2),  # before the update on the rollout with the boundary in it
        ("start", Phase(1, "blue"), 48, 2),
        ("end", Phase(1, "blue"), 80, 4),
    ]
    end = next(entry for entry in Diary.book if entry[0] == "end")
    assert end[4] == [1.0] * 8 + [2.0] * 8  # the rollout with the boundary in it
    assert [entry[0] for entry in Diary.book[39:43]] == ["step", "end", "start", "step"]
    # It learns from the last rollout and then stops, as ContinualSAC does
    assert agent.num_timesteps == 80 and agent._n_updates == 5 and agent.phase == Phase(1, "blue")


class Reusing(gym.Env):
    """Writes into one dictionary, and arrays and dictionaries in it, at every step."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self) -> None:
        self.info: dict[str, Any] = {"steps": 0, "place": np.zeros(1), "more": {"steps": [0]}}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.info["steps"] += 1
        self.info["place"][:] = self.info["more"]["steps"][0] = self.info["steps"]
        return np.zeros(1, np.float32), 0.0, False, self.info["steps"] % 5 == 0, self.info


class ReusingVecEnv(DummyVecEnv):
    """Returns its own arrays and dictionaries, as the vectorized environments of simulators do."""

    def step_wait(self) -> Any:
        observations, _, _, _ = super().step_wait()
        return observations, self.buf_rews, self.buf_dones, self.buf_infos


class Memories(Intervention):
    told: ClassVar[list[Any]] = []

    def on_transition(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        info = infos[0]
        numbers = [info["steps"], info["place"][0], info["more"]["steps"][0]]
        self.told.append((bool(dones[0]), *map(int, numbers)))


@pytest.mark.parametrize("vectorized", [DummyVecEnv, ReusingVecEnv])
def test_environments_may_write_into_what_they_returned(vectorized: type[DummyVecEnv]) -> None:
    Memories.told.clear()
    small(ContinualPPO, vectorized([Reusing]), interventions=[Memories()]).learn(16)
    assert Memories.told == [(step % 5 == 0, step, step, step) for step in range(1, 17)]


def test_rewards_are_those_of_the_environment() -> None:
    env = VecNormalize(DummyVecEnv([lambda: tagged_sequence(terminates=False)]))
    small(ContinualPPO, env, interventions=[Diary()]).learn(16)
    told = [entry[1][0] for entry in Diary.book]
    np.testing.assert_allclose(told, [step[2] for step in TaggedTask.played[1.0]], rtol=1e-6)


def test_parallel_environments_are_asked_to_move_on() -> None:
    common: dict[str, Any] = {"cycles": 1, "mastery_threshold": 1.0, "mastery_window": 2}
    env = DummyVecEnv([lambda: tagged_sequence(success=1, **common), lambda: tagged_sequence(success="never", **common)])
    agent = small(ContinualPPO, env, interventions=[Diary()])
    agent.learn(2 * 48)
    assert [each.unwrapped.phase for each in env.envs] == [1, 1] and agent.phase == Phase(1, "blue")
    assert next(entry for entry in Diary.book if entry[0] == "end")[2] == 2 * 32
    # The step on which one was in blue and the other in red belongs to no phase
    assert [entry[2] for entry in Diary.book if entry[0] == "step"] == ["red"] * 30 + ["blue"] * 17


def test_without_interventions_it_is_ppo_until_the_sequence_ends() -> None:
    ends = []
    for cls, options, steps in ((PPO, {}, 128), (ContinualPPO, {"fused": False}, 10_000)):
        agent = small(cls, tagged_sequence(cycles=1), **options)
        agent.learn(steps)
        assert agent.num_timesteps == 128
        ends.append(parameters(agent))
    assert differing(*ends) == []


def test_a_callback_that_ends_training_does_not_swallow_the_last_phase(tmp_path: Path) -> None:
    agent = small(P3O, tagged_sequence(steps_per_task=20, cycles=1), interventions=[Diary()])
    agent.learn(10_000, callback=SequenceEvaluation(tmp_path, 1, progress_bar=False))
    assert [entry[1] for entry in Diary.book if entry[0] == "end"] == [Phase(0, "red"), Phase(1, "blue")]


def test_several_calls_of_learn_are_one() -> None:
    ends = []
    for parts in ((64,), (16, 32, 16)):
        agent = small(ContinualPPO, tagged_sequence(steps_per_task=20), interventions=[Diary()])
        for steps in parts:
            agent.learn(steps, reset_num_timesteps=False)
        ends.append([entry for entry in Diary.book if entry[0] != "step"])
    assert ends[0] == ends[1] and len(ends[0]) == 6


class StopAt(BaseCallback):
    def __init__(self, step: int, path: Path) -> None:
        super().__init__()
        self.step, self.path = step, path

    def _on_step(self) -> bool:
        if self.num_timesteps == self.step:
            self.model.save(self.path)
        return self.num_timesteps < self.step


def test_a_model_saved_in_the_midst_of_a_rollout_continues_in_its_phase(tmp_path: Path) -> None:
    agent = small(P3O, tagged_sequence(steps_per_task=20))
    agent.learn(1000, callback=StopAt(26, tmp_path / "model"))
    env = tagged_sequence(steps_per_task=20)
    loaded = P3O.load(tmp_path / "model", env=env, interventions=[Diary()])
    loaded.learn(10, reset_num_timesteps=False)
    assert env.phase == 1 and [entry[:2] for entry in Diary.book[:2]] == [
        ("end", Phase(0, "red")),
        ("start", Phase(1, "blue")),
    ]
    assert loaded.phase == Phase(1, "blue")


# Hooks that an agent never calls


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_an_agent_refuses_hooks_that_it_never_calls(hook: str) -> None:
    def own(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(Intervention, hook)(self, *args, **kwargs)

    kind = type("Mine", (Intervention,), {hook: own})
    for cls, called in ((ContinualPPO, ON_POLICY_HOOKS), (ContinualSAC, OFF_POLICY_HOOKS)):
        mine = kind()
        if hook in called:
            cls("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [4]}, interventions=[mine], device="cpu")
            continue
        with pytest.raises(ValueError, match=rf"Mine overrides {hook}\(\), which {cls.__name__} never calls"):
            cls("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [4]}, interventions=[mine], device="cpu")
        assert not hasattr(mine, "agent")  # it can be given to another one


def test_every_hook_has_a_name() -> None:
    public = {name for name, value in vars(Intervention).items() if callable(value) and not name.startswith("_")}
    assert public - {"attach", "record", "overrides"} == HOOKS


def test_recovery_training_needs_rollouts() -> None:
    with pytest.raises(ValueError, match="RecoveryTraining needs an on-policy agent"):
        ContinualSAC("MlpPolicy", "Pendulum-v1", interventions=[RecoveryTraining()])
