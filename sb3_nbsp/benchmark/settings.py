"""What one run is made with, and how its environment and its agent are made of that."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import asdict, dataclass, fields
from pydoc import locate
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_nbsp.algorithms.options import constructor_parameters
from sb3_nbsp.algorithms.phases import PhasedAlgorithm
from sb3_nbsp.tasks.registration import is_sequence
from sb3_nbsp.zoo.algos import TABLE, algorithm, read_hyperparams, with_schedules
from sb3_nbsp.zoo.options import arguments_of, check_env_kwargs, check_names, plays_raw_frames

# What a run takes beside the arguments of the agent
BESIDE_THE_AGENT = {"n_timesteps", "normalize", "n_envs"}
# What the agent takes from the run
_OF_THE_RUN = {"env", "seed", "tensorboard_log", "_init_setup_model"}


@dataclass(frozen=True)
class Settings:
    """
    Settings of one run, plain values only: what ``config.json`` holds and what a process is started with.

    :param algo: the zoo's name of the algorithm
    :param env_id: id of a task sequence or of any other environment
    :param seed: seed of the agent and its environment
    :param env_kwargs: arguments of the environment
    :param hyperparams: of the agent: those of the YAML file and what takes their place
    :param n_eval_episodes: episodes of each evaluation
    :param save_freq: steps between two checkpoints
    :param eval_freq: steps of the last phase between two evaluations on every task; None for none within phases
    :param n_eval_steps: of whole episodes, in place of a number of episodes, on a sequence
    :param eval_policy: "deterministic" or "stochastic", on a sequence
    """

    algo: str
    env_id: str
    seed: int
    env_kwargs: dict[str, Any]
    hyperparams: dict[str, Any]
    n_eval_episodes: int = 20
    save_freq: int = 5_000
    eval_freq: int | None = None
    n_eval_steps: int | None = None
    eval_policy: str = "deterministic"

    @classmethod
    def resolve(
        cls, algo: str, env_id: str, seed: int, env_kwargs: Any = None, hyperparams: Any = None, **others: Any
    ) -> Settings:
        """
        Settings with the YAML file's hyperparameters, replaced by those that are given; ValueError if the algorithm or one of
        its hyperparameters does not exist, or a value is not plain.
        """
        given = hyperparams or {}
        if algo in TABLE:  # reading the YAML file names any other
            check_names(algo, given, run_options(algo, env_id), "hyperparameter")
        options = plain({**read_hyperparams(algo, env_id), **given})
        kwargs = options.get("policy_kwargs", {})
        if not isinstance(kwargs, dict):
            raise ValueError(f"policy_kwargs must be a dictionary such as {{'net_arch': [64]}}, not {kwargs!r}")
        return cls(algo, env_id, seed, plain(env_kwargs or {}), options, **others)

    @property
    def is_sequence(self) -> bool:
        """Whether the environment is a task sequence."""
        return is_sequence(self.env_id)

    def normalization(self) -> dict[str, Any] | None:
        """Arguments of ``VecNormalize``, with the agent's discount factor; None if nothing is normalized."""
        normalize = self.hyperparams.get("normalize", False)
        if not isinstance(normalize, (bool, dict)):
            raise ValueError(
                f"normalize must be True, False or a dictionary such as {{'norm_reward': False}}, not {normalize!r}"
            )
        given = normalize if isinstance(normalize, dict) else {}
        check_names("normalize", given, arguments_of(VecNormalize.__init__)[0] - {"venv"})
        gamma = {"gamma": self.hyperparams["gamma"]} if "gamma" in self.hyperparams else {}
        return None if normalize is False else {**gamma, **given}

    def arguments(self) -> dict[str, Any]:
        """The hyperparameters as an algorithm takes them: with schedules, tuples and classes for their plain forms."""
        given = {name: value for name, value in self.hyperparams.items() if name not in BESIDE_THE_AGENT}
        found = with_schedules(copy.deepcopy(given))  # SB3 may change it
        if isinstance(found.get("train_freq"), list):  # SB3 wants a tuple, which JSON does not know
            found["train_freq"] = tuple(found["train_freq"])
        for options in (found, found.get("policy_kwargs", {})):
            for name, value in options.items():
                if name.endswith(("_fn", "_class")) and isinstance(value, str):
                    options[name] = locate(value)
        return found

    def make_env(self) -> VecEnv:
        """The environment, normalized where the run asks for it."""
        env = make_vec_env(self.env_id, int(self.hyperparams.get("n_envs", 1)), self.seed, env_kwargs=self.env_kwargs)
        normalization = self.normalization()
        return env if normalization is None else VecNormalize(env, **normalization)

    def make_agent(self, env: VecEnv, **options: Any) -> BaseAlgorithm:
        """A new agent in an environment of :meth:`make_env`, with options in place of those of the settings."""
        return algorithm(self.algo)(env=env, **{**self.arguments(), "seed": self.seed, **options})

    def check(self) -> None:
        """ValueError if one of the options does not exist or its value is out of its range; warns of what will not act."""
        if plays_raw_frames(self.env_id, self.env_kwargs):
            like = "--envs AtariCycle-v0 --env-kwargs \"tasks:['Pong']\" cycles:1"
            raise ValueError(f"{self.env_id} is a game without preprocessing: compare on a sequence of one game, as {like}")
        check_env_kwargs(self.env_id, self.env_kwargs)
        try:
            env = self.make_env()
        except gym.error.Error as error:
            raise ValueError(f"{self.env_id} cannot be made with {self.env_kwargs}: {error}") from error
        try:
            agent = self.make_agent(env, device="cpu")
            if isinstance(agent, PhasedAlgorithm):  # a sequence ends by itself
                agent.warn_of_what_is_idle(sys.maxsize if self.is_sequence else int(self.hyperparams["n_timesteps"]))
        except (TypeError, AssertionError) as error:
            raise ValueError(f"{self.algo} on {self.env_id}: {error}\nIts hyperparameters: {self.hyperparams}") from error
        finally:
            env.close()

    def differences(self, earlier: dict[str, Any]) -> list[str]:
        """Names of the settings that are others in an earlier ``config.json``; what it does not name was the default."""
        defaults = {each.name: each.default for each in fields(self)}
        return [name for name, value in asdict(self).items() if earlier.get(name, defaults[name]) != value]


def run_options(algo: str, env_id: str) -> set[str]:
    """Names of the hyperparameters that a run of an algorithm on an environment can have."""
    alone = {"n_envs"} if is_sequence(env_id) else set()
    return (constructor_parameters(algorithm(algo)).keys() | BESIDE_THE_AGENT) - alone - _OF_THE_RUN


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Options as they come out of a JSON file: lists for tuples, names for classes; ValueError if a value is not plain."""

    def class_name(value: Any) -> str:
        if not isinstance(value, type):
            raise TypeError(f"{value!r} is a {type(value).__name__}")
        return f"{value.__module__}.{value.__qualname__}"

    try:
        found: dict[str, Any] = json.loads(json.dumps(values, default=class_name))
    except TypeError as error:
        raise ValueError(f"Options must be numbers, strings, lists or dictionaries: {error}") from error
    return found
