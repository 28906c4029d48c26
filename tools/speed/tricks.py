"""What each of the tricks brings: the time without it, all others in place, over the time with all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from stable_baselines3 import PPO

from sb3_nbsp import ContinualPPO, ContinualSAC
from sb3_nbsp.algorithms.autograd_ppo import AutogradPPOGradients
from sb3_nbsp.fast.fused_optimizers import set_fused
from tools.speed import ppo, sac
from tools.speed.turns import Row, take_turns

UNIT = "× the time with it"


def sac_without() -> dict[str, Callable[[Any], None]]:
    """
    :return: by name of the trick: takes it away from a ContinualSAC
    """

    def by_hand(model: ContinualSAC) -> None:
        model._is_by_hand = lambda: False  # type: ignore[method-assign]

    def fused_adam(model: ContinualSAC) -> None:
        set_fused(model._optimizers(), False)

    return {"gradients by hand": by_hand, "fused Adam": fused_adam}


def ppo_without() -> dict[str, Callable[[Any], None]]:
    """
    :return: by name of the trick: takes it away from a ContinualPPO
    """

    def actor_alone(model: ContinualPPO) -> None:
        model.collect_rollouts = partial(PPO.collect_rollouts, model)  # type: ignore[method-assign]

    def by_hand(model: ContinualPPO) -> None:
        make = model._make_gradients

        def autograd() -> AutogradPPOGradients:
            make()  # sets the objective
            return AutogradPPOGradients(model.policy, model._objective, model.all_interventions)

        model._make_gradients = autograd  # type: ignore[method-assign]

    def fused_adam(model: ContinualPPO) -> None:
        set_fused([model.policy.optimizer], False)

    return {"rollouts of the actor alone": actor_alone, "gradients by hand": by_hand, "fused Adam": fused_adam}


def measure_sac(net_arch: Sequence[int], rounds: int, steps: int) -> list[Row]:
    """
    :param net_arch: sizes of the hidden layers
    :param rounds: number of turns
    :param steps: gradient steps per turn
    :return: lines of the table
    """
    models = {"all": sac.make(ContinualSAC, net_arch)}
    for name, take_away in sac_without().items():
        take_away(models.setdefault(name, sac.make(ContinualSAC, net_arch)))
    tasks = {name: partial(model.train, gradient_steps=steps, batch_size=sac.BATCH) for name, model in models.items()}
    return _rows(f"SAC step, {'×'.join(map(str, net_arch))}", take_turns(tasks, rounds, "SAC's tricks"))


def measure_ppo(env_id: str, net_arch: Sequence[int], n_steps: int, rounds: int) -> list[Row]:
    """
    :param env_id: the environment
    :param net_arch: sizes of the hidden layers
    :param n_steps: steps of a rollout
    :param rounds: number of turns
    :return: lines of the table
    """
    models = {"all": ppo.make(ContinualPPO, env_id, net_arch, n_steps)}
    for name, take_away in ppo_without().items():
        take_away(models.setdefault(name, ppo.make(ContinualPPO, env_id, net_arch, n_steps)))

    def iterate(model: PPO) -> None:
        ppo.collect(model)
        model.train()

    tasks = {name: partial(iterate, model) for name, model in models.items()}
    return _rows("PPO iteration", take_turns(tasks, rounds, "PPO's tricks"))


def _rows(what: str, seconds: dict[str, np.ndarray]) -> list[Row]:
    return [Row(f"{what} without {name}", each / seconds["all"], UNIT) for name, each in seconds.items() if name != "all"]
