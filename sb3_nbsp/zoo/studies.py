"""Trials of an Optuna study, for ``--trial-id``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sb3_nbsp.extras import needs
from sb3_nbsp.messages import did_you_mean

with needs("zoo", "sb3_nbsp.zoo"):
    import optuna
    from optuna.storages.journal import JournalFileBackend


def parameters_of_trial(storage: str, study_name: str, number: int) -> dict[str, Any]:
    """
    :param storage: a journal (``.log``) or the URL of a database
    :param study_name: name of a study
    :param number: number of a trial, from 0
    :return: what was sampled in that trial
    :raises ValueError: if there is no such storage, study or trial
    """
    is_file = storage.endswith(".log") or storage.startswith("sqlite:///")
    if is_file and not Path(storage.removeprefix("sqlite:///")).exists():  # Optuna would make a new one
        raise ValueError(f"--storage {storage}: there is no such file")
    opened: Any = storage
    if storage.endswith(".log"):
        opened = optuna.storages.JournalStorage(JournalFileBackend(storage))
    names = optuna.get_all_study_names(opened)
    if study_name not in names:
        there = did_you_mean(study_name, names) or (f", only {', '.join(names)}" if names else ", and no other either")
        raise ValueError(f"{storage} has no study {study_name!r}{there}")
    trials = optuna.load_study(storage=opened, study_name=study_name).trials
    if number >= len(trials):
        there = f"from 0 to {len(trials) - 1}" if trials else "none yet"
        raise ValueError(f"study {study_name!r} has no trial {number}; its trials are {there}")
    return dict(trials[number].params)
