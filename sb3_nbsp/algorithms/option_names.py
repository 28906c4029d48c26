"""Names of an agent's options, for those that are misspelt."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable

from sb3_nbsp.messages import did_you_mean


def constructor_options(cls: type) -> set[str]:
    """
    :param cls: an agent's class
    :return: names of the arguments of its constructor, and of those that this passes on to
    """
    constructors = [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)]
    parameters = [each for constructor in constructors for each in inspect.signature(constructor).parameters.values()]
    named = {each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    return {name for name in named if name != "self" and not name.startswith("_")}


def check_names(cls: type, given: Iterable[str], accepted: Collection[str]) -> None:
    """
    :param cls: an agent's class
    :param given: names of options that a user gave
    :param accepted: names that mean something
    :raises TypeError: if one does not; its message names the class and what may have been meant
    """
    for name in given:
        if name not in accepted:
            raise TypeError(f"{cls.__name__} has no option {name}{did_you_mean(name, constructor_options(cls) - {name})}")
