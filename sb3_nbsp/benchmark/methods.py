"""The methods that can be compared by name, and the paper's ablations as groups of them (``methods.yml``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import yaml

from sb3_nbsp.messages import did_you_mean
from sb3_nbsp.zoo.algos import TABLE


@dataclass(frozen=True)
class Method:
    """
    One row of a comparison.

    :param name: its name on the command line and in the names of folders
    :param title: its name in tables and figures
    :param description: what it is, in a few words
    :param algo: the zoo's name of the algorithm, whose YAML file gives the hyperparameters
    :param options: hyperparameters that differ from those of the YAML file
    """

    name: str
    title: str
    description: str
    algo: str = "nbsp_sac"
    options: dict[str, Any] = field(default_factory=dict)


_CONTENT: dict[str, dict[str, Any]] = yaml.safe_load(files(__package__).joinpath("methods.yml").read_text(encoding="utf-8"))
METHODS = {algo: Method(algo, entry.title, entry.description, algo) for algo, entry in TABLE.items()}
METHODS |= {name: Method(name, **entry) for name, entry in _CONTENT["methods"].items()}
ABLATIONS: dict[str, list[str]] = _CONTENT["ablations"]
PAPER_ROWS: dict[str, str] = _CONTENT["paper"]


def find_methods(names: Sequence[str]) -> list[Method]:
    """The methods of the names, each once; a group stands for all of its own. ValueError if a name is unknown."""
    expanded = [method for name in names for method in ABLATIONS.get(name, [name])]
    for name in expanded:
        if name not in METHODS:
            hint = did_you_mean(name, [*METHODS, *ABLATIONS], n=3, beginnings=True)
            raise ValueError(
                f"There is no method {name!r}{hint}\nMethods: {', '.join(METHODS)}\nGroups of methods: {', '.join(ABLATIONS)}"
            )
    return [METHODS[name] for name in dict.fromkeys(expanded)]
