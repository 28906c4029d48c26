"""Docstrings say what belongs to them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import sb3_nbsp


def test_functions_have_the_parameters_that_they_document() -> None:
    wrong = []
    for path in Path(sb3_nbsp.__file__).parent.rglob("*.py"):
        for each in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(each, ast.FunctionDef):
                documented = re.findall(r"^:param (\w+):", ast.get_docstring(each) or "", re.MULTILINE)
                arguments = [*each.args.posonlyargs, *each.args.args, *each.args.kwonlyargs, each.args.vararg, each.args.kwarg]
                if not {*documented} <= {argument.arg for argument in arguments if argument is not None}:
                    wrong.append(f"{path.name}: {each.name}")
    assert wrong == []
