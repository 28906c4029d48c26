"""What a run is made with: its settings, the versions and the machine."""

from __future__ import annotations

import copy
import difflib
import inspect
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from pydoc import locate
from typing import Any

from sb3_nbsp.benchmark.machine import machine, versions
from sb3_nbsp.files import atomic_write, read_json_object
from sb3_nbsp.zoo.algos import ALGOS, PLAIN, read_hyperparams

FILE = "config.json"
# What a YAML file says beside the arguments of the agent
BESIDE_THE_AGENT = {"n_timesteps", "normalize"}


@dataclass(frozen=True)
class RunSettings:
    """
    Settings of one run, plain values only.

    :param algo: the zoo's name of the algorithm
    :param env_id: id of a task sequence
    :param seed: seed of the agent and its environment
    :param env_kwargs: arguments of the environment
    :param hyperparams: of the agent: the YAML file's and what takes their place
    :param n_eval_episodes: episodes per task after each phase
    :param save_freq: steps between two checkpoints
    """

    algo: str
    env_id: str
    seed: int
    env_kwargs: dict[str, Any]
    hyperparams: dict[str, Any]
    n_eval_episodes: int
    save_freq: int

    @classmethod
    def resolve(
        cls,
        algo: str,
        env_id: str,
        seed: int,
        env_kwargs: dict[str, Any] | None,
        hyperparams: dict[str, Any] | None,
        n_eval_episodes: int,
        save_freq: int,
    ) -> RunSettings:
        """
        Settings as they are after the YAML file was read.

        :param algo: see :class:`RunSettings`
        :param env_id: see :class:`RunSettings`
        :param seed: see :class:`RunSettings`
        :param env_kwargs: None for none
        :param hyperparams: take the place of those of the YAML file
        :param n_eval_episodes: see :class:`RunSettings`
        :param save_freq: see :class:`RunSettings`
        :return: the settings
        :raises ValueError: if there is no such algorithm, it has no such hyper-parameter, or a value is not plain
        """
        _check_names(algo, hyperparams or {})
        options = plain({**read_hyperparams(algo, env_id), **(hyperparams or {})})
        if not isinstance(options.get("policy_kwargs", {}), dict):
            raise ValueError(
                f"policy_kwargs must be a dictionary such as {{'net_arch': [64]}}, not {options['policy_kwargs']!r}"
            )
        if isinstance(options.get("train_freq"), list):  # SB3 wants a tuple, which JSON does not know
            options["train_freq"] = tuple(options["train_freq"])
        return cls(algo, env_id, seed, plain(env_kwargs or {}), options, n_eval_episodes, save_freq)

    def arguments(self) -> dict[str, Any]:
        """
        The hyper-parameters as an algorithm takes them.

        :return: a copy, which SB3 may write into, with the classes whose names ``policy_kwargs`` holds
        """
        found = copy.deepcopy(self.hyperparams)
        kwargs = found.get("policy_kwargs", {})
        for name, value in kwargs.items():
            if name.endswith(("_fn", "_class")) and isinstance(value, str):
                kwargs[name] = locate(value)
        return found

    def differences(self, folder: Path) -> list[str]:
        """
        :param folder: a run's folder with a ``config.json``
        :return: names of the settings in which the run differs from these
        """
        earlier = read_json_object(folder / FILE)
        return [name for name, value in plain(asdict(self)).items() if earlier.get(name) != value]

    def write(self, folder: Path, is_new: bool) -> None:
        """
        Write the settings, the versions and the machine into a run's folder.

        :param folder: the run's folder
        :param is_new: the run begins anew; otherwise the settings must be those of its first start
        :raises ValueError: if they are not, or if they are not there
        """
        if not is_new:
            if not (folder / FILE).exists():
                raise ValueError(f"{folder} has lost its {FILE}: delete the folder to begin anew")
            if changed := self.differences(folder):
                raise ValueError(
                    f"{folder} holds a run with other settings ({', '.join(changed)}): delete it, or choose another folder"
                )
        content = {**asdict(self), "versions": versions(), "machine": machine()}
        atomic_write(folder / FILE, json.dumps(content, indent=2) + "\n")


def _check_names(algo: str, hyperparams: dict[str, Any]) -> None:
    cls = {**ALGOS, **PLAIN}.get(algo)
    if cls is None:
        return  # reading the YAML file says so
    # Subclasses hand on what they do not name themselves
    makers = [vars(each)["__init__"] for each in cls.__mro__ if "__init__" in vars(each)]
    names = {name for maker in makers for name in inspect.signature(maker).parameters}
    for name in hyperparams:
        if name not in names | BESIDE_THE_AGENT:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"{algo} has no hyper-parameter {name!r}{hint}")


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """
    :param values: options
    :return: the same, as they come out of a JSON file: lists for tuples, and the full names of classes
    :raises ValueError: if a value is not plain
    """
    try:
        found: dict[str, Any] = json.loads(json.dumps(values, default=_class_name))
    except TypeError as error:
        raise ValueError(f"Options must be numbers, strings, lists or dictionaries: {error}") from error
    return found


def _class_name(value: Any) -> str:
    if not isinstance(value, type):
        raise TypeError(f"{value!r} is a {type(value).__name__}")
    return f"{value.__module__}.{value.__qualname__}"
