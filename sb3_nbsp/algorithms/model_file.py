"""What is in a model's zip: members beside SB3's, and attributes that SB3 cannot read by itself."""

from __future__ import annotations

import base64
import io
import json
import pathlib
import re
import sys
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.save_util import open_path
from stable_baselines3.common.utils import get_device

from sb3_nbsp.messages import warn

File = str | pathlib.Path | io.BufferedIOBase

# Options that may be functions; what another version of Python has pickled of a function cannot be read
_FUNCTIONS = ("learning_rate", "qf_learning_rate", "clip_range", "clip_range_vf")


def write_members(file: File, members: dict[str, dict[str, Any]]) -> None:
    """
    Add members to a model's zip. SB3 passes over all whose names do not end with ".pth".

    :param file: the zip
    :param members: name to tensors, numbers, strings, lists and dictionaries of those
    """
    with zipfile.ZipFile(file, mode="a") as archive:
        for name, content in members.items():
            with archive.open(f"{name}.pt", mode="w", force_zip64=True) as member:
                th.save(content, member)


def read_member(path: File, name: str, device: th.device | str = "auto") -> dict[str, Any] | None:
    """
    :param path: a model's zip, with or without its suffix
    :param name: name of a member that :func:`write_members` has written
    :param device: where to put its tensors
    :return: what it holds; None if the file has no such member
    :raises ValueError: if the file is no zip
    """
    with _opened(path) as archive:
        if f"{name}.pt" not in archive.namelist():
            return None
        with archive.open(f"{name}.pt") as member:
            content: dict[str, Any] = th.load(member, map_location=get_device(device), weights_only=True)
            return content


def read_attributes(path: File) -> dict[str, Any]:
    """
    :param path: a model's zip
    :return: the agent's attributes by name, as SB3 has written them: those that are no plain values as pickles
    :raises ValueError: if the file is no zip
    """
    with _opened(path) as archive:
        attributes: dict[str, Any] = json.loads(archive.read("data")) if "data" in archive.namelist() else {}
    return attributes


@contextmanager
def _opened(path: File) -> Iterator[zipfile.ZipFile]:
    file = open_path(path, "r", suffix="zip")
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: the file wasn't a zip-file") from error
    finally:
        if isinstance(path, (str, pathlib.Path)):
            file.close()


def substitutes(attributes: dict[str, Any], defaults: dict[str, Any], given: Collection[str] = ()) -> dict[str, Any]:
    """
    Read what SB3 does not in files of its first versions: spaces of Gym, whose successor is Gymnasium, and learning rates
    and clip ranges that are functions pickled by another version of Python, in whose place a warning names the default. (What
    cannot be imported is left to be an error, as no default is meant then.)

    :param attributes: see :func:`read_attributes`
    :param defaults: defaults of the agent's options
    :param given: names of attributes that are given anyway
    :return: attributes to use in place of those in the file, for ``custom_objects``
    """
    found: dict[str, Any] = {}
    for name, pickled in _pickles(attributes).items():
        if re.search(rb"\bgym\b", pickled):
            with gymnasium_as_gym():
                found[name] = _without_old_generators(cloudpickle.loads(pickled))
    problems = {name: problem for name in _FUNCTIONS if (problem := _problem(attributes, name)) is not None}
    lost = {name: defaults.get(name) for name, problem in problems.items() if name in given or not _is_missing(problem)}
    if missed := [name for name in lost if name not in given]:
        warn(
            f"{', '.join(missed)}: pickled by another version of Python, unreadable here. Training would continue with "
            f"{', '.join(f'{name}={lost[name]}' for name in missed)}: give others in load(custom_objects=...)"
        )
    if not can_read(attributes, "lr_schedule"):
        lost["lr_schedule"] = None  # it is made anew from the learning rate
    return {**found, **lost}


