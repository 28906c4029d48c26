"""The settings that a run was started with, as its ``config.json`` tells them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb3_nbsp.files import read_json_object

FILE = "config.json"


@dataclass(frozen=True)
class RunConfig:
    """
    What a run was started with, and where.

    :param hyperparams: hyper-parameters of the agent, as they were after all defaults and options
    :param versions: versions of the packages
    :param machine: processor, cores, memory, system, device
    """

    hyperparams: dict[str, Any]
    versions: dict[str, Any]
    machine: dict[str, Any]


def read_config(folder: str | os.PathLike[str]) -> RunConfig | None:
    """
    :param folder: a run's folder
    :return: its settings; None if it has no such file
    :raises ValueError: if the file is damaged
    """
    path = Path(folder) / FILE
    if not path.exists():
        return None
    content = read_json_object(path)
    parts = {name: content.get(name, {}) for name in ("hyperparams", "versions", "machine")}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise ValueError(f"{path} is damaged: its {name} are {part!r}")
    return RunConfig(**parts)
