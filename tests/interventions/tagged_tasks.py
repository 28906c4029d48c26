"""Tiny tasks whose every observation says where it comes from, and what the tests need around them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger

from sb3_nbsp import NBSPSAC
from sb3_nbsp.interventions import Intervention
from sb3_nbsp.tasks import TaskSequence

SERIAL = 2.0**-10  # observations count up in this unit, exact in single precision


class TaggedTask(gym.Env):
    """
    Observation: (tag of the task, running number of the observation, noise, last action).

    :param tag: the same in all observations
    :param horizon: steps of an episode
    :param terminates: episodes end with ``terminated`` (otherwise with ``truncated``)
    :param success: "mixed" (depends on noise and action), "never", "always", None (says nothing), or
        the number of the episode, from 0, from which on every episode ends with a success
    """

    observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = spaces.Box(-2.0, 2.0, (2,), np.float32)
    # By tag, what was played in this process: (observation, action, reward, success, done) of every step
    played: ClassVar[dict[float, list[tuple[np.ndarray, np.ndarray, float, float | None, bool]]]] = {}

    def __init__(
        self,
        tag: float,
        horizon: int = 10,
        terminates: bool = False,
        success: str | int | None = "mixed",
        render_mode: str | None = None,
    ) -> None:
        self.tag, self.horizon, self.terminates, self.success = tag, horizon, terminates, success
        self.render_mode = render_mode
        self.serial, self.episode = 0, -1

    def _observe(self) -> np.ndarray:
        self.serial += 1
        noise = self.np_random.uniform(-1, 1)
        self.last = np.array([self.tag, self.serial * SERIAL, noise, self.action], dtype=np.float32)
        return self.last.copy()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.t, self.action = 0, 0.0
        return self._observe(), {}

    def _success(self, action: np.ndarray) -> float | None:
        if self.success is None:
            return None
        if isinstance(self.success, int):
            return float(self.episode >= self.success and self.t == self.horizon)
        mixed = float(self.last[2] + 0.3 * action[0] > 0.2)
        return {"mixed": mixed, "never": 0.0, "always": 1.0}[self.success]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        before = self.last.copy()
        self.episode += self.t == 0  # a reset without a step is no episode
        self.t += 1
        success, done = self._success(action), self.t >= self.horizon
        reward = float(1 - (action[0] - before[2]) ** 2 + 0.1 * self.tag)
        self.played.setdefault(self.tag, []).append((before, np.array(action), reward, success, done))
        self.action = float(action[0])
        info = {} if success is None else {"success": success}
        return self._observe(), reward, done and self.terminates, done and not self.terminates, info


class ImageTask(gym.Env):
    """
    A bright bar on a small grey image, whose column says which task it is and whose brightness the step.

    :param column: of the bar
    """

    observation_space = spaces.Box(0, 255, (36, 36, 1), np.uint8)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, column: int = 0, render_mode: str | None = None) -> None:
        self.column, self.render_mode, self.t = column, render_mode, 0

    def _observe(self) -> np.ndarray:
        image = self.np_random.integers(0, 100, size=(36, 36, 1), dtype=np.uint8)
        image[:, self.column] = 200 + self.t
        return image

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self._observe(), float(-abs(action[0])), False, self.t == 5, {"success": float(action[0] > 0)}


def tagged_sequence(
    tasks: Sequence[str] = ("red", "blue"),
    cycles: int = 2,
    steps_per_task: int = 60,
    mastery_threshold: float | None = None,
    mastery_window: int = 10,
    **task: Any,
) -> TaskSequence:
    """A sequence of tagged tasks: the tag of a task is 1 + its position among the distinct tasks."""
    names = list(dict.fromkeys(tasks))
    makers = {name: partial(TaggedTask, 1.0 + i, **task) for i, name in enumerate(names)}
    return TaskSequence(makers, list(tasks), cycles, steps_per_task, mastery_threshold, mastery_window)


# A small agent, for both SB3's and ours
TINY_PPO: dict[str, Any] = {
    "policy": "MlpPolicy",
    "policy_kwargs": {"net_arch": [8, 8]},
    "n_steps": 20,
    "batch_size": 10,
    "n_epochs": 2,
    "learning_rate": 3e-3,
    "seed": 0,
    "device": "cpu",
}
TINY: dict[str, Any] = {
    "policy": "MlpPolicy",
    "policy_kwargs": {"net_arch": [8, 8]},
    "buffer_size": 1000,
    "learning_starts": 20,
    "batch_size": 16,
    "learning_rate": 3e-3,
    "seed": 0,
    "device": "cpu",
}


def tiny(cls: type, env: Any, **kwargs: Any) -> Any:
    """An agent with small networks, which identifies skill neurons on its training steps: 10 000 fresh ones take time."""
    if isinstance(cls, type) and issubclass(cls, NBSPSAC):
        kwargs = {"identification_data": "training", **kwargs}
    small = TINY_PPO if isinstance(cls, type) and issubclass(cls, PPO) else TINY
    return cls(env=env, **{**copy.deepcopy(small), **kwargs})


class Spy(Intervention):
    """Writes down what happens; put it in front of or behind other interventions."""

    def __init__(self) -> None:
        self._log: list[tuple[Any, ...]] = []

    def attach(self, agent: Any) -> None:
        super().attach(agent)
        self._log = []
        self._transitions: list[list[tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]]] = [[]]
        self._ends: list[dict[str, Any]] = []
        self._starts: list[dict[str, Any]] = []

    @property
    def transitions(self) -> list[Any]:
        """By phase: (rewards, dones, infos) of every step."""
        return self._transitions

    @property
    def ends(self) -> list[dict[str, Any]]:
        """By phase: the agent as it was at its end."""
        return self._ends

    @property
    def starts(self) -> list[dict[str, Any]]:
        """The agent as it was at the start of every phase but the first."""
        return self._starts

    def _picture(self, phase: Any) -> dict[str, Any]:
        normalizer = self.agent.get_vec_normalize_env()
        return {
            "phase": phase,
            "policy": copy.deepcopy(self.agent.policy, self._left_out()),
            "buffer": copy.deepcopy(self.agent.replay_buffer),
            "normalizer": None if normalizer is None else copy.deepcopy((normalizer.obs_rms, normalizer.ret_rms)),
            "log_ent_coef": None if self.agent.log_ent_coef is None else self.agent.log_ent_coef.item(),
            "moments": {
                name: len(getattr(self.agent, name).optimizer.state) if name != "ent_coef" else len(optimizer.state)
                for name, optimizer in (("actor", None), ("critic", None), ("ent_coef", self.agent.ent_coef_optimizer))
                if name != "ent_coef" or optimizer is not None
            },
            "n_updates": self.agent._n_updates,
            "num_timesteps": self.agent.num_timesteps,
            "random": random_states(),
        }

    def _left_out(self) -> dict[int, Any]:
        # gSDE's noise matrices hang on the graph and cannot be copied
        return {id(self.agent.actor.action_dist): None} if self.agent.use_sde else {}

    def on_transition(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        self._transitions[-1].append((rewards.copy(), dones.copy(), copy.deepcopy(infos)))

    def on_phase_end(self, phase: Any) -> None:
        self._ends.append(self._picture(phase))

    def on_phase_start(self, phase: Any) -> None:
        self._starts.append(self._picture(phase))
        self._transitions.append([])


class RecordingLogger(Logger):
    """Keeps everything that is recorded."""

    def __init__(self) -> None:
        super().__init__(None, [])
        self.records: list[tuple[str, Any]] = []

    def record(self, key: str, value: Any, exclude: Any = None) -> None:
        self.records.append((key, value))

    def values(self, key: str) -> list[Any]:
        return [value for name, value in self.records if name == key]


def random_states() -> tuple[bytes, bytes]:
    """State of the global random streams of numpy and torch."""
    numpy_state = np.random.get_state(legacy=True)
    return repr([numpy_state[0], numpy_state[1].tolist(), *numpy_state[2:]]).encode(), th.get_rng_state().numpy().tobytes()


def parameters(agent: Any) -> dict[str, th.Tensor]:
    """All parameters of an agent: policy, target critics, entropy coefficient."""
    state = {name: tensor.detach().clone() for name, tensor in agent.policy.state_dict().items()}
    if getattr(agent, "log_ent_coef", None) is not None:
        state["log_ent_coef"] = agent.log_ent_coef.detach().clone()
    return state


def differing(first: dict[str, th.Tensor], second: dict[str, th.Tensor]) -> list[str]:
    """Names of the tensors that are not equal bit for bit."""
    assert first.keys() == second.keys()
    return [name for name, tensor in first.items() if not th.equal(tensor, second[name])]
