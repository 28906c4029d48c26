"""What a comparison consists of: one dataclass is the command line of ``benchmark run`` and its ``benchmark.json``."""

from __future__ import annotations

import argparse
import ast
import os
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium as gym
from filelock import FileLock
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_nbsp.benchmark.folder import RunFolder
from sb3_nbsp.benchmark.methods import METHODS, find_methods
from sb3_nbsp.benchmark.settings import Settings, plain, run_options
from sb3_nbsp.checks import check_option
from sb3_nbsp.files import read_json_object, write_json
from sb3_nbsp.messages import did_you_mean
from sb3_nbsp.tasks.atari import import_ale
from sb3_nbsp.tasks.registration import game_sequences, is_sequence, sequences
from sb3_nbsp.zoo.algos import algorithm

FILE = "benchmark.json"
# A preset is a size: of the network, the episodes and the phases. Its sequences have ids of their own.
PRESETS = {"laptop": "MW-{}-laptop-v0", "paper": "MW-{}-v0"}
EVAL_POLICIES = ("deterministic", "stochastic")
# What may be added to a comparison whose runs have begun
GROWS = ("methods", "seeds")


def sequence_names(preset: str) -> list[str]:
    """Names of the sequences of a size, such as "WindowOpen-WindowClose"; ValueError if there is no such preset."""
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}; presets: {', '.join(PRESETS)}")
    return [name for name in dict.fromkeys(map(short_name, sequences())) if PRESETS[preset].format(name) in sequences()]


def other_sequences() -> list[str]:
    """Ids of the sequences that have one size only."""
    own = (name for name, spec in gym.registry.items() if str(spec.entry_point).startswith("sb3_nbsp."))
    return sorted(name for name in own if name not in sequences() and is_sequence(name))


def short_name(env_id: str) -> str:
    """Of a sequence of this package the name without size and version, of any other environment its id."""
    if env_id in game_sequences():
        return env_id.removesuffix("-v0")
    return env_id.removeprefix("MW-").removesuffix("-v0").removesuffix("-laptop") if env_id in sequences() else env_id


def find_env(name: str, preset: str) -> str:
    """The id of an environment that is given by it, or of a sequence by its name and size; ValueError if there is none."""
    names = sequence_names(preset)
    if name in names:
        return PRESETS[preset].format(name)
    try:
        gym.spec(name)
    except gym.error.Error as error:
        with suppress(ModuleNotFoundError):
            import_ale()  # which registers its games
        if name in gym.registry:
            return name
        hint = did_you_mean(name, [*names, *gym.registry])
        raise ValueError(
            f"There is no environment {name!r}, and no sequence of this name for the preset {preset!r}{hint}\n"
            f"Sequences: {', '.join([*names, *other_sequences()])}"
        ) from error
    return name


def key_value(text: str) -> tuple[str, Any]:
    """The two parts of "key:value", the value a Python literal or a bare word; ArgumentTypeError if there is no key."""
    key, colon, value = text.partition(":")
    if not key or not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key:value")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


@dataclass(frozen=True)
class Run:
    """
    One run of one method with one seed on one environment.

    :param path: the run's own folder
    :param title: what people read, without the seed
    :param first_phase: the folder of the first phase that it has in common with other methods; None if it has none
    """

    env_id: str
    method: str
    seed: int
    path: Path
    title: str
    first_phase: Path | None = None

    @property
    def name(self) -> str:
        """What people read."""
        return f"{self.title}, seed {self.seed}"

    @property
    def folder(self) -> RunFolder:
        """The files of the run."""
        return RunFolder(self.path)


