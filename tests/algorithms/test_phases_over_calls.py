"""Phases over several calls of learn(), pauses, other environments and processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch as th
from phase_checks import Watch, sequences
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv
from tagged_tasks import Spy, differing, parameters, random_states, tagged_sequence, tiny

from sb3_nbsp import NBSPSAC, ContinualSAC
from sb3_nbsp.interventions import GradientMasking, Phase
from sb3_nbsp.tasks import latest_checkpoint, load_checkpoint
from sb3_nbsp.tasks.checkpoint import save_checkpoint


# Updates: of 60 steps of the phase, 20 are warm-up, and so are those of rollouts that end in it
@pytest.mark.parametrize(("train_freq", "steps", "updates"), [(1, 60, 40), (7, 63, 46), ((2, "episode"), 60, 40)])
@pytest.mark.parametrize("loaded", [False, True])
def test_a_pause_at_a_boundary(train_freq: Any, steps: int, updates: int, loaded: bool, tmp_path: Any) -> None:
    """The agent has learned from the whole phase, and the next call of learn() begins with its end."""
    agent = tiny(NBSPSAC, tagged_sequence(), train_freq=train_freq, gradient_steps=-1)
    agent.pause_at_boundary()
    agent.learn(10_000)
    assert agent.num_timesteps == steps and agent._n_updates == updates
    assert (agent.phase, agent.n_finished_phases) == (Phase(0, "red"), 0)
    assert agent.replay_buffer.size() == 60 and not agent.all_interventions.find(GradientMasking).masks
    if loaded:
        save_checkpoint(agent, tmp_path)
        agent = load_checkpoint(NBSPSAC, latest_checkpoint(tmp_path), tagged_sequence())
    agent.learn(1, reset_num_timesteps=False)
    assert (agent.phase, agent.n_finished_phases) == (Phase(1, "blue"), 1)
    assert agent.replay_buffer.size() <= 20 and set(agent.replay_buffer.observations[: agent.replay_buffer.size(), 0, 0]) == {
        2
    }
    assert set(agent.all_interventions.find(GradientMasking).skill_neurons) == {"red"}
    agent.learn(10_000, reset_num_timesteps=False)
    assert agent.n_finished_phases == 4, "one pause only"


def test_the_end_of_a_sequence_is_no_pause() -> None:
    agent = tiny(ContinualSAC, tagged_sequence(cycles=1))
    for _ in range(2):
        agent.pause_at_boundary()
        agent.learn(10_000, reset_num_timesteps=False)
    assert agent.n_finished_phases == 2 and agent.num_timesteps == 120


def test_several_calls_of_learn_are_one() -> None:
    whole = tiny(NBSPSAC, tagged_sequence(), fused=False)
    whole.learn(200)
    expected, states = parameters(whole), random_states()
    parts = tiny(NBSPSAC, tagged_sequence(), fused=False)
    for steps in (7, 53, 1, 40, 19, 80):
        parts.learn(steps, reset_num_timesteps=False)
    assert differing(expected, parameters(parts)) == [] and random_states() == states
    assert parts.phase == whole.phase and parts.phase_steps == whole.phase_steps == 20
    assert parts.num_timesteps == 200


def test_a_call_that_resets_the_environment_stays_in_the_phase() -> None:
    spy = Spy()
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[spy])
    agent.learn(75)
    agent.learn(30)  # counts from 0 again
    assert agent.num_timesteps == 30
    assert agent.phase == Phase(1, "blue") and agent.phase_steps == 45 and agent.replay_buffer.size() == 45
    # The environment's own count goes on: the episode that was broken off had taken 5 of 60 steps
    agent.learn(10_000, reset_num_timesteps=False)
    assert [end["num_timesteps"] for end in spy.ends] == [60, 30 + 15 + 5, 50 + 60, 110 + 60]


def test_another_environment_is_another_phase() -> None:
    watch = Watch()
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[watch])
    agent.learn(45)
    agent.set_env(tagged_sequence(("green", "blue")))
    agent.learn(50, reset_num_timesteps=False)
    assert [end["phase"] for end in watch.ends] == [Phase(0, "red")]
    assert agent.phase == Phase(1, "green") and agent.phase_steps == 50
    assert watch.of_phase(1)[0]["size"] == 1  # the buffer was emptied
    assert watch.of_phase(1)[20]["asked"] - watch.of_phase(0)[-1]["asked"] == 1  # and there was a warm-up
    agent.learn(10, reset_num_timesteps=False)  # the new environment's own boundary
    assert agent.phase == Phase(2, "blue") and len(watch.ends) == 2


def test_another_environment_behind_the_end_of_a_sequence() -> None:
    """The last phase has ended already and does not end twice."""
    spy = Spy()
    agent = tiny(ContinualSAC, tagged_sequence(cycles=1), interventions=[spy])
    agent.learn(10_000)
    agent.set_env(tagged_sequence(("green", "blue"), cycles=1))
    agent.learn(10_000, reset_num_timesteps=False)
    assert [end["phase"] for end in spy.ends] == [Phase(0, "red"), Phase(1, "blue"), Phase(2, "green"), Phase(3, "blue")]
    assert agent.num_timesteps == 240


def test_the_same_environment_again_is_no_new_phase() -> None:
    agent = tiny(ContinualSAC, tagged_sequence())
    agent.learn(45)
    agent.set_env(tagged_sequence())
    agent.learn(5, reset_num_timesteps=False)
    assert agent.phase == Phase(0, "red") and agent.replay_buffer.size() == 50


def crossing_environments() -> DummyVecEnv:
    common: dict[str, Any] = {"cycles": 3, "steps_per_task": 10_000, "mastery_threshold": 1.0, "mastery_window": 2}
    return DummyVecEnv(sequences({**common, "success": 2}, {**common, "success": 50}))


@pytest.mark.parametrize("reset", [False, True])
def test_a_call_of_learn_may_end_between_two_boundaries(reset: bool) -> None:
    """One environment has moved on, the other has not: the next call waits for it and no phase is skipped."""
    spy = Spy()
    env = crossing_environments()
    agent = tiny(ContinualSAC, env, interventions=[spy])
    agent.learn(2 * 40)
    assert [each.unwrapped.phase for each in env.envs] == [1, 0] and agent.phase == Phase(0, "red")
    agent.learn(2 * 10, reset_num_timesteps=reset)
    assert [each.unwrapped.phase for each in env.envs] == [1, 1] and agent.phase == Phase(1, "blue")
    agent.learn(2 * 15, reset_num_timesteps=False)
    assert [each.unwrapped.phase for each in env.envs] == [1, 1] and len(spy.ends) == 1
    assert (agent.replay_buffer.observations[: agent.replay_buffer.pos, :, 0] == 2.0).all()


def test_another_environment_between_two_boundaries() -> None:
    """Nobody waits for the old one any more."""
    spy = Spy()
    agent = tiny(ContinualSAC, crossing_environments(), interventions=[spy])
    agent.learn(2 * 40)
    agent.set_env(DummyVecEnv(sequences({"tasks": ("green", "blue")}, {"tasks": ("green", "blue")})))
    agent.learn(2 * 5, reset_num_timesteps=False)
    assert [end["phase"] for end in spy.ends] == [Phase(0, "red")]
    assert agent.phase == Phase(1, "green") and agent.replay_buffer.size() == 5


def test_a_model_saved_between_two_boundaries(tmp_path: Any) -> None:
    env = crossing_environments()
    agent = tiny(ContinualSAC, env)
    agent.learn(2 * 40)
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    env = crossing_environments()
    loaded = ContinualSAC.load(tmp_path / "model", env=env)
    loaded.load_replay_buffer(tmp_path / "buffer")
    loaded.learn(2 * 15, reset_num_timesteps=False)
    assert [each.unwrapped.phase for each in env.envs] == [1, 1] and loaded.phase == Phase(1, "blue")
    assert (loaded.replay_buffer.observations[: loaded.replay_buffer.pos, :, 0] == 2.0).all()


class Progress(BaseCallback):
    """Asks the environments for their progress at every step."""

    def _on_training_start(self) -> None:
        self.seen: list[Any] = []

    def _on_step(self) -> bool:
        self.seen.append([(each["phase"], each["phase_steps"]) for each in self.training_env.env_method("get_progress")])
        return True


def test_processes_are_like_environments_in_this_one() -> None:
    """SubprocVecEnv gives the same run as DummyVecEnv, with masks, memory and an environment that is asked to move on."""
    common: dict[str, Any] = {"steps_per_task": 60, "mastery_threshold": 1.0, "mastery_window": 2}
    makers = sequences({**common, "success": 2}, {**common, "success": 50})
    ends: list[Any] = []
    for kind in (DummyVecEnv, SubprocVecEnv):
        env = kind(makers)
        spy, progress = Spy(), Progress()
        agent = tiny(NBSPSAC, env, interventions=[spy], identification_data="training", identification_steps=50, fused=False)
        agent.learn(2 * 150, callback=progress)
        env.close()
        masking, replay, _ = agent.all_interventions._all
        ends.append(
            {
                **parameters(agent),
                **masking.masks,
                "memory": th.tensor(replay.memory.observations),
                "progress": th.tensor(progress.seen),
                "ends": th.tensor([end["num_timesteps"] for end in spy.ends]),
            }
        )
    assert differing(*ends) == []
    assert len(ends[0]["ends"]) >= 2


def test_a_model_can_be_saved_when_its_processes_are_closed(tmp_path: Any) -> None:
    """As rl-zoo3 does; its progress is that of the end of learn()."""
    env = SubprocVecEnv(sequences({}, {}))
    agent = tiny(ContinualSAC, env)
    agent.learn(2 * 80)
    env.close()
    agent.save(tmp_path / "model")
    loaded = ContinualSAC.load(tmp_path / "model", env=DummyVecEnv(sequences({}, {})))
    loaded.learn(2, reset_num_timesteps=False)
    assert loaded.phase == Phase(1, "blue")
    assert [each["phase_steps"] for each in loaded.env.env_method("get_progress")] == [21, 21]
    never = tiny(ContinualSAC, env := SubprocVecEnv(sequences({})))
    env.close()
    never.save(tmp_path / "never")
