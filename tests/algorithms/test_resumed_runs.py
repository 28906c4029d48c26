"""A run that was saved and loaded ends as one that was not: its random numbers go on, too."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from clockwork import Clockwork, DiscreteClockwork
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from tagged_tasks import differing, parameters, tiny

from sb3_nbsp import NBSPSAC, P3O, ContinualDiscreteSAC, ContinualPPO, ContinualSAC
from sb3_nbsp.algorithms import methods
from sb3_nbsp.interventions import InnerDistillation, RandomReset, RecoveryTraining
from sb3_nbsp.random_states import random_states, restore_random_states
from sb3_nbsp.tasks import TaskSequence, load_checkpoint
from sb3_nbsp.tasks.checkpoint import save_checkpoint


def sequence(cls: type = ContinualSAC) -> TaskSequence:
    task = DiscreteClockwork if issubclass(cls, ContinualDiscreteSAC) else Clockwork
    makers = {"red": partial(task, 1.0), "blue": partial(task, 2.0)}
    return TaskSequence(makers, ["red", "blue"], cycles=4, steps_per_task=30, mastery_threshold=None)


RESET: dict[str, Any] = {"reset_frequency": 30, "reset_rate": 0.25}
DISTILL = {"max_distill_epochs": 2, "distill_states": 64}
CBP = {"replacement_rate": 0.02, "maturity_threshold": 5}
# What makes a method act that does not by itself within one hundred steps; all others are tested as they are
OF_METHODS: dict[str, dict[str, Any]] = {
    "NBSPSAC": {"identification_steps": 20, "identification_data": "auto", "memory_size": 60},
    "EWCSAC": {"ewc_critic_coef": 0.1, "accumulate": "separate"},
    "ClonExSAC": {"clone_critic_coef": 0.1, "clone_states": 20, "clone_batch_size": 8, "best_return_exploration": True},
    "NPCSAC": {"npc_beta": 150.0, "npc_delta": 0.9, "output_layers": True},
    "PackNetSAC": {"retrain_steps": 5},
    "ANCLSAC": {"ancl_coef": 10.0, "ancl_critic_coef": 0.1, "aux_fisher_interval": 15, "aux_fisher_states": 10},
    "CoTASPSAC": {"weight_steps": 4, "code_steps": 2, "distill_steps": 5, "policy_kwargs": {"net_arch": [16, 16]}},
    "CBPSAC": CBP,
    "CBPPPO": CBP,
    **dict.fromkeys(("CycleSAC", "CyclePPO", "ReDoSAC", "ReDoPPO"), RESET),
    "SBPSAC": {**RESET, **DISTILL},
    "P3O": {**RESET, **DISTILL},
}
AGENTS: dict[str, tuple[type, dict[str, Any]]] = {
    **{name: (getattr(methods, name), OF_METHODS.get(name.replace("Discrete", ""), {})) for name in methods.__all__},
    "ContinualDiscreteSAC": (ContinualDiscreteSAC, {"train_freq": 4, "target_update_interval": 24, "tau": 1.0}),
    "ContinualSAC": (ContinualSAC, {}),
    "ContinualSAC with gSDE": (ContinualSAC, {"use_sde": True, "use_sde_at_warmup": True, "reset_ent_coef": True}),
    "ContinualSAC in medium precision": (
        ContinualSAC,
        {"matmul_precision": "medium", "policy_kwargs": {"net_arch": [64, 64]}},
    ),
    "NBSPSAC without a seed": (NBSPSAC, {"seed": None, "memory_size": 60, "replay_interval": 2, "identification_steps": 20}),
    "ContinualPPO": (ContinualPPO, {}),
    "P3O in medium precision": (
        P3O,
        {**RESET, **DISTILL, "matmul_precision": "medium", "policy_kwargs": {"net_arch": [64, 64]}},
    ),
    "others": (ContinualPPO, {"interventions": "others", "fused": False}),
}


def make(name: str) -> Any:
    cls, options = copy.deepcopy(AGENTS[name])  # SB3 writes into policy_kwargs
    if options.get("interventions"):
        options = {
            **options,
            "interventions": [RandomReset(30, 0.2), RecoveryTraining(5.0, 1), InnerDistillation(0.4, 0.1, 2)],
        }
    if issubclass(cls, SAC):
        return tiny(cls, sequence(cls), **{"learning_starts": 10, "batch_size": 8, **options})
    small = {"n_steps": 20, "batch_size": 20, "n_epochs": 2, "policy_kwargs": {"net_arch": [8, 8]}, "seed": 0, "device": "cpu"}
    return cls("MlpPolicy", sequence(), **{**small, **options})


def _flat(moments: dict[str, Any]) -> Iterator[tuple[str, th.Tensor]]:
    for key, value in moments.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{inner}", each) for inner, each in _flat(value))
        else:
            yield key, th.as_tensor(value).clone()


def state_of(agent: Any) -> dict[str, th.Tensor]:
    """Parameters, the optimizers' moments and the next draws of every generator."""
    state = parameters(agent)
    for name, values in agent.get_parameters().items():
        if name.endswith("optimizer"):
            for index, moments in values["state"].items():
                state.update({f"{name}.{index}.{key}": value for key, value in _flat(moments)})
    draws = [random.random(), np.random.random(), th.rand(1).item(), agent.action_space.np_random.random()]
    return {**state, "draws": th.tensor(draws, dtype=th.float64)}


