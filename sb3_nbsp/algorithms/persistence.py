"""Save and load an agent with the state of its interventions."""

from __future__ import annotations

import io
import pathlib
import pickle
from typing import Any, TypeVar

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.type_aliases import MaybeCallback, TensorDict

from sb3_nbsp.files import atomic_path
from sb3_nbsp.interventions import Interventions
from sb3_nbsp.messages import warn
from sb3_nbsp.tasks.recognize import ages

Self = TypeVar("Self", bound="PersistentAlgorithm")
File = str | pathlib.Path | io.BufferedIOBase


class PersistentAlgorithm(BaseAlgorithm):
    """
    An algorithm whose interventions' state travels inside the model's zip. Files of plain SB3 load too.

    Where an environment changes with its steps (it has ``elapsed_steps``, ``set_elapsed_steps()`` and a true
    ``sb3_nbsp_ages``, as :class:`~sb3_nbsp.tasks.CycleFriction` has), a loaded agent that continues
    (``learn(reset_num_timesteps=False)``) puts a new one where that of the saved agent was. No environment is ever put
    back: ``learn(reset_num_timesteps=True)`` begins the agent's count anew, but goes on in the environment as it is.
    """

    hooks: Interventions
    _keep_counting = False
    _learns_normalized: bool | None = None  # are its observations normalized? None before it has learned
    _env_lead = 0  # steps by which the environments are older than the agent's count: their start_step, other agents' steps

    def keep_counting(self) -> None:
        """Make the next call of ``learn()`` continue the count of steps, whatever its ``reset_num_timesteps`` says."""
        self._keep_counting = True

    def _begins_anew(self, reset_num_timesteps: bool) -> bool:
        """Whether this call of ``learn()`` begins the count of steps anew; asked once in each."""
        keep, self._keep_counting = self._keep_counting, False
        return reset_num_timesteps and not keep

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> Any:
        assert self.env is not None, "set_env() must be called before learn()"
        if ages(self.env):
            self._age_environments(reset_num_timesteps)  # before they are reset
        self._warn_of_other_observations()
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)

    def _warn_of_other_observations(self) -> None:
        """A policy that has learned on normalized observations knows no others, and the other way round."""
        normalizer = self.get_vec_normalize_env()
        is_normalized = normalizer is not None and normalizer.norm_obs
        before, self._learns_normalized = self._learns_normalized, is_normalized
        if before is not None and before != is_normalized:
            known, others = ("normalized", "which are not") if before else ("raw", "which are normalized")
            warn(
                f"The agent has learned on {known} observations and continues on others, {others}: its policy does not know "
                "them. VecNormalize.load() with the statistics that were saved with the agent makes its environment, and "
                "sb3_nbsp.tasks.load_checkpoint() does so for a SequenceCheckpoint"
            )

    def _age_environments(self, begins_anew: bool) -> None:
        """Put environments that are younger than the agent where those that it learned in were."""
        assert self.env is not None
        own_steps = 0 if begins_anew else self.num_timesteps // self.n_envs  # per environment
        expected = 0 if begins_anew else own_steps + self._env_lead
        found = self.env.get_attr("elapsed_steps")
        for index, age in enumerate(found):
            if age < expected:
                self.env.env_method("set_elapsed_steps", expected, indices=index)
        self._env_lead = max(expected, *found) - own_steps

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        """
        SB3's share of the training that is left, which schedules depend on, but never below 0: the last rollout goes past the
        total unless that is a multiple of its length, and a linear schedule would become negative.
        """
        super()._update_current_progress_remaining(num_timesteps, total_timesteps)
        self._current_progress_remaining = max(0.0, self._current_progress_remaining)

    def save(self, path: File, exclude: Any = None, include: Any = None) -> None:
        """
        Save the model, as SB3 does, but under a temporary name that is then renamed.

        :param path: where to save; ".zip" is appended if it has no suffix
        :param exclude: see SB3
        :param include: see SB3
        """
        if not isinstance(path, (str, pathlib.Path)):
            super().save(path, exclude, include)
            return
        with atomic_path(_with_suffix(path, "zip")) as temporary:
            super().save(temporary, exclude, include)

    @classmethod
    def load(cls: type[Self], path: File, *args: Any, **kwargs: Any) -> Self:
        """
        Load a model, see SB3. A zip of the plain SB3 algorithm loads as well; its interventions start afresh.

        :param path: the zip file
        :param args: see SB3
        :param kwargs: see SB3; attributes to replace
        :return: the model
        :raises ValueError: if the file is corrupt or holds another kind of model
        """
        try:
            return super().load(path, *args, **kwargs)
        except (AttributeError, KeyError, TypeError, AssertionError, EOFError, pickle.UnpicklingError) as error:
            # SB3 answers a ValueError of set_parameters() with a KeyError of its own
            reason = error.__context__ if isinstance(error, KeyError) and error.__context__ else error
            raise ValueError(f"{path} does not hold a model that {cls.__name__} can load: {reason}") from error

    def set_parameters(
        self, load_path_or_dict: str | TensorDict, exact_match: bool = True, device: th.device | str = "auto"
    ) -> None:
        """
        Load parameters, see SB3. Where the interventions' state is missing, it stays as it is.

        :param load_path_or_dict: a file or :meth:`get_parameters`'s result
        :param exact_match: see SB3
        :param device: see SB3
        """
        if isinstance(load_path_or_dict, dict):
            parameters = dict(load_path_or_dict)
        else:
            parameters = load_from_zip_file(load_path_or_dict, device=device, load_data=False)[1]
        parameters.setdefault("hooks", self.hooks.state_dict())  # type: ignore[arg-type]
        super().set_parameters(parameters, exact_match, device)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "hooks", "_keep_counting"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, tensors = super()._get_torch_save_params()
        return [*state_dicts, "hooks"], tensors


