"""The options of an agent as attributes: those that are read when they are needed can be set, all others are fixed."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any, ClassVar


class GuardedOptions:
    """
    Guards the options that this package's classes add to SB3's, from the end of the constructor on: an attribute that is set
    is checked and acts, or it is refused. Many options are handed on when an agent is made, and setting them later would
    change nothing.
    """

    # Names of the options that act when they are set
    settable: ClassVar[frozenset[str]] = frozenset()

    def _check_options(self) -> None:
        """
        Check the options that can be set.

        :raises ValueError: if one is out of its range
        """

    def _option_was_set(self, name: str) -> None:
        """What else has to be done for an option to act."""

    def __setattr__(self, name: str, value: Any) -> None:
        if "hooks" not in vars(self) or name not in own_options(type(self)):  # type: ignore[arg-type]
            super().__setattr__(name, value)
            return
        if name not in self.settable:
            cls = type(self).__name__
            raise AttributeError(
                f"{name} of {cls} is fixed when the agent is made; save it and load it with another: "
                f"{cls}.load(path, {name}=...)"
            )
        before = vars(self)[name]
        vars(self)[name] = value
        try:
            self._check_options()
        except ValueError:
            vars(self)[name] = before
            raise
        self._option_was_set(name)


@cache
def own_options(cls: type) -> frozenset[str]:
    """
    :param cls: a class of agents
    :return: names of the options that this package adds to those of SB3: keyword-only arguments of its constructors
    """
    constructors = [vars(each)["__init__"] for each in cls.__mro__ if _is_own(each) and "__init__" in vars(each)]
    parameters = [each for constructor in constructors for each in inspect.signature(constructor).parameters.values()]
    return frozenset(each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY)


def _is_own(cls: type) -> bool:
    return cls.__module__.split(".")[0] == __name__.split(".")[0]
