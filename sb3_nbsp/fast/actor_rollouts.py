"""Rollouts in which the actor alone acts, one observation at a time, and the critic looks at all of them afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from sb3_nbsp.fast.matmul_precision import MakeLayers
from sb3_nbsp.fast.mlp_actor_critic import MlpActorCritic, is_mlp_actor_critic
from sb3_nbsp.fast.perceptron import layers_of
from sb3_nbsp.messages import warn

_BATCH = 512


class ActorRollouts(PPO):
    """PPO that collects its rollouts with the actor alone where that gives the same, see :class:`DeferredEvaluation`."""

    fused: bool
    _layers: Callable[[], MakeLayers]

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """
        Fill the rollout buffer: SB3's loop, with its names for what callbacks see, but for the policy's one call.

        :param env: the environments
        :param callback: called at every step, and at the start and the end
        :param rollout_buffer: the buffer
        :param n_rollout_steps: steps to collect in each environment
        :return: False if a callback stopped the rollout
        :raises ValueError: if the policy's distribution of actions is not valid: SB3's error
        """
        if not (self.fused and self._inherits_sb3s_loop() and can_act_alone(self.policy, rollout_buffer)):
            return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)
        assert self._last_obs is not None, "No previous observation was provided"
        self.policy.set_training_mode(False)
        rollout_buffer.reset()
        callback.on_rollout_start()
        deferred = DeferredEvaluation(self.policy, rollout_buffer, env.num_envs, self._layers())
        values, log_probs = deferred.values, deferred.log_probs
        n_steps = 0

        while n_steps < n_rollout_steps:
            with th.no_grad():
                obs_tensor = obs_as_tensor(self._last_obs, self.device)  # type: ignore[arg-type]
                assert isinstance(obs_tensor, th.Tensor)
                actions = deferred.act(obs_tensor).cpu().numpy()
            clipped_actions = self._to_environment(actions)
            new_obs, rewards, dones, infos = env.step(clipped_actions)
            self.num_timesteps += env.num_envs

            callback.update_locals(locals())
            if not callback.on_step():
                deferred.stop()
                return False

            self._update_info_buffer(infos, dones)
            n_steps += 1
            if isinstance(self.action_space, spaces.Discrete):
                actions = actions.reshape(-1, 1)
            for idx, done in enumerate(dones):
                if done:
                    rewards[idx] += self._value_of_the_rest(infos[idx])
            deferred.store(self._last_obs, actions, rewards, self._last_episode_starts)  # type: ignore[arg-type]
            self._last_obs, self._last_episode_starts = new_obs, dones  # type: ignore[assignment]

        deferred.evaluate()
        with th.no_grad():
            values = self.policy.predict_values(obs_as_tensor(new_obs, self.device))  # type: ignore[arg-type]
        log_probs = th.as_tensor(rollout_buffer.log_probs[-1])
        rollout_buffer.compute_returns_and_advantage(last_values=values, dones=dones)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _inherits_sb3s_loop(self) -> bool:
        """Whether no class between this one and SB3's has a way of its own to collect."""
        return getattr(super().collect_rollouts, "__func__", None) is OnPolicyAlgorithm.collect_rollouts

    def _to_environment(self, actions: np.ndarray) -> np.ndarray:
        """What SB3 does to the policy's actions before the environments get them."""
        if not isinstance(self.action_space, spaces.Box):
            return actions
        if self.policy.squash_output:
            return self.policy.unscale_action(actions)
        return np.clip(actions, self.action_space.low, self.action_space.high)

    @th.no_grad()
    def _value_of_the_rest(self, info: dict[str, Any]) -> th.Tensor | float:
        """Where a time limit cut off an episode, the discounted value of its last observation stands for what is missing."""
        if info.get("terminal_observation") is None or not info.get("TimeLimit.truncated", False):
            return 0.0
        last = self.policy.obs_to_tensor(info["terminal_observation"])[0]
        return self.gamma * self.policy.predict_values(last)[0]


