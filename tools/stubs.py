"""
Write ``sb3_nbsp/algorithms/methods.pyi``: what editors and type checkers see of the methods, whose options are put together
when they are imported.
"""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path

from sb3_nbsp.algorithms import methods
from sb3_nbsp.algorithms.method import Method

PATH = Path(methods.__file__).with_suffix(".pyi")
HEADER = """# Written by `python -m tools.stubs`: do not edit
import collections.abc
from typing import Any, Literal, Union

from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv

from sb3_nbsp.algorithms.continual_discrete_sac import ContinualDiscreteSAC as ContinualDiscreteSAC
from sb3_nbsp.algorithms.continual_ppo import ContinualPPO as ContinualPPO
from sb3_nbsp.algorithms.continual_sac import ContinualSAC as ContinualSAC
from sb3_nbsp.algorithms.method import KeepsReplayBuffer, Method, StartsAnew
"""


def stub() -> str:
    """
    :return: the text of the file
    """
    own = [each for each in vars(methods).values() if inspect.isclass(each) and each.__module__ == methods.__name__]
    exported = f"__all__ = {[each.__name__ for each in own]}\n"
    return "\n\n".join([HEADER, exported, *map(_class, own)])


def _class(cls: type[Method]) -> str:
    bases = ", ".join(base.__name__ for base in cls.__bases__)
    options = {name: (_annotation(cls, name), repr(option.default)) for name, option in cls.options.items()}
    attributes = [f"{name}: {annotation}" for name, (annotation, _) in options.items()]
    arguments = [f"    {name}: {annotation} = {default}," for name, (annotation, default) in options.items()]
    constructor = ["def __init__(", "    self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,"]
    constructor += [*arguments, "    **kwargs: Any", ") -> None: ..."]
    lines = [f'"""\n{_text(cls)}\n"""', *attributes, *constructor]
    return f"class {cls.__name__}({bases}):\n" + textwrap.indent("\n".join(lines), "    ") + "\n"


def _text(cls: type[Method]) -> str:
    """What the class is and what its own options mean; the rest stands where it is written."""
    what, base = (inspect.getdoc(cls) or "").partition("\n\n:param")[0], cls.__bases__[-1].__name__
    texts = [f":param {name}: {' '.join(text.split())}" for name, text in cls.option_texts().items()]
    wrapped = [textwrap.fill(text, 120, subsequent_indent="    ", break_on_hyphens=False) for text in texts]
    return "\n".join([what, "", *wrapped, f":param kwargs: see :class:`{base}`"])


def _annotation(cls: type[Method], name: str) -> str:
    """Aliases are written out."""
    for part in cls.parts:
        parameters = inspect.signature(part, eval_str=True).parameters
        if name in parameters:
            return inspect.formatannotation(parameters[name].annotation)
    return "bool"


if __name__ == "__main__":
    PATH.write_text(stub(), encoding="utf-8")
