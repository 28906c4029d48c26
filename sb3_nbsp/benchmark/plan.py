"""What a comparison consists of: methods × a task sequence × seeds, and where each of its runs is kept."""

from __future__ import annotations

import json
import os
import shlex
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from filelock import FileLock

from sb3_nbsp.benchmark.methods import METHODS, Method, find_methods
from sb3_nbsp.benchmark.run_settings import RunSettings, plain
from sb3_nbsp.files import atomic_write, read_json_object
from sb3_nbsp.messages import did_you_mean
from sb3_nbsp.tasks.registration import sequences

AnyPlan = TypeVar("AnyPlan", bound="StoredPlan")

FILE = "benchmark.json"
# A preset is a size: of the network, the episodes and the phases. Its sequences have ids of their own.
PRESETS = {"laptop": "MW-{}-laptop-v0", "paper": "MW-{}-v0"}


def sequence_names(preset: str) -> list[str]:
    """
    :param preset: "laptop" or "paper"
    :return: names of the sequences that there are in this size
    :raises ValueError: if there is no such preset
    """
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}; presets: {', '.join(PRESETS)}")
    ids = sequences()
    names = dict.fromkeys(env_id.removeprefix("MW-").removesuffix("-v0").removesuffix("-laptop") for env_id in ids)
    return [name for name in names if PRESETS[preset].format(name) in ids]


def find_sequence(name: str, preset: str) -> str:
    """
    :param name: name of a sequence, such as "WindowOpen-WindowClose"
    :param preset: "laptop" or "paper"
    :return: the id of its environment
    :raises ValueError: if there is no such sequence, or not in this size
    """
    names = sequence_names(preset)
    if name not in names:
        hint = did_you_mean(name, names)
        raise ValueError(f"There is no sequence {name!r} for the preset {preset!r}{hint}\nSequences: {', '.join(names)}")
    return PRESETS[preset].format(name)


@dataclass(frozen=True)
class Cell:
    """
    One run of one method with one seed.

    :param method: the method's name
    :param seed: seed of the agent and its environment
    :param folder: the run's own folder
    """

    method: str
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """How the run is called towards people."""
        return f"{self.method}, seed {self.seed}"


class StoredPlan(ABC):
    """What a comparison consists of, as it is kept in the comparison's folder. Subclasses are dataclasses of plain values."""

    methods: list[str]
    seeds: list[int]
    # The command that makes such a comparison
    made_by: ClassVar[str]
    # What may be added to an earlier plan in the same folder
    grows: ClassVar[tuple[str, ...]] = ("methods", "seeds")

    @abstractmethod
    def cells(self, folder: str | os.PathLike[str]) -> list[Cell]:
        """
        All runs, in the order in which they are computed.

        :param folder: the comparison's folder
        :return: the runs
        """

    @abstractmethod
    def settings_of(self, cell: Cell) -> dict[str, Any]:
        """
        :param cell: one of the runs
        :return: the arguments of :func:`~sb3_nbsp.benchmark.cell.run_cell`
        """

    def resolved(self, cell: Cell) -> RunSettings:
        """
        :param cell: one of the runs
        :return: its settings, with the hyper-parameters of the YAML file
        """
        return RunSettings.resolve(**{name: value for name, value in self.settings_of(cell).items() if name != "folder"})

    def save(self, folder: str | os.PathLike[str]) -> None:
        """
        Write the plan into its folder. Methods and seeds that an earlier plan has there stay in it.

        :param folder: the comparison's folder
        :raises ValueError: if the folder holds a comparison with other settings
        """
        path = Path(folder) / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / ".lock"):
            self._save(path)

    def _save(self, path: Path) -> None:
        written = {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]
        # As long as no run has got anywhere, everything may change
        if path.exists() and any(list(path.parent.rglob(name)) for name in ("checkpoint_*", "result.json")):
            earlier = vars(type(self).load(path.parent))
            for name in self.grows:
                written[name] = list(dict.fromkeys([*earlier[name], *written[name]]))
            changed = [name for name in written if name not in self.grows and written[name] != earlier[name]]
            if changed:
                was = {name: earlier[name] for name in changed}
                now = {name: written[name] for name in changed}
                raise ValueError(f"{path} is of a comparison with other settings: {was}, not {now}. Choose another folder")
        atomic_write(path, json.dumps({"made_by": self.made_by, **written}, indent=2) + "\n")

    @classmethod
    def load(cls: type[AnyPlan], folder: str | os.PathLike[str]) -> AnyPlan:
        """
        Read what :meth:`save` wrote.

        :param folder: the comparison's folder
        :return: the plan
        :raises ValueError: if there is none
        """
        path = Path(folder) / FILE
        if not path.exists():
            raise ValueError(f"{folder} holds no comparison: {FILE} is missing. Make one with: benchmark run --out {folder}")
        content = read_json_object(path)
        made_by = content.pop("made_by", Plan.made_by)
        if made_by != cls.made_by:
            raise ValueError(f"{folder} is a comparison of another kind, which `benchmark {made_by}` has made")
        try:
            return cls(**content)
        except TypeError as error:
            raise ValueError(f"{path} is damaged: {error}") from error


