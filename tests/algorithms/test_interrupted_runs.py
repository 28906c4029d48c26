"""Ctrl-C within learn(), after which the agent is saved or learns on: nothing is lost that SB3's agents do not lose."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from phase_checks import sequences
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv
from tagged_tasks import differing, tagged_sequence, tiny

from sb3_nbsp import EWCSAC, NBSPSAC, ContinualPPO, ContinualSAC, CoTASPSAC, PackNetSAC
from sb3_nbsp.interventions import EWC, CoTASP, ExperienceReplay, GradientMasking, Intervention, PackNet, Phase, ewc
from sb3_nbsp.interventions.sparse_coding import TaskDictionary


class Ends(Intervention):
    """Notes the ends of phases that it is told of."""

    def __init__(self) -> None:
        self._ends: list[Phase] = []

    def on_phase_end(self, phase: Phase) -> None:
        self._ends.append(phase)


class Interrupted(Ends):
    """Its first end of a phase is cut off."""

    def on_phase_end(self, phase: Phase) -> None:
        super().on_phase_end(phase)
        if len(self._ends) == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("cls", [ContinualSAC, ContinualPPO])
def test_the_end_of_a_phase_that_was_interrupted_comes_with_the_next_call(cls: type) -> None:
    ends, interrupted = Ends(), Interrupted()
    agent = tiny(cls, tagged_sequence(cycles=1), interventions=[ends, interrupted])
    with pytest.raises(KeyboardInterrupt):
        agent.learn(10_000)
    assert (agent.phase, agent.n_finished_phases) == (Phase(0, "red"), 0)
    agent.learn(10_000, reset_num_timesteps=False)
    assert agent.n_finished_phases == 2
    assert ends._ends == [Phase(0, "red"), Phase(1, "blue")], "each end once"
    assert interrupted._ends == [Phase(0, "red"), Phase(0, "red"), Phase(1, "blue")]


def test_masks_and_memory_are_not_lost_with_an_interrupted_identification(tmp_path: Any, monkeypatch: Any) -> None:
    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    agent = tiny(NBSPSAC, tagged_sequence(), identification_steps=20)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("sb3_nbsp.interventions.gradient_masking.score_neurons", interrupt)
        agent.learn(10_000)
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    agent = NBSPSAC.load(tmp_path / "model", env=tagged_sequence())
    agent.load_replay_buffer(tmp_path / "buffer")
    agent.learn(1, reset_num_timesteps=False)
    assert agent.phase == Phase(1, "blue")
    assert set(agent.all_interventions.find(GradientMasking).skill_neurons) == {"red"}
    assert agent.all_interventions.find(ExperienceReplay).memory.tasks == {"red": 60}


def test_a_retraining_that_was_interrupted_is_made_after_loading(tmp_path: Any, monkeypatch: Any) -> None:
    retrained: list[int] = []

    def retrain(agent: Any, steps: int) -> None:
        retrained.append(steps)
        if len(retrained) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(PackNetSAC, "train_further", retrain)
    agent = tiny(PackNetSAC, tagged_sequence(cycles=1), retrain_steps=5)
    with pytest.raises(KeyboardInterrupt):
        agent.learn(10_000)
    owners = {name: each.clone() for name, each in agent.all_interventions.find(PackNet).owners.items()}
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    agent = PackNetSAC.load(tmp_path / "model", env=tagged_sequence(cycles=1))
    agent.load_replay_buffer(tmp_path / "buffer")
    agent.learn(1, reset_num_timesteps=False)
    assert (agent.phase, retrained) == (Phase(1, "blue"), [5, 5])
    handed_on = agent.all_interventions.find(PackNet).owners
    assert owners and all((handed_on[name] == each).all() for name, each in owners.items()), "weights are handed on once"


def tensors_in(state: Any, name: str = "") -> dict[str, th.Tensor]:
    """All tensors in nested dictionaries and lists, by their path."""
    if isinstance(state, th.Tensor):
        return {name: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    return {path: tensor for key, each in items for path, tensor in tensors_in(each, f"{name}.{key}").items()}


def cut_off(function: Callable[..., Any], call: int) -> Callable[..., Any]:
    """The function, whose call of this number is interrupted."""
    numbers = itertools.count(1)

    def called(*args: Any, **kwargs: Any) -> Any:
        if next(numbers) == call:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    return called


@pytest.mark.parametrize(
    ("cls", "kind", "module", "name"),
    [(EWCSAC, EWC, ewc, "fisher_of"), (CoTASPSAC, CoTASP, TaskDictionary, "learn")],
)
def test_what_a_network_has_learned_of_a_phase_is_not_learned_twice(
    cls: type, kind: type, module: Any, name: str, monkeypatch: Any
) -> None:
    options = (
        {"ewc_coef": 1.0, "ewc_critic_coef": 1.0, "accumulate": "sum"}
        if kind is EWC
        else {"distill_steps": 4, "policy_kwargs": {"net_arch": [32, 32]}}
    )
    straight = tiny(cls, tagged_sequence(), **options).learn(61)
    agent = tiny(cls, tagged_sequence(), **options)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module, name, cut_off(getattr(module, name), call=2))
        agent.learn(61)
    agent.learn(1, reset_num_timesteps=False)
    expected, found = (tensors_in(each.all_interventions.find(kind).state_dict()) for each in (straight, agent))
    assert len(expected) > 4 and differing(found, expected) == []


class CtrlC(BaseCallback):
    """At a step, what Ctrl-C does in a terminal, whose processes all get the signal: those of the environments end."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def _on_step(self) -> bool:
        if self.num_timesteps == self.step:
            for process in self.training_env.unwrapped.processes:  # type: ignore[attr-defined]
                process.terminate()
                process.join()
            raise KeyboardInterrupt
        return True


@pytest.mark.parametrize("cls", [ContinualSAC, ContinualPPO])
def test_a_model_whose_processes_were_interrupted_continues_in_its_phase(cls: type, tmp_path: Any) -> None:
    agent = tiny(cls, SubprocVecEnv(sequences({}, {}), start_method="fork"))
    with pytest.raises(KeyboardInterrupt):
        agent.learn(10_000, callback=CtrlC(2 * 85))
    agent.save(tmp_path / "model")
    loaded = cls.load(tmp_path / "model", env=DummyVecEnv(sequences({}, {})))
    loaded.set_env(loaded.get_env())
    loaded._setup_learn(2, reset_num_timesteps=False)
    assert loaded.phase == Phase(1, "blue")
    # The step at which it ended was not stored; PPO counts whole rollouts
    expected = 24 if cls is ContinualSAC else 20
    assert [each["phase_steps"] for each in loaded.env.env_method("get_progress")] == [expected, expected]


def test_an_answer_that_is_still_in_the_pipe_is_not_taken_for_another(tmp_path: Any) -> None:
    """A notebook interrupts its own process alone, while it waits for the environments' step."""
    env = SubprocVecEnv(sequences({}, {}), start_method="fork")
    agent = tiny(ContinualSAC, env)
    agent.learn(2 * 80)
    env.step_async(np.zeros((2, 2)))
    agent.save(tmp_path / "model")
    env.step_wait()
    env.close()
    loaded = ContinualSAC.load(tmp_path / "model", env=DummyVecEnv(sequences({}, {})))
    loaded.learn(2, reset_num_timesteps=False)
    assert [each["phase_steps"] for each in loaded.env.env_method("get_progress")] == [21, 21]
