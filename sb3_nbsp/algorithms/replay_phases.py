"""What a phase means for an agent that learns from a replay buffer: D, the probe at a task, the warm-up."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import RolloutReturn, TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_nbsp.algorithms.phases import PhasedAlgorithm
from sb3_nbsp.algorithms.replay_file import PersistentMemory
from sb3_nbsp.interventions import Phase
from sb3_nbsp.interventions.observations import can_sample
from sb3_nbsp.interventions.rollout import renew_noise
from sb3_nbsp.tasks.callback_tree import announce_end

# Buffers that reset() empties
_WITHOUT_OTHER_STATE = (ReplayBuffer, DictReplayBuffer, NStepReplayBuffer)


class PhasedReplay(PhasedAlgorithm, PersistentMemory):
    """An off-policy algorithm that follows phases: D is emptied at the start of each, and the agent warms up again."""

    phase_options: ClassVar[dict[str, Any]] = {
        "clear_replay_buffer": True,
        "phase_learning_starts": None,
        "reset_optimizers": False,
        "reset_critics": False,
        "reset_ent_coef": False,
        "known_task_threshold": None,
    }

    clear_replay_buffer: bool
    phase_learning_starts: int | None
    known_task_threshold: float | None
    probe_episodes: int

    def _init_phases(self) -> None:
        super()._init_phases()
        # A phase other than the first begins with a probe at what the policy can do already
        self._is_probing = False
        self._probe: list[bool] = []  # success of the episodes of the probe
        self._warmup_end = 0  # phase_steps after which this phase learns
        self._is_known = False  # is the policy good enough to act in the warm-up?
        # Environment steps of the agent's life, whose count learn() begins anew, and those that train_further() stands for
        self._life_steps = 0
        # Of the rollout under way: steps of each environment, episodes, and gradient steps that were made ahead of its end
        self._rollout_steps, self._rollout_episodes, self._made_early = 0, 0, 0
        # Is training to stop at the next boundary, and has it?
        self._pauses, self._is_paused = False, False

    def pause_at_boundary(self) -> None:
        """
        Make ``learn()`` return at the next boundary between two phases, before the agent handles it: interventions have not
        been notified of the end of the phase, and D still contains its transitions. The next call of ``learn()`` begins with
        the end of the phase, also if the agent was saved and loaded in between.
        """
        self._pauses = True

    def start_phase(self, task: str) -> None:
        """Announce that another task begins, see :meth:`PhasedAlgorithm.start_phase`."""
        self._check_hindsight()
        super().start_phase(task)

    def _check_combination(self) -> None:
        super()._check_combination()
        if self._has_phases() or self.phase.task != "":
            self._check_hindsight()

    def _check_hindsight(self) -> None:
        """Complain of hindsight about earlier tasks. Called when it is known that there are several."""
        if isinstance(self.replay_buffer, HerReplayBuffer) and not self.clear_replay_buffer:
            raise ValueError(
                "replay_buffer_class: HerReplayBuffer relabels with the rewards of the task at hand, which would be wrong for "
                "transitions of earlier tasks. Use clear_replay_buffer=True (PerfectMemory sets it to False)"
            )

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_pauses", "_is_paused"]

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        if self._crossed.any():
            # Steps on two tasks at once belong to no phase as a whole and are left out
            self._last_obs = new_obs
            if self._vec_normalize_env is not None:
                self._last_original_obs = self._vec_normalize_env.get_original_obs()
        else:
            super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
            self.phase_steps += self.n_envs
            raw_reward = reward if self._vec_normalize_env is None else self._vec_normalize_env.get_original_reward()
            self.all_interventions.on_transition(raw_reward, dones, infos)
            if self._is_probing:
                self._follow_probe(dones, infos)
        self._rollout_steps += 1
        self._life_steps += self.n_envs
        self._rollout_episodes += int(np.sum(dones))
        if self._has_phases():
            self._follow_boundaries(dones, infos)

    def _on_boundary(self, following: tuple[int, str] | None) -> None:
        if not self._is_paused:
            self._train_ahead_of_boundary()
        if self._is_paused or (self._pauses and following is not None):
            self._pauses, self._is_paused = False, True
            self._crossed[:] = True  # a rollout of many steps goes on, but its steps belong to no phase
            return
        super()._on_boundary(following)

    def _train_ahead_of_boundary(self) -> None:
        """
        Make the gradient steps that are due for the steps since the last ones. A rollout of many steps (``train_freq``) goes
        on in the next phase, at whose start D is emptied: what was collected last would never be learned from.
        """
        assert isinstance(self.train_freq, TrainFreq)
        by_episode = self.train_freq.unit == TrainFrequencyUnit.EPISODE
        share = (self._rollout_episodes if by_episode else self._rollout_steps) / self.train_freq.frequency
        due = self._rollout_steps * self.n_envs if self.gradient_steps < 0 else round(self.gradient_steps * share)
        if due > 0 and self.num_timesteps > self.learning_starts:
            self.train(due, self.batch_size)
            self._made_early += due
            self.policy.set_training_mode(False)  # the rollout continues

    def train_further(self, gradient_steps: int) -> None:
        """
        Make gradient steps in addition to those for environment steps, as an intervention does at the end of a phase. Where
        environment steps are counted, each of them counts as in ordinary training: target critics move as often.

        :param gradient_steps: number of gradient steps on D, which holds at least one transition
        """
        before = self._made_early, self._rollout_steps
        self._made_early, self._rollout_steps = 0, self._steps_for(gradient_steps)
        self._life_steps += self._rollout_steps * self.n_envs
        try:
            self.train(gradient_steps, self.batch_size)
        finally:
            self._made_early, self._rollout_steps = before
        self.policy.set_training_mode(False)

    def _steps_for(self, gradient_steps: int) -> int:
        """Steps of each environment after which ordinary training would have made so many gradient steps."""
        assert isinstance(self.train_freq, TrainFreq)
        if self.gradient_steps < 0:
            return math.ceil(gradient_steps / self.n_envs)
        rollout = float(self.train_freq.frequency)
        if self.train_freq.unit == TrainFrequencyUnit.EPISODE:  # episodes are taken to be as long as the last ones
            rollout *= self._rollout_steps / max(self._rollout_episodes, 1)
        return math.ceil(gradient_steps * rollout / max(self.gradient_steps, 1))

    def _still_due(self, gradient_steps: int) -> int:
        """
        :param gradient_steps: gradient steps of a whole rollout
        :return: those that were not made ahead of a boundary in it
        """
        made, self._made_early = self._made_early, 0
        return gradient_steps - made

    def _start_phase(self, phase: Phase) -> None:
        """A phase starts: D is emptied, and the agent probes or warms up."""
        self.phase, self._phase_over, self.phase_steps = phase, False, 0
        if self.clear_replay_buffer:
            self._empty_replay_buffer()
        else:
            self._cut_trajectories()
        self._probe, self._is_probing = [], self.known_task_threshold is not None
        if self._is_probing:
            renew_noise(self, 0, self.n_envs)
        else:
            self._end_probe(is_known=False)
        self.all_interventions.on_phase_start(self.phase)

    def _empty_replay_buffer(self) -> None:
        """
        Empty D. A buffer with state of its own, as HER's records of episodes, is made anew, as ``reset()`` knows nothing of
        it. It remains the same object, which SB3's loop and callbacks hold on to.
        """
        buffer = self.replay_buffer
        assert buffer is not None
        if type(buffer) in _WITHOUT_OTHER_STATE or type(buffer) is not self.replay_buffer_class:
            buffer.reset()
            return
        self.remake_replay_buffer(buffer.buffer_size * buffer.n_envs)

    def _cut_trajectories(self) -> None:
        """
        The transitions to come do not follow those in D, whose last may be in the midst of an episode. n-step returns and
        next observations that are stored once would go on in the next task.
        """
        buffer = self.replay_buffer
        assert buffer is not None
        last = (buffer.pos - 1) % buffer.buffer_size
        if buffer.optimize_memory_usage:
            buffer.dones[last] = 1.0  # as SB3 does where it resets the environment
        elif isinstance(buffer, NStepReplayBuffer):
            buffer.timeouts[last] = np.logical_or(buffer.timeouts[last], np.logical_not(buffer.dones[last]))

    def remake_replay_buffer(self, size: int) -> None:
        """
        Empty D by initializing it again; it stays the same object.

        :param size: its capacity in transitions
        """
        buffer = self.replay_buffer
        assert buffer is not None
        kwargs = dict(self.replay_buffer_kwargs)
        if isinstance(buffer, HerReplayBuffer):
            kwargs["env"] = self.env
        type(buffer).__init__(
            buffer,
            size,
            self.observation_space,
            self.action_space,
            device=self.device,
            n_envs=buffer.n_envs,
            optimize_memory_usage=self.optimize_memory_usage,
            **kwargs,
        )

    def _follow_probe(self, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """Count the successes of the probe, and end it as soon as its outcome is certain."""
        threshold = self.known_task_threshold if self.known_task_threshold is not None else 1.0
        ended = [_is_success(info) for done, info in zip(dones, infos, strict=True) if done]
        self._probe += [bool(success) for success in ended]
        if ended:
            renew_noise(self, 0, self.n_envs)  # or a rollout of several episodes would have one noise
        needed = math.ceil(threshold * self.probe_episodes - 1e-9)  # 0.28 * 25 is a little more than 7
        is_known = sum(self._probe) >= needed
        is_new = None in ended or self._probe.count(False) > self.probe_episodes - needed
        if is_known or is_new:
            self._is_probing = False
            self.logger.record("phase/known", float(is_known))
            self._end_probe(is_known)

    def _end_probe(self, is_known: bool) -> None:
        """
        Warm up: where the policy knows the task, it fills D itself, and continues from what it can do. Otherwise actions are
        random from here on, and what the agent was told to reset is reset.
        """
        warmup = self.learning_starts if self.phase_learning_starts is None else self.phase_learning_starts
        self._is_known = is_known
        self._warmup_end = warmup if is_known else self.phase_steps + warmup
        if not is_known:
            self._reset_for_phase()

    def _reset_for_phase(self) -> None:
        """What else an algorithm resets when a phase starts."""

    def _is_warming_up(self) -> bool:
        """Whether a phase other than the first is too young to learn. (Of the first, SB3 takes care.)"""
        if self.phase.index == 0:
            return False
        assert self.replay_buffer is not None
        batch = min(self.batch_size, self.replay_buffer.buffer_size * self.n_envs)
        has_batch = self.replay_buffer.size() * self.n_envs >= batch and can_sample(self.replay_buffer)
        return self._is_probing or self.phase_steps <= self._warmup_end or not has_batch

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.phase.index > 0:
            is_random = not self._is_probing and not self._is_known and self.phase_steps < self._warmup_end
            if is_random and (actions := self._warmup_actions()) is not None:
                is_box = isinstance(self.action_space, spaces.Box)
                return actions, self.policy.scale_action(actions) if is_box else actions
            learning_starts = self.num_timesteps + 1 if is_random else 0
        return super()._sample_action(learning_starts, action_noise, n_envs)

    def _warmup_actions(self) -> np.ndarray | None:
        assert self._last_obs is not None
        assert not isinstance(self._last_obs, tuple)
        return self.all_interventions.warmup_actions(self._last_obs)

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback, *args: Any, **kwargs: Any) -> RolloutReturn:
        """Collect experience, see SB3; training stops when the task sequence is over, or where it is to pause."""
        self._show_phase(callback)
        self._rollout_steps, self._rollout_episodes, self._made_early = 0, 0, 0
        rollout = RolloutReturn(0, 0, False)
        if not self._sequence_over:  # otherwise, learn() has ended it with the reset that it begins with
            rollout = super().collect_rollouts(env, callback, *args, **kwargs)
        is_paused, self._is_paused = self._is_paused, False
        if is_paused or self._sequence_over or not rollout.continue_training:
            self._made_early = 0  # no train() follows
        if is_paused:
            return rollout._replace(continue_training=False)
        if not self._sequence_over:
            return rollout
        announce_end(callback, self.num_timesteps)
        return rollout._replace(continue_training=False)


def _is_success(info: dict[str, Any]) -> bool | None:
    """Of the episode; None if the environment does not say, as with NaN."""
    report = info.get("is_success")
    return bool(report) if report is not None and bool(report == report) else None  # NaN is not equal to itself


def reset_optimizer(optimizer: th.optim.Optimizer) -> None:
    """
    Forget an optimizer's moments.

    :param optimizer: the optimizer
    """
    optimizer.state.clear()
