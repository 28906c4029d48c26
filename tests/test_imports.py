"""The rooms of the package import one another downwards only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sb3_nbsp

PACKAGE = Path(sb3_nbsp.__file__).parent
# From the bottom to the top; modules outside of rooms may be imported everywhere, but for the package's own front door
ROOMS = ["neurons", "fast", "tasks", "interventions", "algorithms", "diagnostics", "zoo", "benchmark"]
# What outside of it may know that there are faster ways
ENTRANCES_OF_FAST = {
    "algorithms",
    "interventions/container.py",
    "interventions/inner_distillation.py",
    "interventions/scoring.py",
    "interventions/students.py",
}


def imported(path: Path) -> set[str]:
    """Rooms that a file imports from."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("sb3_nbsp.")} & set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_downwards(room: str) -> None:
    files = list((PACKAGE / room).rglob("*.py"))
    assert files
    above = set(ROOMS[ROOMS.index(room) + 1 :])
    wrong = {str(path.relative_to(PACKAGE)): found for path in files if (found := imported(path) & above)}
    assert not wrong


def test_every_folder_is_a_room() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(ROOMS)


def test_few_enter_the_fast_room() -> None:
    entering = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if "fast" in imported(path)]
    entering = [path for path in entering if path.parts[0] != "fast"]
    assert entering
    assert [path for path in entering if not {path.parts[0], path.as_posix()} & ENTRANCES_OF_FAST] == []
