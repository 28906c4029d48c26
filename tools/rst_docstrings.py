"""Docstrings are written for ``help()``, in SB3's form: their roles and equations become Markdown for the website."""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import Any

from griffe import Class, Extension, Function, Object, ObjectNode, Parameter, ParameterKind, Parameters


def to_markdown(text: str) -> str:
    """
    :param text: a docstring with reStructuredText's roles, literals and ``.. math::``
    :return: the same in Markdown, equations as code
    """
    text = re.sub(r":(?:class|meth|func|attr|mod|data):`~?([^`]+)`", lambda found: f"`{found[1].split('.')[-1]}`", text)
    text = re.sub(r":math:`([^`]+)`", r"`\1`", text)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    return re.sub(r"^( *)\.\. math::((?: .*)?(?:\n(?:\1 +.*|\s*))*)", _equation, text, flags=re.MULTILINE)


def _equation(found: re.Match[str]) -> str:
    indent, body = found[1], textwrap.dedent(found[2].lstrip(" ").strip("\n")).strip()
    return "\n".join([f"{indent}```", *(f"{indent}{line.strip()}" for line in body.splitlines()), f"{indent}```", ""])


def _constructor(cls: type) -> Function:
    """What the signature says that an agent's class takes, which is put together when it is imported."""
    parameters = []
    for each in inspect.signature(cls).parameters.values():
        default = None if each.default is each.empty else repr(each.default)
        annotation = None if each.annotation is each.empty else str(each.annotation).removeprefix("typing.")
        kind = ParameterKind[each.kind.name.lower()]
        parameters.append(Parameter(each.name, annotation=annotation, kind=kind, default=default))
    return Function("__init__", parameters=Parameters(*parameters))


class RstDocstrings(Extension):
    """Changes the docstrings that griffe has found, before they are parsed."""

    def on_class_members(self, *, node: Any, cls: Class, **_: Any) -> None:
        if isinstance(node, ObjectNode) and "__signature__" in vars(node.obj):
            cls.set_member("__init__", _constructor(node.obj))
            assert cls.docstring is not None  # it names SB3's arguments as args and kwargs; the signature has them all
            cls.docstring.value = re.sub(r"^:param (?:kw)?args:.*\n?", "", cls.docstring.value, flags=re.MULTILINE)

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
