"""What a run is made with: its settings, the versions and the machine."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from pydoc import locate
from typing import Any

from stable_baselines3.common.vec_env import VecNormalize

from sb3_nbsp.benchmark.machine import machine, versions
from sb3_nbsp.files import atomic_write, read_json_object
from sb3_nbsp.tasks.registration import is_sequence
from sb3_nbsp.zoo.algos import ALGOS, PLAIN, algorithm, read_hyperparams, with_schedules
from sb3_nbsp.zoo.options import agent_options, arguments_of, check_names

FILE = "config.json"
# What every run takes beside the arguments of the agent
BESIDE_THE_AGENT = {"n_timesteps", "normalize"}
NOT_THE_AGENTS = {*BESIDE_THE_AGENT, "n_envs"}


@dataclass(frozen=True)
class RunSettings:
    """
    Settings of one run, plain values only.

    :param algo: the zoo's name of the algorithm
    :param env_id: id of a task sequence
    :param seed: seed of the agent and its environment
    :param env_kwargs: arguments of the environment
    :param hyperparams: hyper-parameters of the agent: the YAML file's and what takes their place
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
        check_hyperparams(algo, env_id, hyperparams or {})
        options = plain({**read_hyperparams(algo, env_id), **(hyperparams or {})})
        if not isinstance(options.get("policy_kwargs", {}), dict):
            raise ValueError(
                f"policy_kwargs must be a dictionary such as {{'net_arch': [64]}}, not {options['policy_kwargs']!r}"
            )
        if isinstance(options.get("train_freq"), list):  # SB3 wants a tuple, which JSON does not know
            options["train_freq"] = tuple(options["train_freq"])
        return cls(algo, env_id, seed, plain(env_kwargs or {}), options, n_eval_episodes, save_freq)

    def normalization(self) -> dict[str, Any] | None:
        """
        :return: arguments of ``VecNormalize``, with the agent's discount factor; None if nothing is normalized
        :raises ValueError: if ``normalize`` is neither True nor False nor a dictionary
        """
        normalize = self.hyperparams.get("normalize", False)
        if not isinstance(normalize, (bool, dict)):
            raise ValueError(
                f"normalize must be True, False or a dictionary such as {{'norm_reward': False}}, not {normalize!r}"
            )
        if isinstance(normalize, dict):
            check_names("normalize", normalize, arguments_of(VecNormalize.__init__)[0] - {"venv"})
        gamma = {"gamma": self.hyperparams["gamma"]} if "gamma" in self.hyperparams else {}
        return None if normalize is False else {**gamma, **(normalize if isinstance(normalize, dict) else {})}

    def arguments(self) -> dict[str, Any]:
        """
        The hyper-parameters as an algorithm takes them.

        :return: a copy, which SB3 may write into, with schedules and with the classes whose names ``policy_kwargs`` holds
        """
        found = {name: copy.deepcopy(value) for name, value in self.hyperparams.items() if name not in NOT_THE_AGENTS}
        found = with_schedules(found)
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


def run_options(algo: str, env_id: str) -> set[str]:
    """
    :param algo: the zoo's name of an algorithm
    :param env_id: a registered environment id
    :return: names of the hyper-parameters that a run can have
    """
    parallel = set() if is_sequence(env_id) else {"n_envs"}
    return agent_options(algorithm(algo)) | BESIDE_THE_AGENT | parallel


def check_hyperparams(algo: str, env_id: str, names: Iterable[str]) -> None:
    """
    :param algo: the zoo's name of an algorithm
    :param env_id: a registered environment id
    :param names: names of hyper-parameters
    :raises ValueError: if a run cannot have one of them
    """
    if algo in {**ALGOS, **PLAIN}:  # of another one, reading its YAML file says so
        check_names(algo, names, run_options(algo, env_id), "hyper-parameter")


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
