"""What will not act is said when learn() begins, once and with what to do; all that acts is not."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tagged_tasks import TaggedTask, tagged_sequence, tiny

from sb3_nbsp import (
    ANCLSAC,
    CBPPPO,
    CBPSAC,
    EWCSAC,
    NBSPSAC,
    NPCSAC,
    P3O,
    ClonExSAC,
    ContinualPPO,
    ContinualSAC,
    CoTASPSAC,
    CycleSAC,
    PackNetSAC,
)
from sb3_nbsp.interventions import CycleReset, InnerDistillation, Phase, RecoveryTraining

PHASES = "The environment is no task sequence"


def warnings_of(agent: Any, steps: int = 30, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        agent.learn(steps, **options)
    return [str(each.message) for each in caught if "stable_baselines3" not in each.filename]


def small_ppo(cls: type, **options: Any) -> Any:
    options = {"n_steps": 16, "batch_size": 8, "n_epochs": 2, "policy_kwargs": {"net_arch": [8]}, **options}
    return cls("MlpPolicy", TaggedTask(1.0), device="cpu", **options)


def test_nbsp_without_phases_says_so_once() -> None:
    agent = tiny(NBSPSAC, TaggedTask(1.0))
    (message,) = warnings_of(agent)
    assert message.startswith(PHASES) and "GradientMasking, ExperienceReplay of this NBSPSAC will not act" in message
    assert "TaskSequence" in message and "start_phase(task)" in message
    assert warnings_of(agent) == []


@pytest.mark.parametrize(
    "options",
    [
        {"clear_replay_buffer": False},
        {"phase_learning_starts": 0},
        {"reset_optimizers": True},
        {"reset_ent_coef": True},
        {"known_task_threshold": 0.5},
    ],
)
def test_options_of_phases_without_phases(options: dict[str, Any]) -> None:
    (message,) = warnings_of(tiny(ContinualSAC, TaggedTask(1.0), **options))
    assert message.startswith(PHASES) and f"and {next(iter(options))} of this ContinualSAC will not act" in message


def test_agents_that_need_no_phases_or_have_them_say_nothing() -> None:
    assert warnings_of(tiny(ContinualSAC, TaggedTask(1.0))) == []
    assert warnings_of(tiny(NBSPSAC, TaggedTask(1.0), masking=False, replay=False)) == []
    assert warnings_of(tiny(NBSPSAC, tagged_sequence(), reset_ent_coef=True, known_task_threshold=0.5)) == []
    assert warnings_of(small_ppo(ContinualPPO)) == []


def test_a_fixed_entropy_coefficient_cannot_be_reset() -> None:
    (message,) = warnings_of(tiny(ContinualSAC, tagged_sequence(), ent_coef=0.2, reset_ent_coef=True))
    assert message.startswith("reset_ent_coef has nothing to reset: ent_coef=0.2 is fixed")


def test_a_model_without_the_file_of_its_memory_says_so_once(tmp_path: Path) -> None:
    agent = tiny(NBSPSAC, tagged_sequence(steps_per_task=20), identification_steps=20, phase_learning_starts=10)
    assert warnings_of(agent, 25) == [] and agent.n_finished_phases == 1
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    without = NBSPSAC.load(tmp_path / "model", env=tagged_sequence(steps_per_task=20))
    (message,) = warnings_of(without, 1, reset_num_timesteps=False)
    assert message.startswith("ExperienceReplay has no memory of the phases of this NBSPSAC that are over (1)")
    assert "load_replay_buffer(path)" in message
    assert warnings_of(without, 1, reset_num_timesteps=False) == []
    complete = NBSPSAC.load(tmp_path / "model", env=tagged_sequence(steps_per_task=20))
    complete.load_replay_buffer(tmp_path / "buffer")
    assert warnings_of(complete, 1, reset_num_timesteps=False) == []
    masks_only = NBSPSAC.load(tmp_path / "model", env=tagged_sequence(steps_per_task=20), replay=False)
    assert warnings_of(masks_only, 1, reset_num_timesteps=False) == []


@pytest.mark.parametrize(
    ("cls", "off", "on"),
    [
        (EWCSAC, {"ewc_coef": 0.0}, {"ewc_coef": 1.0}),
        (EWCSAC, {}, {"ewc_critic_coef": 1.0}),
        (ANCLSAC, {"ewc_coef": 0.0, "ancl_coef": 0.0}, {"ewc_coef": 1.0}),
        (ClonExSAC, {}, {"best_return_exploration": True}),
        (NBSPSAC, {"masking": False, "identification_steps": 20}, {"masking": True}),
    ],
)
def test_what_was_off_at_the_end_of_a_phase_knows_nothing_of_it(cls: type, off: Any, on: Any, tmp_path: Path) -> None:
    agent = tiny(cls, tagged_sequence(), **off)
    assert warnings_of(agent, 70) == []
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    for options in ({}, on):
        loaded = cls.load(tmp_path / "model", env=tagged_sequence(), **options)
        loaded.load_replay_buffer(tmp_path / "buffer")
        messages = warnings_of(loaded, 1, reset_num_timesteps=False)
        assert bool(messages) == bool(options)
    (message,) = messages
    name = "GradientMasking" if cls is NBSPSAC else cls.__name__.removesuffix("SAC")
    assert message.startswith(f"{name} knows nothing of the phases of this {cls.__name__} that are over (1)")
    assert warnings_of(loaded, 60, reset_num_timesteps=False) == []
    loaded.save(tmp_path / "model")
    loaded.save_replay_buffer(tmp_path / "buffer")
    loaded = cls.load(tmp_path / "model", env=tagged_sequence())
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert warnings_of(loaded, 1, reset_num_timesteps=False) == []


@pytest.mark.parametrize("cls", [PackNetSAC, CoTASPSAC])
def test_a_phase_that_another_agent_has_finished_has_no_part(cls: Any, tmp_path: Path) -> None:
    agent = tiny(ContinualSAC, tagged_sequence()).learn(240)
    assert agent.n_finished_phases == 4
    agent.save(tmp_path / "model")
    options = {"retrain_steps" if cls is PackNetSAC else "distill_steps": 2}
    loaded = cls.load(tmp_path / "model", env=tagged_sequence(), **options)
    (message,) = warnings_of(loaded, 1, reset_num_timesteps=False)
    assert message.startswith(f"{type(loaded.all_interventions.find(cls.parts[0])).__name__} knows nothing of the phases")
    assert loaded.all_interventions.find(cls.parts[0]).task_numbers == {"red": 0}
    assert warnings_of(loaded, 70, reset_num_timesteps=False) == []
    assert loaded.all_interventions.find(cls.parts[0]).knows_a_task


def test_a_call_of_learn_that_ends_with_the_warm_up_says_so_once() -> None:
    agent = tiny(ContinualSAC, TaggedTask(1.0))
    (message,) = warnings_of(agent, 20)
    assert agent._n_updates == 0
    assert message.startswith("ContinualSAC learns nothing in this call of learn(), which ends at step 20")
    assert "learning_starts=20" in message
    assert warnings_of(agent, 20) == []
    assert warnings_of(agent, 1, reset_num_timesteps=False) == [] and agent._n_updates == 1
    enough = tiny(ContinualSAC, TaggedTask(1.0))
    assert warnings_of(enough, 21) == [] and enough._n_updates == 1


@pytest.mark.parametrize("kind", [InnerDistillation, RecoveryTraining])
def test_what_waits_for_renewals_needs_something_that_renews(kind: type) -> None:
    (message,) = warnings_of(small_ppo(ContinualPPO, interventions=[kind()]))
    assert message.startswith(f"{kind.__name__} acts when neurons are renewed, and no intervention renews any")
    assert warnings_of(small_ppo(ContinualPPO, interventions=[kind(), CycleReset(16)])) == []


def test_a_budget_below_the_reset_frequency() -> None:
    (message,) = warnings_of(small_ppo(P3O, reset_frequency=65), 49)
    assert message.startswith("CycleReset renews no neuron in this call of learn(), which ends at step 64: the next reset")
    assert "due at step 65" in message and "reset_frequency=65" in message
    reached = small_ppo(P3O, reset_frequency=64, reset_rate=0.5)
    assert warnings_of(reached, 49) == []  # PPO fills its last rollout
    assert [int(counts.sum()) for counts in reached.all_interventions.find(CycleReset).reset_counts.values()] == [4]
    sac = tiny(CycleSAC, TaggedTask(1.0), reset_frequency=31)
    assert len(warnings_of(sac, 30)) == 1
    # The next call reaches it
    assert warnings_of(sac, 30, reset_num_timesteps=False) == []


def test_a_budget_below_the_age_of_replacement() -> None:
    # 4 updates of 2 epochs of 2 minibatches
    (message,) = warnings_of(small_ppo(CBPPPO, maturity_threshold=16), 64)
    assert "which makes 16 gradient steps" in message and "maturity_threshold=16" in message
    assert warnings_of(small_ppo(CBPPPO, maturity_threshold=15), 64) == []
    assert len(warnings_of(tiny(CBPSAC, TaggedTask(1.0)), 30)) == 1
    assert warnings_of(tiny(CBPSAC, TaggedTask(1.0), maturity_threshold=29), 30) == []


def test_phases_of_tasks_that_are_changed_by_hand() -> None:
    agent = tiny(NBSPSAC, TaggedTask(1.0))
    agent.start_phase("red")
    assert warnings_of(agent, 40) == [] and agent.phase == Phase(0, "red")
    agent.set_env(TaggedTask(2.0))
    agent.start_phase("blue")
    assert agent.phase == Phase(1, "blue") and agent.replay_buffer.size() == 0
    masking, replay = agent.all_interventions
    assert set(masking.skill_neurons) == {"red"} and replay.memory.tasks == {"red": 40}
    agent.learn(30, reset_num_timesteps=False)
    assert (agent.replay_buffer.observations[:30, 0, 0] == 2.0).all() and agent.phase_steps == 30
    with pytest.raises(ValueError, match="this environment is a task sequence"):
        tiny(NBSPSAC, tagged_sequence()).start_phase("red")


@pytest.mark.parametrize("space", [spaces.Discrete(2, start=1), spaces.MultiDiscrete([2, 2], start=[0, 1])], ids=str)
def test_actions_that_do_not_begin_at_0(space: Any) -> None:
    class Shifted(TaggedTask):
        action_space = space

        def step(self, action: Any) -> Any:
            return super().step(np.zeros(2, np.float32))

    agent = ContinualPPO("MlpPolicy", Shifted(1.0), n_steps=16, batch_size=8, device="cpu")
    (message,) = warnings_of(agent)
    assert message.startswith(f"The actions of {space} begin at {space.start}, but SB3's agents send actions that begin at 0")
    assert warnings_of(agent) == []


@pytest.mark.parametrize(
    ("sequence", "options", "n_envs", "says"),
    [
        ({"steps_per_task": 20}, {}, 1, "learning_starts=20 steps without updates, and ends after 20 "),
        ({"steps_per_task": 30}, {}, 1, None),
        ({"steps_per_task": 15}, {"phase_learning_starts": 40}, 2, "phase_learning_starts=40 steps .* ends after 30 "),
        ({"steps_per_task": 15}, {}, 2, None),
        ({"steps_per_task": 30}, {"learning_starts": 0, "phase_learning_starts": 30}, 1, "phase_learning_starts=30"),
        ({"steps_per_task": 30}, {"learning_starts": 35, "phase_learning_starts": 0}, 1, None),
        ({"tasks": ["red"], "cycles": 1, "steps_per_task": 20}, {}, 1, None),
        ({"cycles": 1, "steps_per_task": 10, "last_phase_steps": 50}, {}, 1, None),
    ],
)
def test_a_warm_up_that_is_longer_than_a_phase(sequence: Any, options: Any, n_envs: int, says: str | None) -> None:
    last, sequence = sequence.get("last_phase_steps"), {**sequence}
    sequence.pop("last_phase_steps", None)

    def make() -> Any:
        env = tagged_sequence(**sequence)
        env.last_phase_steps = last
        return env

    messages = warnings_of(tiny(ContinualSAC, DummyVecEnv([make] * n_envs), **options), 45)
    assert len(messages) == (says is not None)
    if says is not None:
        assert re.search(f"learns nothing from the second phase on: each begins with {says}", messages[0])


def test_an_initial_entropy_coefficient_that_is_given_at_load_acts_at_resets_only(tmp_path: Path) -> None:
    tiny(ContinualSAC, tagged_sequence(), reset_ent_coef=True).learn(30).save(tmp_path / "model")
    with pytest.warns(UserWarning, match=r"ent_coef='auto_0.5': the learned entropy coefficient goes on from the saved one"):
        ContinualSAC.load(tmp_path / "model", ent_coef="auto_0.5", reset_ent_coef=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent = ContinualSAC.load(tmp_path / "model", env=tagged_sequence(), ent_coef="auto_0.5")
    agent.learn(31, reset_num_timesteps=False)
    assert agent.log_ent_coef is not None and agent.phase.index == 1
    assert agent.log_ent_coef.exp().item() == pytest.approx(0.5, abs=0.03)


def test_npc_needs_phases_to_find_beta_and_for_its_clock_of_phases() -> None:
    assert warnings_of(tiny(NPCSAC, TaggedTask(1.0), npc_beta=20.0)) == []
    for options in ({}, {"npc_beta": 2.0, "npc_clock": "phases"}):
        (message,) = warnings_of(tiny(NPCSAC, TaggedTask(1.0), **options))
        assert message.startswith(PHASES) and "NPC of this NPCSAC will not act" in message


def test_options_of_a_method_are_not_taken_for_the_users() -> None:
    options: dict[str, Any] = {"ent_coef": 0.1, "distill_steps": 1, "policy_kwargs": {"net_arch": [32, 32]}}
    assert warnings_of(tiny(CoTASPSAC, tagged_sequence(), **options)) == []


@pytest.mark.parametrize("cls", [PackNetSAC, CoTASPSAC])
def test_what_is_kept_for_a_task_reads_observations_that_may_not_move(cls: type) -> None:
    env = VecNormalize(DummyVecEnv([tagged_sequence]))
    (message,) = warnings_of(tiny(cls, env, policy_kwargs={"net_arch": [32, 32]}))
    part = cls.__name__.removesuffix("SAC")
    assert message.startswith(f"{part} holds parameters in place, but VecNormalize keeps changing the observations")
