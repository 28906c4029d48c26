import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from scripted_tasks import ScriptedTask
from stable_baselines3.common.envs import SimpleMultiObsEnv

import sb3_nbsp  # noqa: F401  registers the sequences
from sb3_nbsp.tasks import TaskSequence
from sb3_nbsp.tasks.registration import LAPTOP, sequences

# NBSP, table 1, first column
TABLE_1 = {
    "MW-WindowOpen-WindowClose": "window-open → window-close",
    "MW-DrawerOpen-DrawerClose": "drawer-open → drawer-close",
    "MW-ButtonPressTopdown-WindowOpen": "button-press-topdown → window-open",
    "MW-WindowOpen-WindowClose-DrawerOpen-DrawerClose": "window-open → window-close → drawer-open → drawer-close",
    "MW-ButtonPressTopdown-WindowClose-DoorOpen-DrawerClose": "button-press-topdown → window-close → door-open → drawer-close",
}
# Wołczyk et al., Continual World, section 4
CW10 = (
    "hammer → push-wall → faucet-close → push-back → stick-pull → handle-press-side → push → shelf-place → "
    "window-close → peg-unplug-side"
)


def horizon(sequence: TaskSequence) -> int:
    return sequence._env().get_wrapper_attr("_max_episode_steps")


def test_all_ids_are_registered() -> None:
    pairs = {"MW-CoffeeButton-DrawerClose-laptop-v0", "MW-CoffeeButton-HandlePress-laptop-v0"}
    expected = {"MW-Cycle-v0", "GymCycle-v0"} | pairs
    for name in [*TABLE_1, "MW-CW10", "MW-CW20"]:
        expected |= {f"{name}-v0", f"{name}-laptop-v0"}
    assert expected == {*sequences(), "MW-Cycle-v0", "GymCycle-v0"}
    for env_id in expected:
        assert gym.spec(env_id).id == env_id


def test_gymnasium_finds_them_after_the_import_alone() -> None:
    """Nothing but the package's import registers them; Meta-World is not imported for it."""
    code = (
        "import gymnasium, sys, sb3_nbsp; gymnasium.spec('MW-CW10-v0'); "
        "print([name for name in ('metaworld', 'mujoco') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", TABLE_1)
def test_paper_cycles(name: str) -> None:
    pytest.importorskip("metaworld")
    env = gym.make(f"{name}-v0")
    sequence = env.unwrapped
    assert isinstance(sequence, TaskSequence)
    assert sequence.tasks == TABLE_1[name].split(" → ")
    assert sequence.task_names == sequence.tasks
    assert sequence.n_phases == 2 * len(sequence.tasks)
    # Table 6 and appendix C.3: up to a million steps, or a success rate of 0.9 over ten episodes
    assert (sequence.steps_per_task, sequence.mastery_threshold, sequence.mastery_window) == (1_000_000, 0.9, 10)
    assert horizon(sequence) == 500
    assert env.reset(seed=0)[0].shape == (39,)
    env.close()
    laptop = sequences()[f"{name}-laptop-v0"]
    assert laptop == {"tasks": sequence.tasks, **LAPTOP} and LAPTOP["horizon"] == 200 and LAPTOP["steps_per_task"] == 100_000


@pytest.mark.parametrize("n_episodes", [100, 250])
def test_a_laptop_phase_ends_when_its_task_is_mastered(n_episodes: int) -> None:
    """Success rises linearly from 0 to 1 over some episodes: how likely is it when the rule ends the phase?"""
    rng = np.random.default_rng(0)

    def at_the_stop(**rule: Any) -> float:
        def succeeds(episode: int, step: int) -> bool:
            return bool(rng.random() < episode / n_episodes)

        def stop() -> float:
            task = ScriptedTask(success=succeeds, horizon=1)
            env = TaskSequence({"a": lambda render_mode=None: task}, cycles=1, steps_per_task=10_000, **rule)
            while not env.sequence_over:
                env.reset()
                env.step(env.action_space.low)
            return min(task.episode / n_episodes, 1.0)

        return float(np.mean([stop() for _ in range(30)]))

    laptop = {name: value for name, value in LAPTOP.items() if name.startswith("mastery")}
    assert at_the_stop(**laptop) >= 0.95
    assert at_the_stop() < 0.85  # 9 of 10


@pytest.mark.parametrize(("env_id", "phases"), [("MW-CW10-v0", 10), ("MW-CW20-v0", 20), ("MW-CW20-laptop-v0", 20)])
def test_continual_world(env_id: str, phases: int) -> None:
    pytest.importorskip("metaworld")
    sequence = gym.make(env_id).unwrapped
    assert isinstance(sequence, TaskSequence)
    assert sequence.tasks == CW10.split(" → ")
    assert sequence.n_phases == phases
    assert sequence.mastery_threshold is None
    assert sequence.steps_per_task == (100_000 if "laptop" in env_id else 1_000_000)
    assert horizon(sequence) == 200
    sequence.close()


def test_every_task_of_every_sequence_exists() -> None:
    pytest.importorskip("metaworld")
    from metaworld import ALL_V3_ENVIRONMENTS

    for options in sequences().values():
        assert {f"{task}-v3" for task in options["tasks"]} <= set(ALL_V3_ENVIRONMENTS)


def test_gymnasium_cycle_by_id() -> None:
    env = gym.make("GymCycle-v0", env_ids=["Pendulum-v1"], cycles=3, steps_per_task=200)
    observation, info = env.reset(seed=0)
    assert observation in env.observation_space
    assert (info["task"], info["n_phases"]) == ("Pendulum-v1", 3)
    for _ in range(200):
        *_, info = env.step(env.action_space.sample())
    assert info["boundary"]
    assert env.reset()[1]["phase"] == 1


def test_gymnasium_cycle_of_an_environment_that_knows_nothing_of_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    """As registered environments of users often are; observations are a dictionary."""
    monkeypatch.setitem(gym.registry, "Grid-v0", gym.envs.registration.EnvSpec("Grid-v0", SimpleMultiObsEnv))
    env_ids = [("Grid-v0", {"random_start": False}), ("Grid-v0", {"random_start": True})]
    env = gym.make("GymCycle-v0", env_ids=env_ids, cycles=1, steps_per_task=10)
    env.action_space.seed(0)
    tasks = set()
    while not env.get_wrapper_attr("sequence_over"):
        observation, info = env.reset()
        assert observation in env.observation_space
        tasks.add(info["task"])
        while not (info.get("boundary") or info.get("done")):
            _, _, terminated, truncated, info = env.step(env.action_space.sample())
            info["done"] = terminated or truncated
    assert tasks == {"Grid-v0 (random_start=False)", "Grid-v0 (random_start=True)"}
