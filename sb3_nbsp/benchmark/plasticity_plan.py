"""What a comparison of plasticity consists of: methods × environments × seeds."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym

from sb3_nbsp.benchmark.plan import Cell, StoredPlan
from sb3_nbsp.benchmark.run_settings import plain, run_options
from sb3_nbsp.messages import did_you_mean
from sb3_nbsp.tasks.registration import is_sequence
from sb3_nbsp.zoo.algos import ALGOS, PLAIN

METHODS = [*ALGOS, *PLAIN]


@dataclass(frozen=True)
class TaskCell(Cell):
    """
    One run of one method on one environment with one seed.

    :param env_id: the environment's id
    """

    env_id: str = ""

    @property
    def name(self) -> str:
        """How the run is called towards people."""
        return f"{self.env_id}, {super().name}"


@dataclass
class PlasticityPlan(StoredPlan):
    """
    A comparison of methods, each on the same environments.

    :param env_ids: ids of environments
    :param methods: the zoo's names of algorithms; their YAML files give the hyper-parameters
    :param seeds: seeds of every method on every environment
    :param n_timesteps: environment steps of a run
    :param hyperparams: in place of those of the YAML files, for the methods that have them
    :param n_eval_episodes: episodes of the evaluation at the end of a run
    :param save_freq: environment steps between two checkpoints of a run
    :raises ValueError: if a name is unknown, a number out of its range, or no method has one of the hyper-parameters
    """

    made_by: ClassVar[str] = "plasticity"
    grows: ClassVar[tuple[str, ...]] = ("env_ids", "methods", "seeds")

    env_ids: list[str]
    methods: list[str]
    seeds: list[int]
    n_timesteps: int
    hyperparams: dict[str, Any] = field(default_factory=dict)
    n_eval_episodes: int = 10
    save_freq: int = 50_000

    def __post_init__(self) -> None:
        self.env_ids, self.methods = list(dict.fromkeys(self.env_ids)), list(dict.fromkeys(self.methods))
        self.seeds, self.hyperparams = list(dict.fromkeys(self.seeds)), plain(self.hyperparams)
        for method in self.methods:
            if method not in METHODS:
                hint = did_you_mean(method, METHODS, n=3)
                raise ValueError(f"There is no method {method!r}{hint}\nMethods: {', '.join(METHODS)}")
        for env_id in self.env_ids:
            _check_environment(env_id)
        known = {name for method in self.methods for env_id in self.env_ids for name in run_options(method, env_id)}
        for name in self.hyperparams:
            if name not in known:
                none = f"None of the methods {', '.join(self.methods)}"
                raise ValueError(f"{none} has a hyper-parameter {name!r}{did_you_mean(name, known)}")
        if any(seed < 0 for seed in self.seeds):
            raise ValueError(f"seeds must not be negative: {self.seeds}")
        for name in ("n_timesteps", "n_eval_episodes", "save_freq"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    def cells(self, folder: str | os.PathLike[str]) -> list[Cell]:
        """All runs, seed by seed, so that all methods have results early: see :meth:`StoredPlan.cells`."""
        return [
            TaskCell(method, seed, Path(folder) / env_id.replace("/", "-") / method / f"seed_{seed}", env_id)
            for seed in self.seeds
            for env_id in self.env_ids
            for method in self.methods
        ]

    def settings_of(self, cell: Cell) -> dict[str, Any]:
        """See :meth:`StoredPlan.settings_of`."""
        assert isinstance(cell, TaskCell)
        known = run_options(cell.method, cell.env_id)
        own = {name: value for name, value in self.hyperparams.items() if name in known}
        return {
            "algo": cell.method,
            "env_id": cell.env_id,
            "seed": cell.seed,
            "folder": str(cell.folder),
            "env_kwargs": {},
            "hyperparams": {**own, "n_timesteps": self.n_timesteps},
            "n_eval_episodes": self.n_eval_episodes,
            "save_freq": self.save_freq,
        }

    def command(self, folder: str | os.PathLike[str] = "DIR") -> str:
        """
        :param folder: the comparison's folder
        :return: the command line that makes this comparison
        """
        words: list[Any] = ["python -m sb3_nbsp.benchmark plasticity --envs", *self.env_ids, "--methods", *self.methods]
        words += ["--seeds", *self.seeds, "--n-timesteps", self.n_timesteps]
        if self.hyperparams:
            words += ["--hyperparams", *(shlex.quote(f"{key}:{value!r}") for key, value in self.hyperparams.items())]
        return " ".join(map(str, [*words, "--out", folder]))


def _check_environment(env_id: str) -> None:
    try:
        gym.spec(env_id)
    except gym.error.Error as error:
        raise ValueError(f"There is no environment {env_id!r}: {error}") from error
    if is_sequence(env_id):
        raise ValueError(f"{env_id} is a task sequence: compare methods on it with the command run")
