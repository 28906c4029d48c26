"""Save and load a replay buffer with what interventions remember of earlier tasks."""

from __future__ import annotations

import pathlib

from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.preprocessing import get_action_dim, get_obs_shape
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_nbsp.algorithms.model_file import File, with_suffix
from sb3_nbsp.algorithms.persistence import PersistentAlgorithm
from sb3_nbsp.files import atomic_path
from sb3_nbsp.messages import warn


class PersistentMemory(PersistentAlgorithm, OffPolicyAlgorithm):
    """An off-policy algorithm whose interventions' memory travels inside the replay buffer's pickle."""

    def save_replay_buffer(self, path: File) -> None:
        """
        Save the replay buffer and the interventions' memory of earlier tasks.

        :param path: where to save; ".pkl" is appended if it has no suffix
        """
        assert self.replay_buffer is not None, "The replay buffer is not defined"
        self.replay_buffer.intervention_memory = self.all_interventions.memory_state()  # type: ignore[attr-defined]
        try:
            if isinstance(path, (str, pathlib.Path)):
                with atomic_path(with_suffix(path, "pkl")) as temporary:
                    super().save_replay_buffer(temporary)
            else:
                super().save_replay_buffer(path)
        finally:
            del self.replay_buffer.intervention_memory  # type: ignore[attr-defined]

    def load_replay_buffer(self, path: File, truncate_last_traj: bool = True) -> None:
        """
        Load what :meth:`save_replay_buffer` saved, or a replay buffer of plain SB3. The interventions' memory also
        loads into an agent with another number of environments; the replay buffer then starts empty, with a warning.

        :param path: the pickle
        :param truncate_last_traj: see SB3
        :raises ValueError: if the file is corrupt, not a replay buffer, or of another shape; the
            agent's buffers then stay unchanged
        """
        own: ReplayBuffer | None = vars(self).get("replay_buffer")
        try:
            super().load_replay_buffer(path, truncate_last_traj)
            assert self.replay_buffer is not None
            memory = vars(self.replay_buffer).pop("intervention_memory", None)
            is_without_memory = memory is None and not self.all_interventions.memory_state()
            memory = memory or {}
            self._check_same_spaces(self.replay_buffer)
            n_envs = self.replay_buffer.n_envs
            if n_envs != self.n_envs:
                if not memory:
                    raise ValueError(f"its n_envs is {n_envs}, the agent's is {self.n_envs}")
                self.replay_buffer = self._new_replay_buffer()
            self.all_interventions.load_memory_state(memory)
        except FileNotFoundError:
            raise
        except Exception as error:
            self.replay_buffer = own
            raise ValueError(f"{path} does not hold a replay buffer for this agent: {error}") from error
        assert self.replay_buffer is not None
        if self.replay_buffer.buffer_size != max(self.buffer_size // self.n_envs, 1):
            kept = self.replay_buffer.buffer_size * self.n_envs
            warn(f"{path} holds a replay buffer for {kept} transitions: buffer_size={self.buffer_size} has no effect")
            self.buffer_size = kept
        remembering = [type(each).__name__ for each in self.all_interventions if each.overrides("memory_state")]
        if is_without_memory and remembering and getattr(self, "n_finished_phases", 0) > 0:
            warn(f"{path} was saved by plain SB3 and holds no memory: {', '.join(remembering)} knows nothing of earlier tasks")
        if n_envs != self.n_envs:
            warn(
                f"{path} was saved with {n_envs} environments, the agent has {self.n_envs}: the replay buffer starts empty, "
                f"only what {', '.join(memory)} had kept of earlier tasks is loaded"
            )

    def _check_same_spaces(self, loaded: ReplayBuffer) -> None:
        expected = {"obs_shape": get_obs_shape(self.observation_space), "action_dim": get_action_dim(self.action_space)}
        for name, own in expected.items():
            if getattr(loaded, name) != own:
                raise ValueError(f"its {name} is {getattr(loaded, name)}, the agent's is {own}")

    def _new_replay_buffer(self) -> ReplayBuffer:
        """As SB3 makes it."""
        assert self.replay_buffer_class is not None
        kwargs = dict(self.replay_buffer_kwargs)
        if issubclass(self.replay_buffer_class, HerReplayBuffer):
            kwargs["env"] = self.env
        return self.replay_buffer_class(
            self.buffer_size,
            self.observation_space,
            self.action_space,
            device=self.device,
            n_envs=self.n_envs,
            optimize_memory_usage=self.optimize_memory_usage,
            **kwargs,
        )
