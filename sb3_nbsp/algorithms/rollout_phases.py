"""What a phase means for an agent that learns from rollouts: its interventions hear of it between a rollout and its update."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_nbsp.algorithms.phases import PhasedAlgorithm
from sb3_nbsp.tasks.callback_tree import announce_end


def _copied(value: Any) -> Any:
    """Arrays, lists and dictionaries anew; whatever else an environment says as it is."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value.copy() if isinstance(value, np.ndarray) else value


class PhasedRollouts(PhasedAlgorithm, OnPolicyAlgorithm):
    """
    An on-policy algorithm that follows phases. A boundary lies in the midst of a rollout, whose policy has to stay as it is.
    So what happens in a rollout is told when it is full, in order, and before it is learned from: at the end of a phase the
    policy has not learned from any step of the next one, and the rollout buffer holds the rollout with the boundary in it.
    """

    _tells_transitions = False  # whether an intervention wants them

    def _init_phases(self) -> None:
        super()._init_phases()
        self._to_tell: list[Callable[[], None]] = []

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_to_tell", "_rollout_callback", "_tells_transitions"]

    def __getstate__(self) -> dict[str, Any]:
        """A copy begins with a rollout of its own: see :meth:`PersistentAlgorithm.__getstate__`."""
        state = {**super().__getstate__(), "_to_tell": []}
        state.pop("_rollout_callback", None)
        return state

    def collect_rollouts(self, env: Any, callback: BaseCallback, *args: Any, **kwargs: Any) -> bool:
        """Fill the rollout buffer, see SB3; training stops after the update on the rollout in which the sequence ends."""
        if self._sequence_over:
            announce_end(callback, self.num_timesteps)
            return False
        self._show_phase(callback)
        self._rollout_callback = callback
        self._tells_transitions = any(each.overrides("on_transition") for each in self.all_interventions)
        return super().collect_rollouts(env, callback, *args, **kwargs)

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray | None = None) -> None:
        """SB3 calls this after every step."""
        super()._update_info_buffer(infos, dones)
        assert dones is not None
        if not self._tells_transitions and not self._has_phases():
            self._count_transition()  # nobody else wants to hear of it, and there is no boundary to be told before
            return
        if not self._crossed.any() and not self._sequence_over:
            self._to_tell.append(self._note_transition(dones, infos))
        if self._has_phases() and not self._sequence_over:
            self._follow_boundaries(dones, infos)

    def _note_transition(self, dones: np.ndarray, infos: list[dict[str, Any]]) -> Callable[[], None]:
        """What to do about a transition later; it is kept for interventions that want it only."""
        if not self._tells_transitions:
            return self._count_transition
        rewards = self._rollout_callback.locals["rewards"]
        raw_rewards = rewards if self._vec_normalize_env is None else self._vec_normalize_env.get_original_reward()
        # Copies, as SB3 is about to add the value of what was cut off, and environments may write into what they returned
        return partial(self._tell_transition, _copied(raw_rewards), _copied(dones), _copied(infos))

    def _count_transition(self) -> None:
        self.phase_steps += self.n_envs

    def _tell_transition(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        self._count_transition()
        self.all_interventions.on_transition(rewards, dones, infos)

    def _on_boundary(self, following: tuple[int, str] | None) -> None:
        self._to_tell.append(partial(super()._on_boundary, following))

    def _deliver(self) -> None:
        told, self._to_tell = self._to_tell, []
        for tell in told:
            tell()
