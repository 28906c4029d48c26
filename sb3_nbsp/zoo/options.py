"""Find a misspelt option of an agent or of an environment before anything starts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

from sb3_nbsp.algorithms.options import option_hint
from sb3_nbsp.extras import needs
from sb3_nbsp.messages import warn
from sb3_nbsp.tasks.registration import cycle_friction_ids, is_sequence
from sb3_nbsp.tasks.sequence import TaskSequence

with needs("zoo", "sb3_nbsp.zoo"):
    import yaml

# What a zoo's YAML file says beside the arguments of the agent
ZOO_OPTIONS = {
    "callback",
    "env_kwargs",
    "env_wrapper",
    "frame_stack",
    "monitor_kwargs",
    "n_envs",
    "n_timesteps",
    "noise_std",
    "noise_type",
    "normalize",
    "vec_env_wrapper",
}
# What gymnasium.make() takes itself
MAKE_OPTIONS = {"disable_env_checker", "max_episode_steps", "render_mode"}
# What the functions of this package's ids give to their task sequence themselves
OF_THE_SEQUENCE = {"task_makers", "check_spaces"}


def environment_options(env_id: str) -> set[str] | None:
    """
    :param env_id: a registered environment id
    :return: names of its arguments; None if they cannot be known, because it hands unknown ones on
    """
    try:
        makers = _makers(env_id)
    except (ImportError, AttributeError):  # what it needs is missing; making the environment says so
        return None
    names: set[str] = set()
    for maker in makers:
        own, hands_on = arguments_of(maker)
        names |= own
        if not hands_on:
            return (names | MAKE_OPTIONS) - OF_THE_SEQUENCE
    return None


def _makers(env_id: str) -> list[Callable[..., Any]]:
    """The functions that make an environment, of which each hands arguments that it does not know on to the next."""
    entry_point = gym.spec(env_id).entry_point
    maker: Any = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    makers = (
        [vars(each)["__init__"] for each in maker.__mro__[:-1] if "__init__" in vars(each)]
        if isinstance(maker, type)
        else [maker]
    )
    if is_sequence(env_id):
        makers.append(TaskSequence.__init__)
    if env_id in cycle_friction_ids():
        makers += _makers(cycle_friction_ids()[env_id])
    return makers


def arguments_of(maker: Callable[..., Any]) -> tuple[set[str], bool]:
    """
    :param maker: a function
    :return: names of its arguments, and whether it takes others, too
    """
    try:
        parameters = inspect.signature(maker).parameters.values()
    except (TypeError, ValueError):  # not written in Python
        return set(), True
    names = {each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    return names - {"self"}, any(each.kind is each.VAR_KEYWORD for each in parameters)


def check_names(of: str, given: Iterable[str], known: Collection[str], what: str = "option") -> None:
    """
    :param of: what the options are of
    :param given: names of the options
    :param known: those that there are
    :param what: what an option is called
    :raises ValueError: if one is unknown; the message suggests the closest
    """
    for name in given:
        if name not in known:
            raise ValueError(f"{of} has no {what} {name!r}{option_hint(name, known)}")


def read_sections(file: str) -> dict[str, Any]:
    """
    :param file: a YAML file with hyperparameters
    :return: its sections, by environment; none if it is no YAML file
    :raises ValueError: if it has other contents
    """
    if not file.endswith((".yml", ".yaml")):
        return {}
    sections = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    if not isinstance(sections, dict) or not all(isinstance(section, dict) for section in sections.values()):
        raise ValueError(
            f"{file} must have a section of hyperparameters for each environment, as the files in hyperparams/ do"
        )
    return sections


def check_values(hyperparams: Mapping[str, Any]) -> None:
    """
    Check what is not of the agent, which checks its own options.

    :param hyperparams: hyperparameters, as they are in a YAML file
    :raises ValueError: if a value is not of the kind that rl-zoo3 takes, or is an argument of the command
    """
    if "n_timesteps" not in hyperparams:
        raise ValueError("The hyperparameters have no n_timesteps")
    for name, value in hyperparams.items():
        if name in _OF_THE_COMMAND:
            raise ValueError(f"{name} is given by {_OF_THE_COMMAND[name]}, not among the hyperparameters")
        is_valid, expected = _KINDS.get(name, (None, ""))
        if is_valid is not None and not is_valid(value):
            raise ValueError(f"{name} must be {expected}, not {value!r}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 1 and value == int(value)


def _is_dictionary(value: Any) -> bool:
    return isinstance(value, dict)


def _is_dictionary_or_code(value: Any) -> bool:
    """Whether a value is a dictionary, also as Python code, which rl-zoo3 evaluates."""
    return isinstance(value, dict) or (isinstance(value, str) and value.strip().startswith(("dict(", "{")))


def _names_classes(value: Any) -> bool:
    names = [
        name
        for each in (value if isinstance(value, list) else [value])
        for name in (each if isinstance(each, dict) else [each])
    ]
    return value is None or all(isinstance(name, type) or (isinstance(name, str) and "." in name) for name in names)


_DICTIONARY = (_is_dictionary_or_code, "a dictionary")
_CLASSES = (
    _names_classes,
    "the full name of a class, such as 'gymnasium.wrappers.FlattenObservation', or a list of such names",
)
# Arguments of an agent that rl-zoo3 takes from those of the command
_OF_THE_COMMAND = {
    "device": "--device",
    "env": "--env",
    "seed": "--seed",
    "tensorboard_log": "--tensorboard-log",
    "verbose": "--verbose",
}
# By name of an option, whether a value is of its kind, and what that is
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "callback": _CLASSES,
    "env_kwargs": (_is_dictionary, "a dictionary"),
    "env_wrapper": _CLASSES,
    "frame_stack": (_is_count, "a whole number of 1 or more"),
    "monitor_kwargs": _DICTIONARY,
    "n_envs": (lambda value: isinstance(value, int) and _is_count(value), "a whole number of 1 or more"),
    "n_timesteps": (_is_count, "a whole number of 1 or more"),
    "normalize": (lambda value: value in (True, False, None) or _is_dictionary_or_code(value), "True, False or a dictionary"),
    "policy_kwargs": _DICTIONARY,
    "replay_buffer_kwargs": _DICTIONARY,
    "vec_env_wrapper": _CLASSES,
}


def check_env_kwargs(env_id: str, env_kwargs: Mapping[str, Any]) -> None:
    """
    :param env_id: a registered environment id
    :param env_kwargs: arguments of the environment
    :raises ValueError: if there is no such argument
    """
    known = environment_options(env_id)
    if known is None:
        return
    for name in env_kwargs:
        if name not in known:
            others = option_hint(name, known) or f"; its options: {', '.join(sorted(known))}"
            raise ValueError(f"{env_id} has no option {name!r}{others}")


def plays_raw_frames(env_id: str, env_kwargs: Mapping[str, Any]) -> bool:
    """
    :param env_id: id of an environment
    :param env_kwargs: arguments of the environment
    :return: whether it is a game of ale-py as such, not one of a task sequence, and shows frames, not the console's memory
    """
    options = _options_of_game(env_id, env_kwargs)
    return options is not None and options.get("obs_type") != "ram"


def _options_of_game(env_id: str, env_kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    spec = gym.registry.get(env_id.rpartition(":")[2])  # "module:id"
    return {**spec.kwargs, **env_kwargs} if spec is not None and "AtariEnv" in str(spec.entry_point) else None


def warn_of_skipped_frames(env_id: str, env_kwargs: Mapping[str, Any], env_wrapper: Any) -> None:
    """
    Warn where a game skips frames, and SB3's ``AtariWrapper`` skips frames of those that are left.

    :param env_id: id of an environment
    :param env_kwargs: arguments of the environment
    :param env_wrapper: the hyperparameter of this name
    """
    options = _options_of_game(env_id, env_kwargs)
    if options is None or "AtariWrapper" not in str(env_wrapper) or "frame_skip" in str(env_wrapper):
        return
    frameskip, sticky = options.get("frameskip", 4), options.get("repeat_action_probability", 0.25)  # ale-py's defaults
    if frameskip != 1:
        warn(
            f"{env_id} skips frames itself (frameskip={frameskip}), and AtariWrapper those of four of its steps; "
            f"actions are repeated with the probability {sticky}. For the usual four frames a "
            "step: --env-kwargs frameskip:1 repeat_action_probability:0.0"
        )