class DeferredEvaluation:
    """
    Actions of the actor now; values and log-probabilities of a whole rollout later, in a few large batches.

    Until then the buffer, and callbacks that look at SB3's local variables ``values`` and ``log_probs``, have NaN in their
    places. The policy itself is never touched. If it changes in the midst of the rollout, each step is evaluated by the
    policy that acted.

    :param policy: one of which :func:`can_act_alone` is true
    :param buffer: SB3's rollout buffer, which the actions go to, one step after another
    :param n_envs: number of environments
    :param make_layers: makes the layers that evaluate: in the precision in which the update will look at the same actions
    """

    def __init__(
        self, policy: ActorCriticPolicy, buffer: RolloutBuffer, n_envs: int, make_layers: MakeLayers = layers_of
    ) -> None:
        self._networks, self._buffer = MlpActorCritic(policy), buffer
        self._networks_to_evaluate = MlpActorCritic(policy, make_layers)
        self._parameters = self._networks.parameters
        # The smallest parameters, as arrays on the same memory
        ends = [self._networks.actor.parameters[-1], self._networks.critic.parameters[-1], self._parameters[0]]
        self._ends = [each.detach().numpy() for each in ends if each.device.type == "cpu"]
        shape = policy.action_space.shape
        assert shape is not None
        self._shape = (-1, *shape) if isinstance(policy.action_space, spaces.Box) and len(shape) != 1 else None
        self.values, self.log_probs = th.full((n_envs, 1), th.nan), th.full((n_envs,), th.nan)
        for array in (buffer.values, buffer.log_probs):
            array.fill(np.nan)
        self._evaluated = 0  # rows of the buffer
        self._is_validated = False  # the distribution, in full
        self._keep_policy()

    def act(self, observations: th.Tensor) -> th.Tensor:
        """
        :param observations: observations of the environments, shape (n_envs, observations)
        :return: actions in the shape of the action space, drawn from PyTorch's global generator as SB3 draws them
        :raises ValueError: if the distribution of actions is not valid: SB3's error
        """
        if self._traces() != self._kept_traces:
            self.evaluate()
        distribution, outputs = self._networks.distribution, self._networks.actor.outputs(self._networks.inputs(observations))
        if not self._is_validated:
            distribution.distribution(outputs)
            self._is_validated = True
        actions = distribution.sample(outputs)
        return actions if self._shape is None else actions.reshape(self._shape)

    def store(self, observations: np.ndarray, actions: np.ndarray, rewards: np.ndarray, episode_starts: np.ndarray) -> None:
        """
        Add a step to the buffer, as its ``add`` does, but for values and log-probabilities.

        :param observations: shape (n_envs, observations)
        :param actions: shape (n_envs, ...)
        :param rewards: shape (n_envs,)
        :param episode_starts: whether the observations are the first of an episode, shape (n_envs,)
        """
        buffer, row = self._buffer, self._buffer.pos
        buffer.observations[row] = observations
        buffer.actions[row] = actions.reshape(buffer.n_envs, buffer.action_dim)
        buffer.rewards[row] = rewards
        buffer.episode_starts[row] = episode_starts
        buffer.pos += 1
        buffer.full = buffer.pos == buffer.buffer_size

    def stop(self) -> None:
        """Evaluate the steps that there are; the rows of the others are zeros, as SB3 leaves them."""
        self.evaluate()
        for array in (self._buffer.values, self._buffer.log_probs):
            array[self._evaluated :] = 0

    @th.no_grad()
    def evaluate(self) -> None:
        """Store the values and log-probabilities of all steps that the buffer has got since the last call."""
        buffer, end = self._buffer, self._buffer.buffer_size if self._buffer.full else self._buffer.pos
        rows = slice(self._evaluated, end)
        if end > self._evaluated:
            observations = buffer.to_torch(buffer.observations[rows].reshape(-1, *buffer.obs_shape), copy=False)
            actions = buffer.to_torch(buffer.actions[rows].reshape(-1, buffer.action_dim), copy=False)
            batches = zip(observations.split(_BATCH), actions.split(_BATCH), strict=True)
            values, log_probs = map(th.cat, zip(*(self._policy.evaluate(*batch) for batch in batches), strict=True))
            for array, tensor in ((buffer.values, values), (buffer.log_probs, log_probs)):
                array[rows] = tensor.reshape(array[rows].shape).cpu().numpy()
        if self._traces() == self._kept_traces:
            self._look_for_changes_without_a_trace()
        self._evaluated = end
        self._keep_policy()

    def _keep_policy(self) -> None:
        self._policy, self._kept_traces = self._networks_to_evaluate.copy(), self._traces()
        self._policy.prepare()
        self._is_validated = False

    def _traces(self) -> list[Any]:
        """PyTorch counts what is done to a tensor in place, but for what is done to its ``.data``."""
        return [each._version for each in self._parameters] + [each.tobytes() for each in self._ends]

    def _look_for_changes_without_a_trace(self) -> None:
        pairs = zip(self._policy.parameters, self._parameters, strict=True)
        if not all(th.allclose(old, new, rtol=0, atol=0, equal_nan=True) for old, new in pairs):
            warn(
                "The policy was changed during a rollout through its parameters' .data, which leaves no trace of when: the "
                "rollout's values and log-probabilities are those of the policy before. Change it under torch.no_grad(), or "
                "use fused=False"
            )


def can_act_alone(policy: ActorCriticPolicy, buffer: RolloutBuffer) -> bool:
    """
    :param policy: any policy
    :param buffer: any rollout buffer
    :return: whether :class:`DeferredEvaluation` can be used with them
    """
    # One with an add() of its own is to be asked; one of integers does not hold what a normalizer makes of the observations
    return (
        type(buffer) is RolloutBuffer
        and "add" not in vars(buffer)
        and buffer.observation_space.dtype in (np.float32, np.float64)
        and is_mlp_actor_critic(policy)
    )
