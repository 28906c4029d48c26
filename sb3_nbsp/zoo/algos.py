"""The names under which the zoo knows this package's algorithms, and their tuned hyperparameters."""

from pathlib import Path
from typing import Any

import yaml
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

from sb3_nbsp.algorithms import (
    CBPPPO,
    CBPSAC,
    NBSPSAC,
    P3O,
    SBPSAC,
    ContinualPPO,
    ContinualSAC,
    CyclePPO,
    CycleSAC,
    ReDoPPO,
    ReDoSAC,
)

ALGOS: dict[str, type[BaseAlgorithm]] = {
    "nbsp_sac": NBSPSAC,
    "continual_sac": ContinualSAC,
    "sbp_sac": SBPSAC,
    "cycle_sac": CycleSAC,
    "redo_sac": ReDoSAC,
    "cbp_sac": CBPSAC,
    "p3o": P3O,
    "cycle_ppo": CyclePPO,
    "redo_ppo": ReDoPPO,
    "cbp_ppo": CBPPPO,
    "continual_ppo": ContinualPPO,
}
# SB3's own, for which this package has hyperparameters on its environments
PLAIN: dict[str, type[BaseAlgorithm]] = {"sac": SAC, "ppo": PPO}


def hyperparams_file(algo: str) -> Path | None:
    """
    The YAML with an algorithm's hyperparameters.

    :param algo: name of the algorithm
    :return: the file, in the checkout or in the installed package; None if this package has none for it
    """
    package = Path(__file__).parent.parent
    candidates = [package / "hyperparams" / f"{algo}.yml", package.parent / "hyperparams" / f"{algo}.yml"]
    return next((path for path in candidates if path.is_file()), None)


def read_hyperparams(algo: str, env_id: str) -> dict[str, Any]:
    """
    Hyperparameters of an algorithm on an environment.

    :param algo: one of ``ALGOS`` or ``PLAIN``
    :param env_id: id of the environment; one without an entry gets the "default"
    :return: keyword arguments of the algorithm, with ``n_timesteps``
    :raises ValueError: if there is no such algorithm
    """
    file = hyperparams_file(algo)
    if file is None:
        raise ValueError(f"algo must be one of {', '.join(map(repr, [*ALGOS, *PLAIN]))}, not {algo!r}")
    entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    hyperparams = dict(entries.get(env_id, entries["default"]))
    # As the zoo does; the file is this package's own
    hyperparams["policy_kwargs"] = eval(hyperparams.get("policy_kwargs", "dict()"), {"nn": nn})
    return hyperparams


def algorithm(algo: str) -> type[BaseAlgorithm]:
    """
    :param algo: one of ``ALGOS`` or ``PLAIN``
    :return: the class
    """
    return {**ALGOS, **PLAIN}[algo]