class PersistentMemory(PersistentAlgorithm, OffPolicyAlgorithm):
    """An off-policy algorithm whose interventions' memory travels inside the replay buffer's pickle."""

    def save_replay_buffer(self, path: File) -> None:
        """
        Save the replay buffer and, with it, what the interventions remember of earlier tasks.

        :param path: where to save; ".pkl" is appended if it has no suffix
        """
        assert self.replay_buffer is not None
        self.replay_buffer.intervention_memory = self.hooks.memory_state()  # type: ignore[attr-defined]
        try:
            if isinstance(path, (str, pathlib.Path)):
                with atomic_path(_with_suffix(path, "pkl")) as temporary:
                    super().save_replay_buffer(temporary)
            else:
                super().save_replay_buffer(path)
        finally:
            del self.replay_buffer.intervention_memory  # type: ignore[attr-defined]

    def load_replay_buffer(self, path: File, truncate_last_traj: bool = True) -> None:
        """
        Load what :meth:`save_replay_buffer` saved, or a replay buffer of plain SB3.

        :param path: the pickle
        :param truncate_last_traj: see SB3
        :raises ValueError: if the file is corrupt, no replay buffer, or of another shape; the
            agent's buffers then stay as they are
        """
        own = self.replay_buffer
        assert own is not None
        try:
            super().load_replay_buffer(path, truncate_last_traj)
            assert self.replay_buffer is not None
            _check_same_shape(self.replay_buffer, own)
            self.hooks.load_memory_state(vars(self.replay_buffer).pop("intervention_memory", {}))
        except FileNotFoundError:
            raise
        except Exception as error:
            self.replay_buffer = own
            raise ValueError(f"{path} does not hold a replay buffer for this agent: {error}") from error


def _with_suffix(path: str | pathlib.Path, suffix: str) -> pathlib.Path:
    path = pathlib.Path(path)
    return path if path.suffix else path.with_name(f"{path.name}.{suffix}")


def _check_same_shape(loaded: ReplayBuffer, own: ReplayBuffer) -> None:
    for name in ("obs_shape", "action_dim", "n_envs"):
        if getattr(loaded, name) != getattr(own, name):
            raise ValueError(f"its {name} is {getattr(loaded, name)}, the agent's is {getattr(own, name)}")
