"""Fresh steps of the trained policy, acting without learning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv
from tqdm.auto import tqdm

from sb3_nbsp.interventions.compressed_buffer import CompressedReplayBuffer
from sb3_nbsp.interventions.goal_window import GoalWindow
from sb3_nbsp.random_states import drawing_from
from sb3_nbsp.tasks.sequence import TaskSequence

# Where SB3's gSDE keeps its noise
_NOISE = ("weights_dist", "exploration_mat", "exploration_matrices")


def has_own_spaces(agent: OffPolicyAlgorithm, make_env: Callable[[], gym.Env]) -> bool:
    """
    :param agent: the agent
    :param make_env: makes an environment
    :return: whether its spaces are the agent's: wrappers around a whole sequence are not part of its tasks
    """
    env = agent._wrap_env(make_env(), monitor_wrapper=True)
    env.close()
    return bool(env.observation_space == agent.observation_space and env.action_space == agent.action_space)


def fresh_steps(
    agent: OnPolicyAlgorithm | OffPolicyAlgorithm,
    make_env: Callable[[], gym.Env],
    n_steps: int,
    seed: int,
    window: GoalWindow,
    progress_bar: bool = False,
) -> ReplayBuffer:
    """
    Act with the agent's stochastic policy in an environment of its own. The agent and the global
    random streams stay as they are. With gSDE, every episode has noise of its own, and new noise after every
    ``sde_sample_freq`` of its steps.

    :param agent: the agent
    :param make_env: makes the environment
    :param n_steps: steps to act
    :param seed: seed of the environment and of the policy's noise
    :param window: filled with the goal metric of the steps
    :param progress_bar: show the steps on a bar
    :return: the observations (as the environment gives them) and actions (continuous ones scaled to [-1, 1])
    :raises ValueError: if the environment's spaces are not the agent's
    """
    env = agent._wrap_env(make_env(), monitor_wrapper=True)
    if env.observation_space != agent.observation_space or env.action_space != agent.action_space:
        raise ValueError(
            f"The task's own environment has the spaces {env.observation_space}, {env.action_space} but the agent has "
            f"{agent.observation_space}, {agent.action_space}: wrappers around the whole sequence are not part of it. "
            "Use identification_data='training'"
        )
    assert isinstance(env.unwrapped, DummyVecEnv)
    window.of_sequence = isinstance(env.unwrapped.envs[0].unwrapped, TaskSequence)
    normalizer = agent.get_vec_normalize_env()
    is_box = isinstance(agent.action_space, spaces.Box)
    is_compressed = isinstance(getattr(agent, "replay_buffer", None), CompressedReplayBuffer)
    plain = DictReplayBuffer if isinstance(agent.observation_space, spaces.Dict) else ReplayBuffer
    make_buffer: type[ReplayBuffer] = CompressedReplayBuffer if is_compressed else plain
    buffer = make_buffer(n_steps, agent.observation_space, agent.action_space, device=agent.device)
    with drawing_from(seed, agent.device), kept_noise(agent):
        env.seed(seed)
        observations: Any = env.reset()
        episode_steps = 0
        for _ in tqdm(range(n_steps), desc="identification", unit="step", leave=False, disable=not progress_bar):
            renew_noise(agent, episode_steps)
            seen = normalizer.normalize_obs(observations) if normalizer is not None else observations
            actions, _ = agent.predict(seen, deterministic=False)
            following, rewards, dones, infos = env.step(actions)
            # The state after a step plays no part in identification
            stored = agent.policy.scale_action(actions) if is_box else actions
            buffer.add(observations, observations, stored, rewards, np.asarray(dones), infos)
            window.add(rewards, np.asarray(dones), infos)
            observations = following
            episode_steps = 0 if dones[0] else episode_steps + 1
    env.close()
    return buffer


def renew_noise(agent: OnPolicyAlgorithm | OffPolicyAlgorithm, episode_steps: int, n_envs: int = 1) -> None:
    """
    Draw gSDE's noise anew where it is due: at the start of an episode, and every ``sde_sample_freq`` steps.

    :param agent: an agent, with gSDE or without
    :param episode_steps: steps of the episode so far
    :param n_envs: number of parallel environments
    """
    frequency = agent.sde_sample_freq
    if agent.use_sde and (episode_steps == 0 or (frequency > 0 and episode_steps % frequency == 0)):
        _explorer(agent).reset_noise(n_envs)


@contextmanager
def kept_noise(agent: OnPolicyAlgorithm | OffPolicyAlgorithm) -> Iterator[None]:
    """
    Whatever noise gSDE draws within this context, the agent afterwards has the noise that it had before.

    :param agent: an agent, with gSDE or without
    """
    noise: Any = getattr(_explorer(agent), "action_dist", None)
    before = {name: vars(noise)[name] for name in _NOISE} if agent.use_sde else {}
    try:
        yield
    finally:
        if agent.use_sde:
            vars(noise).update(before)


def _explorer(agent: OnPolicyAlgorithm | OffPolicyAlgorithm) -> Any:
    """The module that draws the noise: SAC's actor, PPO's policy."""
    return getattr(agent.policy, "actor", agent.policy)