@dataclass
class Comparison:
    """
    Methods × environments × seeds.

    :param envs: ids of environments, or names of task sequences
    :param methods: names of methods, or of groups of them
    :param seeds: seeds for every method
    :param preset: size of the sequences
    :param n_timesteps: steps of a run on an environment that is not a sequence; default: that of the YAML file
    :param env_kwargs: arguments of the environments
    :param hyperparams: replace those of the YAML files, for methods that have them; a method's own options take precedence
    :param n_eval_episodes: episodes per evaluation: for every task after each phase, or at the end of a run
    :param save_freq: steps between two checkpoints of a run; default: 5000, or 50000 on an environment that is not a sequence
    :param switch_steps: play two tasks once each, the second for this many steps with evaluations on both in between
    :param eval_freq: with --switch-steps: steps of the second task between two evaluations on both tasks
    :param n_eval_steps: on sequences: evaluate whole episodes for this many steps instead (100000 in the paper, on Atari)
    :param eval_policy: on sequences: the most likely actions, or drawn ones as in CleanRL's discrete SAC
    :raises ValueError: if a name is unknown, a number out of its range, an option not plain or known to none of the methods
    """

    envs: list[str]
    methods: list[str]
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    preset: str = field(default="laptop", metadata={"choices": list(PRESETS)})
    n_timesteps: int | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    hyperparams: dict[str, Any] = field(default_factory=dict)
    n_eval_episodes: int = 20
    save_freq: int | None = None
    switch_steps: int | None = None
    eval_freq: int = 10_000
    n_eval_steps: int | None = None
    eval_policy: str = field(default=EVAL_POLICIES[0], metadata={"choices": list(EVAL_POLICIES)})

    def __post_init__(self) -> None:
        self._check_kinds()
        self.envs, self.seeds = list(dict.fromkeys(self.envs)), list(dict.fromkeys(self.seeds))
        self.env_ids = dict(zip(self.envs, [find_env(name, self.preset) for name in self.envs], strict=True))
        self.methods = [method.name for method in find_methods(self.methods)]
        self.env_kwargs, self.hyperparams = plain(self.env_kwargs), plain(self.hyperparams)
        if any(seed < 0 for seed in self.seeds):
            raise ValueError(f"seeds must not be negative: {self.seeds}")
        check_option("eval_policy", self.eval_policy, EVAL_POLICIES)
        for name in ("n_eval_episodes", "n_eval_steps", "save_freq", "n_timesteps", "switch_steps", "eval_freq"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if "n_timesteps" in self.hyperparams or (self.n_timesteps and all(map(is_sequence, self.env_ids.values()))):
            raise ValueError(
                "n_timesteps: the steps of a sequence follow from steps_per_task and cycles of the environment (such as "
                "--env-kwargs steps_per_task:20000 cycles:1); those of any other environment are the option --n-timesteps"
            )
        for name in self.methods if any(map(is_sequence, self.env_ids.values())) else ():
            if not issubclass(algorithm(METHODS[name].algo), OffPolicyAlgorithm):
                raise ValueError(f"{name} is on-policy: its runs cannot be resumed in the midst of a task sequence")
        if self.switch_steps is not None:
            for name in self.env_kwargs.keys() & {"cycles", "last_phase_steps"}:
                raise ValueError(f"{name} of the environment follows from switch_steps: leave it out")
            for name, env_id in self.env_ids.items():
                if not is_sequence(env_id) or self.n_phases(env_id) != 2:
                    raise ValueError(f"switch_steps needs a sequence of two tasks, which {name} is not")

    def _check_kinds(self) -> None:
        """ValueError if a field is not of its kind, as in a file that somebody has edited."""
        for name, kind in (("envs", str), ("methods", str), ("seeds", int)):
            values = getattr(self, name)
            is_sequence_of = not isinstance(values, str) and isinstance(values, Sequence) and len(values) > 0
            if not is_sequence_of or not all(type(each) is kind for each in values):
                raise ValueError(f"{name} must be a list of {'words' if kind is str else 'whole numbers'}, not {values!r}")
        for name in ("env_kwargs", "hyperparams"):
            if not isinstance(getattr(self, name), dict):
                raise ValueError(f"{name} must be a dictionary, not {getattr(self, name)!r}")
        for name in ("n_eval_episodes", "n_eval_steps", "save_freq", "n_timesteps", "switch_steps", "eval_freq"):
            value = getattr(self, name)
            if type(value) is not int and (value is not None or name in ("n_eval_episodes", "eval_freq")):
                raise ValueError(f"{name} must be a whole number, not {value!r}")

    def check_hyperparams(self) -> None:
        """ValueError if no method has one of them. Not for what is only read: names of options may have changed since."""
        algos = [METHODS[method].algo for method in self.methods]
        known = {name for algo in algos for env_id in self.env_ids.values() for name in run_options(algo, env_id)}
        for name in self.hyperparams:
            if name not in known:
                of = self.methods[0] if len(self.methods) == 1 else f"None of the methods {', '.join(self.methods)}"
                raise ValueError(
                    f"{of} has {'no' if len(self.methods) == 1 else 'a'} hyperparameter {name!r}{did_you_mean(name, known)}"
                )

    def without_effect(self) -> list[str]:
        """For each option that is given and changes nothing, a sentence that says why."""
        found = []
        if self.switch_steps is None and self.eval_freq != Comparison.eval_freq:
            found.append("--eval-freq has no effect without --switch-steps")
        if self.switch_steps is not None and self.eval_freq > self.switch_steps:
            found.append(
                f"--eval-freq {self.eval_freq}: the second task has {self.switch_steps} steps and is evaluated at its end only"
            )
        if not any(map(is_sequence, self.env_ids.values())):
            given = {"--n-eval-steps": self.n_eval_steps, "--eval-policy": self.eval_policy}
            found += [
                f"{name} only has an effect on task sequences" for name in given if given[name] not in (None, EVAL_POLICIES[0])
            ]
        if self.preset != Comparison.preset and not set(self.envs).intersection(sequence_names(self.preset)):
            found.append("--preset only has an effect on Meta-World sequences that are given by name")
        return found

    def runs(self, folder: str | os.PathLike[str]) -> list[Run]:
        """
        All runs, seed by seed, so that all methods have results early. Inside the folder of the comparison theirs are
        ``<method>/seed_<n>``; with several environments, inside a folder for each of them.
        """
        found = []
        is_one = len(self.envs) == 1
        for seed, env_id, method in product(self.seeds, self.env_ids.values(), self.methods):
            inside = Path(folder) / env_id.replace("/", "-")
            # Version 0.1 had some folders of a single environment, too
            inside = Path(folder) if is_one and not inside.is_dir() else inside
            title = METHODS[method].title if is_one else f"{short_name(env_id)}, {METHODS[method].title}"
            found.append(Run(env_id, method, seed, inside / method / f"seed_{seed}", title))
        return found

    def settings(self, run: Run) -> Settings:
        """Settings of a run: the YAML file's hyperparameters, replaced by those of all methods, then by the method's own."""
        method = METHODS[run.method]
        known = run_options(method.algo, run.env_id)
        own = {name: value for name, value in self.hyperparams.items() if name in known}
        if self.n_timesteps is not None and not is_sequence(run.env_id):
            own["n_timesteps"] = self.n_timesteps
        save_freq = self.save_freq or (5_000 if is_sequence(run.env_id) else 50_000)
        others: dict[str, Any] = {name: getattr(self, name) for name in ("n_eval_episodes", "n_eval_steps", "eval_policy")}
        others |= {"save_freq": save_freq, "eval_freq": None if self.switch_steps is None else self.eval_freq}
        return Settings.resolve(method.algo, run.env_id, run.seed, self._all_env_kwargs(), {**own, **method.options}, **others)

    def _all_env_kwargs(self) -> dict[str, Any]:
        switch = {} if self.switch_steps is None else {"cycles": 1, "last_phase_steps": self.switch_steps}
        return {**self.env_kwargs, **switch}

    def sequence(self, env_id: str) -> dict[str, Any]:
        """The arguments that make a task sequence: ``tasks``, ``cycles`` and those that differ from their defaults."""
        arguments = {"cycles": 2, **gym.spec(env_id).kwargs, **self._all_env_kwargs()}
        return {"tasks": arguments.pop("env_ids", []), **arguments}

    def n_phases(self, env_id: str) -> int:
        """Number of phases of a run that is done on a task sequence."""
        arguments = self.sequence(env_id)
        return len(arguments["tasks"]) * int(arguments["cycles"])

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the comparison, beside methods and seeds of an earlier one there; ValueError if that has other settings."""
        path = Path(folder) / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / ".lock"):
            written = asdict(self)
            # As long as no run has got anywhere, and none is on its way, everything may change
            if path.exists() and _has_begun(path.parent):
                earlier = asdict(self.load(folder))
                written |= {name: list(dict.fromkeys([*earlier[name], *written[name]])) for name in GROWS}
                changed = [name for name in written if name not in GROWS and written[name] != earlier[name]]
                if changed:
                    lines = (f"  {name}: {earlier[name]!r} there, {written[name]!r} now" for name in changed)
                    begin = f"{path} is of a comparison with other settings. Choose another folder, or give the same settings:"
                    raise ValueError("\n".join([begin, *lines]))
            write_json(path, written)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Comparison:
        """Read what :meth:`save` wrote, also before version 0.2; ValueError if there is none in the folder."""
        path = Path(folder) / FILE
        if not path.exists():
            raise ValueError(
                f"{folder} holds no comparison: {FILE} is missing. Make one with: sb3-nbsp benchmark run --out {folder}"
            )
        content = read_json_object(path)
        content.pop("made_by", None)
        if not content.keys().isdisjoint(("env_ids", "sequence")):  # of version 0.1
            usual = 5_000 if "sequence" in content else 50_000
            content["envs"] = content.pop("env_ids", None) or [content.pop("sequence")]
            content["save_freq"] = None if content.get("save_freq") == usual else content.get("save_freq")
        try:
            return cls(**content)
        except TypeError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """An option for each field, with the text of its ``:param:`` above."""
        texts = dict(re.findall(r":param (\w+): (.*)", cls.__doc__ or ""))
        for each in fields(cls):
            default, of = _default(each), str(each.type)
            kind: dict[str, Any] = {"nargs": "+"} if of.startswith(("list", "dict")) else {}
            kind |= {"type": int} if "int" in of else {}
            kind |= {"type": key_value, "metavar": "KEY:VALUE"} if of.startswith("dict") else {}
            kind |= each.metadata  # its choices
            is_required = default is MISSING
            kind |= {"required": is_required, "default": None if is_required else default, "help": texts[each.name]}
            flags = [f"--{each.name.replace('_', '-')}", *(["--sequence"] if each.name == "envs" else [])]
            parser.add_argument(*flags, dest=each.name, **kind)

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> Comparison:
        """The comparison that the options of :meth:`add_arguments` describe."""
        given = {each.name: getattr(args, each.name) for each in fields(cls)}
        return cls(**{**given, **{name: dict(given[name]) for name in ("env_kwargs", "hyperparams")}})

    def command(self, folder: str | os.PathLike[str] = "DIR") -> str:
        """The command line that makes this comparison in a folder."""
        words: list[Any] = ["python -m sb3_nbsp.benchmark run"]
        for each in fields(self):
            if (value := getattr(self, each.name)) != _default(each):
                values = [f"{name}:{part!r}" for name, part in value.items()] if isinstance(value, dict) else value
                texts = values if isinstance(values, list) else [values]
                words += [f"--{each.name.replace('_', '-')}", *(shlex.quote(str(text)) for text in texts)]
        return " ".join(map(str, [*words, "--out", folder]))


def _has_begun(folder: Path) -> bool:
    """Whether a run of a comparison has got somewhere, or is being computed now."""
    if any(list(folder.rglob(name)) for name in ("checkpoint_*", "result.json")):
        return True
    return any(RunFolder(each.parent).is_busy() for each in folder.rglob("config.json"))


def _default(each: Field[Any]) -> Any:
    return each.default if each.default_factory is MISSING else each.default_factory()