def seed_generators(agent: Any, seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    th.manual_seed(seed)
    agent.action_space.seed(seed)


def resumed(agent: Any, folder: Path, **options: Any) -> Any:
    agent.save(folder / "model")
    if isinstance(agent, SAC):
        agent.save_replay_buffer(folder / "buffer")
    seed_generators(agent, 7)
    loaded = type(agent).load(folder / "model", env=sequence(type(agent)), **options)
    if isinstance(agent, SAC):
        loaded.load_replay_buffer(folder / "buffer")
    return loaded


@pytest.mark.parametrize("name", AGENTS)
def test_two_hundred_steps_at_once_are_one_hundred_and_one_hundred_more_after_loading(tmp_path: Path, name: str) -> None:
    whole = make(name)
    # Without a seed, another one would begin otherwise
    halves = copy.deepcopy(whole) if "seed" in name else make(name)
    seed_generators(whole, 1)
    whole.learn(200)
    expected = state_of(whole)
    seed_generators(halves, 1)
    halves.learn(100)
    loaded = resumed(halves, tmp_path)
    loaded.learn(100, reset_num_timesteps=False)
    assert loaded.num_timesteps == 200
    if isinstance(loaded, SAC):
        assert loaded.phase == whole.phase and loaded.phase.index == 6
    assert differing(expected, state_of(loaded)) == []


@pytest.mark.parametrize("cls", [SAC, PPO])
def test_a_checkpoint_of_an_agent_of_sb3s_goes_on_with_its_random_numbers(tmp_path: Path, cls: Any) -> None:
    options = {"learning_starts": 10, "batch_size": 8} if cls is SAC else {"n_steps": 20, "batch_size": 20}
    small = {"policy_kwargs": {"net_arch": [8]}, "seed": 3, "device": "cpu", **options}
    whole, halves = (cls("MlpPolicy", sequence(), **small) for _ in range(2))
    seed_generators(whole, 1)
    whole.learn(200)
    expected = state_of(whole)
    seed_generators(halves, 1)
    halves.learn(100)
    checkpoint = save_checkpoint(halves, tmp_path)
    loaded = load_checkpoint(cls, checkpoint, sequence())
    loaded.learn(100, reset_num_timesteps=False)
    assert differing(expected, state_of(loaded)) == []
    given = [load_checkpoint(cls, checkpoint, sequence(), seed=5).seed for _ in range(2)] + draws()
    assert given == [load_checkpoint(cls, checkpoint, sequence(), seed=5).seed for _ in range(2)] + draws()


def draws() -> list[float]:
    return [random.random(), np.random.random(), th.rand(1).item()]


@pytest.mark.parametrize("name", ["ContinualSAC", "ContinualPPO"])
def test_to_act_and_to_begin_anew_a_loaded_agent_begins_with_its_seed_as_in_sb3(tmp_path: Path, name: str) -> None:
    agent = make(name)
    agent.learn(60)
    agent.save(tmp_path / "model")
    by_class = []
    for cls in (type(agent), SAC if isinstance(agent, SAC) else PPO):
        loaded = cls.load(tmp_path / "model", env=Clockwork())
        by_class.append([draws(), draws()])
        loaded.learn(0)
        by_class[-1].append(draws())
    assert by_class[0] == by_class[1]


def test_a_seed_given_after_saving_wins(tmp_path: Path) -> None:
    agent = make("ContinualPPO")
    agent.learn(40)
    agent.save(tmp_path / "model")

    def continued(given: int | None = None, set_to: int | None = None, resumes: bool = False) -> list[float]:
        loaded = ContinualPPO.load(tmp_path / "model", env=sequence(), **({} if given is None else {"seed": given}))
        loaded.set_random_seed(set_to)
        if resumes:
            loaded.resume_random_states(tmp_path / "model")
        loaded.learn(0, reset_num_timesteps=False)
        return draws()

    assert continued() == continued() != continued(set_to=5)
    # PyTorch's generator has made networks since load()
    assert continued(given=5)[:2] == continued(set_to=5)[:2]
    # As rl-zoo3 has to, which always gives a seed
    assert continued(given=5, resumes=True) == continued()


def test_saved_again_before_it_learns_it_still_continues(tmp_path: Path) -> None:
    agent = make("ContinualPPO")
    agent.learn(40)
    (tmp_path / "again").mkdir()
    once = resumed(agent, tmp_path)
    twice = resumed(once, tmp_path / "again")
    ends = []
    for each in (once, twice):
        each.learn(0, reset_num_timesteps=False)
        ends.append(draws())
    assert ends[0] == ends[1]


class Loading(BaseCallback):
    """Loads another model in the midst of training, as documented: with the generators' states kept."""

    def __init__(self, path: Path, keeps: bool) -> None:
        super().__init__()
        self.path, self.keeps = path, keeps

    def _on_step(self) -> bool:
        if self.num_timesteps == 30:
            states = random_states(self.model)
            type(self.model).load(self.path)
            if self.keeps:
                restore_random_states(self.model, states)
        return True


@pytest.mark.parametrize("name", ["ContinualSAC", "ContinualPPO"])
def test_another_model_can_be_loaded_in_the_midst_of_training(tmp_path: Path, name: str) -> None:
    make(name).save(tmp_path / "other")
    ends = []
    for callback in (None, Loading(tmp_path / "other", keeps=True), Loading(tmp_path / "other", keeps=False)):
        agent = make(name)
        seed_generators(agent, 1)
        ends.append(state_of(agent.learn(60, callback)))
    assert differing(ends[0], ends[1]) == []
    assert differing(ends[0], ends[2])  # load() seeds the process, as SB3's does