@dataclass
class Plan(StoredPlan):
    """
    A comparison on a task sequence.

    :param sequence: name of the task sequence
    :param preset: its size
    :param methods: names of the methods
    :param seeds: seeds of every method
    :param env_kwargs: arguments of the environment, beyond what its id says
    :param hyperparams: hyper-parameters of every method, in place of those of its YAML file; a method's own options go first
    :param n_eval_episodes: episodes per task after each phase
    :param save_freq: environment steps between two checkpoints of a run
    :raises ValueError: if a name is unknown, a number out of its range or an option not plain
    """

    made_by: ClassVar[str] = "run"

    sequence: str
    preset: str
    methods: list[str]
    seeds: list[int]
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    hyperparams: dict[str, Any] = field(default_factory=dict)
    n_eval_episodes: int = 20
    save_freq: int = 5_000

    def __post_init__(self) -> None:
        self.env_id = find_sequence(self.sequence, self.preset)
        self.methods = [method.name for method in find_methods(self.methods)]
        self.seeds = list(dict.fromkeys(self.seeds))
        self.env_kwargs, self.hyperparams = plain(self.env_kwargs), plain(self.hyperparams)
        if "n_timesteps" in self.hyperparams:
            raise ValueError("n_timesteps follows from the sequence: set steps_per_task or cycles of the environment instead")
        if any(seed < 0 for seed in self.seeds):
            raise ValueError(f"seeds must not be negative: {self.seeds}")
        for name in ("n_eval_episodes", "save_freq"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def n_phases(self) -> int:
        """Number of phases of a run that is done."""
        arguments = {"cycles": 2, **sequences()[self.env_id], **self.env_kwargs}
        return len(arguments["tasks"]) * int(arguments["cycles"])

    def cells(self, folder: str | os.PathLike[str]) -> list[Cell]:
        """All runs, seed by seed, so that all methods have results early: see :meth:`StoredPlan.cells`."""
        return [Cell(method, seed, Path(folder) / method / f"seed_{seed}") for seed in self.seeds for method in self.methods]

    def settings_of(self, cell: Cell) -> dict[str, Any]:
        """See :meth:`StoredPlan.settings_of`."""
        method: Method = METHODS[cell.method]
        return {
            "algo": method.algo,
            "env_id": self.env_id,
            "seed": cell.seed,
            "folder": str(cell.folder),
            "env_kwargs": self.env_kwargs,
            "hyperparams": {**self.hyperparams, **method.options},
            "n_eval_episodes": self.n_eval_episodes,
            "save_freq": self.save_freq,
        }

    def command(self, folder: str | os.PathLike[str] = "DIR") -> str:
        """
        :param folder: the comparison's folder
        :return: the command line that makes this comparison
        """
        words: list[Any] = ["python -m sb3_nbsp.benchmark run --sequence", self.sequence, "--methods", *self.methods]
        words += ["--seeds", *self.seeds, "--preset", self.preset]
        for option, values in (("--env-kwargs", self.env_kwargs), ("--hyperparams", self.hyperparams)):
            words += [option, *(shlex.quote(f"{key}:{value!r}") for key, value in values.items())] if values else []
        words += ["--n-eval-episodes", self.n_eval_episodes] if self.n_eval_episodes != Plan.n_eval_episodes else []
        words += ["--save-freq", self.save_freq] if self.save_freq != Plan.save_freq else []
        return " ".join(map(str, [*words, "--out", folder]))
