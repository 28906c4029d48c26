"""The DeepMind Control Suite as plain Gymnasium environments: flat observations, an id without a slash."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation, TransformObservation

# Domain and task. Not there: lqr, whose actions have no bounds and whose episodes have no end, which SB3 cannot use
TASKS = {
    "acrobot": ["swingup", "swingup_sparse"],
    "ball_in_cup": ["catch"],
    "cartpole": ["balance", "balance_sparse", "swingup", "swingup_sparse", "two_poles", "three_poles"],
    "cheetah": ["run"],
    "dog": ["stand", "walk", "trot", "run", "fetch"],
    "finger": ["spin", "turn_easy", "turn_hard"],
    "fish": ["upright", "swim"],
    "hopper": ["stand", "hop"],
    "humanoid": ["stand", "walk", "run", "run_pure_state"],
    "humanoid_CMU": ["stand", "walk", "run"],
    "manipulator": ["bring_ball", "bring_peg", "insert_ball", "insert_peg"],
    "pendulum": ["swingup"],
    "point_mass": ["easy", "hard"],
    "quadruped": ["walk", "run", "escape", "fetch"],
    "reacher": ["easy", "hard"],
    "stacker": ["stack_2", "stack_4"],
    "swimmer": ["swimmer6", "swimmer15"],
    "walker": ["stand", "walk", "run"],
}


class _OlderNumpy(ModuleType):
    """NumPy with ``in1d``, which it had until 2.3."""

    in1d = staticmethod(np.isin)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def import_dm_control() -> None:
    """
    Import shimmy, which registers the ``dm_control/...`` ids.

    :raises ImportError: if shimmy or dm_control is missing
    """
    try:
        import dm_control.suite.quadruped as quadruped
        import shimmy  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"The DeepMind Control Suite needs shimmy and dm_control: pip install 'sb3_nbsp[dmc]' ({error})"
        ) from error
    if not hasattr(np, "in1d"):  # dm_control 1.0.28 still asks for it, and only there
        vars(quadruped)["np"] = _OlderNumpy("numpy")


def make_dm_control(domain: str, task: str, **kwargs: Any) -> gym.Env:
    """
    A task of the DeepMind Control Suite; entry point of the ``DMC-...`` ids.

    Its observations, a dictionary of float64 arrays, become one vector of float32, in the order of the dictionary's sorted
    keys. The suite truncates its episodes itself: after 1000 steps, and none ends before.

    :param domain: such as "hopper"
    :param task: such as "hop"
    :param kwargs: arguments of shimmy's environment, such as ``render_mode``, ``task_kwargs`` or ``environment_kwargs``
    :return: the environment
    :raises ImportError: if shimmy or dm_control is missing
    """
    import_dm_control()
    env = FlattenObservation(gym.make(f"dm_control/{domain}-{task}-v0", disable_env_checker=True, **kwargs))
    space = env.observation_space
    assert isinstance(space, spaces.Box)
    # A replay buffer takes half the memory, and the networks compute with float32 in any case
    smaller = spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)
    whole = TransformObservation(env, _to_float32, smaller)
    # shimmy 2.0.1 gives the milliseconds of a step instead, in one dictionary for the environments of all tasks
    whole.metadata = {**env.metadata, "render_fps": round(1 / env.get_wrapper_attr("dt"))}
    return whole


def _to_float32(observation: np.ndarray) -> np.ndarray:
    return observation.astype(np.float32)
