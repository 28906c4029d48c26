"""
The options of an agent: what its constructor takes, and its attributes. Those that are read when they are needed can be set,
all others are fixed.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from typing import Any, ClassVar

from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.sac.policies import SACPolicy

from sb3_nbsp.messages import did_you_mean


class GuardedOptions:
    """
    Guards the options that this package's classes add to SB3's, from the end of the constructor on: an attribute that is set
    is checked and acts, or it is refused. Many options are handed on when an agent is made, and setting them later would
    change nothing.

    Every class has the signature of all constructors that its own one passes arguments on to, and says in its docstring what
    the options are that this package adds: an option is documented where it is written, in a base or an intervention.
    """

    # Names of the options that act when they are set
    settable: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__signature__ = inspect.Signature(list(constructor_parameters(cls).values()))  # type: ignore[attr-defined]
        cls.__doc__ = _documented(cls)

    def _check_options(self) -> None:
        """
        Check the options that can be set.

        :raises ValueError: if one is out of its range
        """

    def _check_combination(self) -> None:
        """
        Check whether the options go with the agent's networks and interventions, once these exist.

        :raises ValueError: if they do not
        """

    def _option_was_set(self, name: str) -> None:
        """What else has to be done for an option to act."""

    def __setattr__(self, name: str, value: Any) -> None:
        if "all_interventions" not in vars(self) or name not in own_options(type(self)):  # type: ignore[arg-type]
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
            self._check_combination()
        except ValueError:
            vars(self)[name] = before
            raise
        self._option_was_set(name)


def constructor_parameters(cls: type) -> dict[str, inspect.Parameter]:
    """
    :param cls: an agent's class
    :return: by name, what its constructor takes and those take that this passes arguments on to; what may be given by
        position comes first
    """
    found: dict[str, inspect.Parameter] = {**getattr(cls, "options", {})}
    for _, parameters in _constructors(cls):
        for name, parameter in parameters.items():
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and not name.startswith("_"):
                found.setdefault(name, parameter)
        if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
            break
    return dict(sorted(found.items(), key=lambda item: item[1].kind))


@cache
def own_options(cls: type) -> frozenset[str]:
    """
    :param cls: a class of agents
    :return: names of the options that this package adds to those of SB3
    """
    own = [parameters for base, parameters in _constructors(cls) if _is_own(base)]
    names = {name for parameters in own for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY}
    return frozenset(names | getattr(cls, "options", {}).keys())


def check_names(cls: type, given: Iterable[str], accepted: Collection[str]) -> None:
    """
    :param cls: an agent's class
    :param given: names of options that a user gave
    :param accepted: names that mean something
    :raises TypeError: if one does not; its message names the class and what may have been meant
    """
    for name in given:
        if name not in accepted:
            raise TypeError(
                f"{cls.__name__} has no option {name}{option_hint(name, constructor_parameters(cls).keys() - {name})}"
            )


def option_hint(name: str, names: Iterable[str]) -> str:
    """
    :param name: an option that is unknown
    :param names: those that there are
    :return: "; did you mean ...?" with the closest one, or with ``policy_kwargs`` if the policy has the option; or nothing
    """
    names = list(names)
    if "policy_kwargs" in names and any(name in inspect.signature(each).parameters for each in (ActorCriticPolicy, SACPolicy)):
        return f"; did you mean policy_kwargs=dict({name}=...)?"
    return did_you_mean(name, names)


def _documented(cls: type) -> str:
    """The class's docstring with a line for each option that it does not mention itself."""
    own = inspect.cleandoc(cls.__doc__ or "") if "__doc__" in vars(cls) else ""
    texts: dict[str, str] = {}
    for base in reversed([each for each in cls.__mro__[1:] if _is_own(each)]):
        texts |= parameter_texts(base)
    texts |= getattr(cls, "option_texts", dict)()
    mentioned = parameter_texts(own)
    names = ["policy", "env", "args", *sorted(own_options(cls), key=list(constructor_parameters(cls)).index), "kwargs"]
    lines = [_wrapped(f":param {name}: {texts[name]}") for name in names if name in texts and name not in mentioned]
    description, separator, fields = own.partition("\n:")
    end = [f":{fields}"] if separator else []
    return "\n".join([description.rstrip(), "", *lines, *end])


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 120, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def parameter_texts(documented: type | str) -> dict[str, str]:
    """
    :param documented: a docstring with ``:param name: text`` lines, or a class that has one
    :return: the texts by name, their lines joined
    """
    text = documented if isinstance(documented, str) else inspect.cleandoc(vars(documented).get("__doc__") or "")
    found = re.findall(r"^:param (\w+): ?(.*(?:\n[ \t]+.*)*)", text, flags=re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in found}


def _constructors(cls: type) -> Iterator[tuple[type, dict[str, inspect.Parameter]]]:
    """The constructors of a class and its bases, in the order in which they call one another, without ``self``."""
    for base in cls.__mro__:
        if "__init__" in vars(base):
            _, *parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            yield base, {each.name: each for each in parameters}


def _is_own(cls: type) -> bool:
    return cls.__module__.split(".")[0] == __name__.split(".")[0]
