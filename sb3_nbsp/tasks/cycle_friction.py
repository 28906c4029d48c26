"""Cycle Friction: MuJoCo tasks whose floor changes from rough to smooth and back (P3O paper, section 5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from sb3_nbsp.checks import check_range, whole
from sb3_nbsp.extras import needs

# Training for 20 million steps meets every friction at least three times
FRICTIONS = (4, 3, 2, 1, 2, 3)


class CycleFriction(gym.Wrapper, RecordConstructorArgs):
    """
    Change the sliding friction of every geom of a MuJoCo task in a cycle. Step n of the environment has friction
    ``frictions[(n // steps_per_friction) % len(frictions)]``, so it may change in the middle of an episode.

    ``info["friction"]`` is the friction of a step; after a reset, that of the next step.

    Steps are counted over the life of the environment, not of the agent: a new environment starts with the first friction.
    When agents of this package are loaded and continue, they move it to where it was (``learn(reset_num_timesteps=False)``);
    :func:`~sb3_nbsp.tasks.load_checkpoint` does so for all agents. Otherwise, use ``start_step``.

    Paper: Stay Hungry, Keep Learning: Sustainable Plasticity for Deep Reinforcement Learning (section 5.1, figure 3).

    :param env: a MuJoCo environment
    :param frictions: coefficients of sliding friction (no unit, MuJoCo's default is 1), in order
    :param steps_per_friction: number of steps of this environment until the next friction
    :param start_step: number of the first step
    :raises ValueError: if an option is out of its range or the environment is not based on MuJoCo
    """

    # What agents know an environment by that changes with its steps: see sb3_nbsp.tasks.recognize.ages()
    sb3_nbsp_ages = True

    def __init__(
        self,
        env: gym.Env,
        frictions: Sequence[float] = FRICTIONS,
        steps_per_friction: int = 1_000_000,
        start_step: int = 0,
    ) -> None:
        _check(frictions, steps_per_friction)
        RecordConstructorArgs.__init__(self, frictions=frictions, steps_per_friction=steps_per_friction, start_step=start_step)
        super().__init__(env)
        model = getattr(env.unwrapped, "model", None)
        if not hasattr(model, "geom_friction"):
            raise ValueError(f"env must be a MuJoCo environment, with a model that has geom_friction, not {env}")
        self.frictions = tuple(float(friction) for friction in frictions)
        self.steps_per_friction = int(steps_per_friction)
        self._model: Any = model
        self.set_elapsed_steps(start_step)

    @property
    def elapsed_steps(self) -> int:
        """Number of the step to come: the steps that were played, counted from ``start_step``."""
        return self._n_steps

    @property
    def friction(self) -> float:
        """Friction of the step to come."""
        return self.frictions[self._n_steps // self.steps_per_friction % len(self.frictions)]

    def set_elapsed_steps(self, n_steps: int) -> None:
        """
        Continue the schedule elsewhere.

        :param n_steps: number of the step to come
        :raises ValueError: if it is no whole number of at least 0
        """
        self._n_steps = whole("start_step", n_steps, 0)
        self._apply()

    def _apply(self) -> None:
        # Of the three coefficients the first is sliding. All geoms get the same, as MuJoCo uses the larger one of a contact
        self._model.geom_friction[:, 0] = self.friction

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; the count of steps continues. See Gymnasium."""
        self._apply()
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, {**info, "friction": self.friction}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Play one step with the friction of its number; see Gymnasium."""
        self._apply()
        observation, reward, terminated, truncated, info = self.env.step(action)
        info = {**info, "friction": self.friction}
        self._n_steps += 1
        return observation, reward, terminated, truncated, info


def _check(frictions: Sequence[float], steps_per_friction: int) -> None:
    if not isinstance(frictions, (Sequence, np.ndarray)) or isinstance(frictions, str) or len(frictions) == 0:
        raise ValueError(f"frictions must be a list of at least one positive number, not {frictions!r}")
    for friction in frictions:
        check_range("frictions", friction, 0, float(np.finfo(np.float64).max), low_open=True)
    whole("steps_per_friction", steps_per_friction, 1)


def make_cycle_friction(
    task: str,
    frictions: Sequence[float] = FRICTIONS,
    steps_per_friction: int = 1_000_000,
    start_step: int = 0,
    **kwargs: Any,
) -> CycleFriction:
    """
    A registered MuJoCo task with :class:`CycleFriction`; entry point of the ``CycleFriction-...`` ids.

    :param task: id of the task, such as "Hopper-v5"
    :param frictions: see :class:`CycleFriction`
    :param steps_per_friction: see :class:`CycleFriction`
    :param start_step: see :class:`CycleFriction`
    :param kwargs: arguments of the task, such as ``render_mode``
    :return: the environment, without the limit of its episodes, which belongs to the id
    :raises ValueError: if an option is out of its range or the task has no MuJoCo model
    """
    _check(frictions, steps_per_friction)  # before anything is built
    # -1: no time limit. Gymnasium's own wrappers come around this one
    try:
        with needs("mujoco", task):
            env = gym.make(task, max_episode_steps=-1, disable_env_checker=True, **kwargs).unwrapped
    except gym.error.DependencyNotInstalled as error:
        raise ImportError(f"{task} needs mujoco: pip install 'sb3_nbsp[mujoco]' ({error})") from error
    return CycleFriction(env, frictions, steps_per_friction, start_step)