def space_of(env_space: gym.Space, saved: gym.Space) -> gym.Space:
    """
    :param env_space: the space of an environment of today
    :param saved: the space of a model of a time when environments wrote the largest number for a bound that is now infinite
    :return: the environment's, if the two are the same otherwise; the saved one if not
    """
    if not (isinstance(env_space, spaces.Box) and isinstance(saved, spaces.Box) and env_space.shape == saved.shape):
        return saved
    bounds = zip((env_space.low, env_space.high), (saved.low, saved.high), strict=True)
    is_same = env_space.dtype == saved.dtype and all(np.allclose(_infinite(new), _infinite(old)) for new, old in bounds)
    return env_space if is_same else saved


def _infinite(bound: np.ndarray) -> np.ndarray:
    if not np.issubdtype(bound.dtype, np.floating):
        return bound
    return np.where(np.abs(bound) >= np.finfo(bound.dtype).max, np.copysign(np.inf, bound), bound)


def first_unreadable(attributes: dict[str, Any]) -> str | None:
    """
    :param attributes: see :func:`read_attributes`
    :return: the first attribute that cannot be unpickled, because a module is missing for instance
    """
    return next((name for name in attributes if not can_read(attributes, name)), None)


def other_policy(attributes: dict[str, Any], expected: type[BasePolicy]) -> str | None:
    """
    :param attributes: see :func:`read_attributes`
    :param expected: the class from which all policies of an algorithm derive
    :return: in words, that the policy is of another algorithm; None if it is not, or cannot be known
    """
    pickled = _pickles(attributes).get("policy_class")
    if pickled is None or not can_read(attributes, "policy_class"):
        return None
    saved = cloudpickle.loads(pickled)
    return None if issubclass(saved, expected) else f"its policy is {saved.__name__}, which is no {expected.__name__}"


def _pickles(attributes: dict[str, Any]) -> dict[str, bytes]:
    key = ":serialized:"
    return {name: base64.b64decode(item[key]) for name, item in attributes.items() if isinstance(item, dict) and key in item}


def can_read(attributes: dict[str, Any], name: str) -> bool:
    """
    :param attributes: see :func:`read_attributes`
    :param name: the name of an attribute
    :return: whether it can be unpickled here; True for one that is no pickle
    """
    return _problem(attributes, name) is None


def _problem(attributes: dict[str, Any], name: str) -> Exception | None:
    """Why an attribute cannot be unpickled."""
    pickled = _pickles({name: attributes.get(name)})
    try:
        for each in pickled.values():
            cloudpickle.loads(each)
    except Exception as error:  # whatever the pickle runs
        return error
    return None


def _is_missing(problem: Exception) -> bool:
    """Whether a module, or a thing in it, is not here. (Older versions of cloudpickle wrote what it no longer has.)"""
    return isinstance(problem, (ImportError, AttributeError)) and "cloudpickle" not in str(problem)


@contextmanager
def gymnasium_as_gym() -> Iterator[None]:
    """Let ``gym`` and its modules be Gymnasium's, and afterwards what they were."""
    ours = {name.replace("gymnasium", "gym", 1): module for name, module in sys.modules.items() if _is_of(name, "gymnasium")}
    theirs = {name: module for name, module in sys.modules.items() if _is_of(name, "gym")}
    for name in theirs:
        del sys.modules[name]
    sys.modules.update(ours)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if _is_of(name, "gym")]:
            del sys.modules[name]
        sys.modules.update(theirs)


def _is_of(module: str, package: str) -> bool:
    return module.split(".")[0] == package


def _without_old_generators(thing: Any) -> Any:
    """Gym's first spaces have a generator of NumPy's old kind, which Gymnasium's cannot draw from."""
    if isinstance(thing, gym.Space):
        if not isinstance(thing._np_random, np.random.Generator):
            thing._np_random = None
        parts = thing.spaces if isinstance(thing, (spaces.Dict, spaces.Tuple)) else ()
        for part in parts.values() if isinstance(parts, dict) else parts:
            _without_old_generators(part)
    return thing


def with_suffix(path: str | pathlib.Path, suffix: str) -> pathlib.Path:
    """
    :param path: a file's name
    :param suffix: what to append if it has none
    :return: the name with a suffix
    """
    path = pathlib.Path(path)
    return path if path.suffix else path.with_name(f"{path.name}.{suffix}")
