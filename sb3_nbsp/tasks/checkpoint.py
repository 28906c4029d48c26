"""Checkpoints from which a killed run continues: the model with all that it needs to resume."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, TypeVar

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, VecTransposeImage, unwrap_vec_normalize

from sb3_nbsp.checks import whole
from sb3_nbsp.messages import warn
from sb3_nbsp.random_states import load_random_states, restore_random_states, save_random_states
from sb3_nbsp.tasks.recognize import ages, has_phases

Algorithm = TypeVar("Algorithm", bound=BaseAlgorithm)

_NAME = re.compile(r"checkpoint_(\d+)_steps")
_MODEL, _BUFFER, _NORMALIZATION, _POSITION = "model.zip", "replay_buffer.pkl", "vecnormalize.pkl", "position.json"
_RANDOM = "random_states.pt"


def latest_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """
    The last complete checkpoint in a folder.

    :param folder: where :class:`SequenceCheckpoint` writes
    :return: the checkpoint's own folder, for :func:`load_checkpoint`; None if there is none
    """
    found = [
        (int(match[1]), path) for path in Path(folder).glob("checkpoint_*_steps") if (match := _NAME.fullmatch(path.name))
    ]
    return max(found)[1] if found else None


def save_checkpoint(model: BaseAlgorithm, folder: str | os.PathLike[str]) -> Path:
    """
    Write a checkpoint and remove the older ones. A run that is killed meanwhile leaves the last one whole.

    :param model: the agent, of this package or any of SB3's
    :param folder: where to write
    :return: the checkpoint's own folder, with ``model.zip`` and, where there are such things, ``replay_buffer.pkl``,
        ``vecnormalize.pkl`` and ``position.json``: how far each environment is in its task sequence, and how many steps an
        environment has played that changes with its steps. The states of the random generators are in the models of this
        package's agents; for others, in ``random_states.pt``
    """
    final = Path(folder) / f"checkpoint_{model.num_timesteps}_steps"
    temporary = final.with_name(f".{final.name}")
    for leftover in Path(folder).glob(".checkpoint_*_steps"):  # of runs that were killed
        shutil.rmtree(leftover)
    temporary.mkdir(parents=True)
    try:
        _write(model, temporary)
    except BaseException:  # a disk that is full: half a checkpoint is of no use, and takes room
        shutil.rmtree(temporary)
        raise
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    for older in Path(folder).glob("checkpoint_*_steps"):
        if older != final:
            shutil.rmtree(older)
    return final


def _write(model: BaseAlgorithm, folder: Path) -> None:
    model.save(folder / _MODEL)
    if isinstance(model, OffPolicyAlgorithm):
        model.save_replay_buffer(folder / _BUFFER)
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        normalizer.save(str(folder / _NORMALIZATION))
    if not _keeps_random_states(model):
        save_random_states(model, folder / _RANDOM)
    position = get_position(model.env)
    if position:
        (folder / _POSITION).write_text(json.dumps(position), encoding="utf-8")


def load_checkpoint(algorithm: type[Algorithm], checkpoint: str | os.PathLike[str], env: GymEnv, **kwargs: Any) -> Algorithm:
    """
    Load an agent from a checkpoint with its replay buffer, the statistics of ``VecNormalize`` and its place in the task
    sequence. ``learn(..., reset_num_timesteps=False)`` then continues, with the random numbers that would have come next;
    the episode that was in progress is started again.

    :param algorithm: the agent's class, of this package or any of SB3's
    :param checkpoint: the checkpoint's own folder, as :func:`latest_checkpoint` returns it
    :param env: a new environment like the agent's; a ``VecNormalize`` around it gets the saved statistics, and is added
        if it is missing
    :param kwargs: see ``load()`` of the class. With a ``seed``, random numbers start from it
    :return: the agent, whose environment is ``get_env()``
    :raises ValueError: if there is no checkpoint, or its sequence has other tasks than the environment
    """
    if checkpoint is None:  # what latest_checkpoint() returns where there is none
        raise ValueError("checkpoint is None: there is none yet, so make a new agent")
    folder = Path(checkpoint)
    if not (folder / _MODEL).exists():
        latest = latest_checkpoint(folder)
        hint = f"; did you mean {latest}, as latest_checkpoint() returns it?" if latest else ""
        raise ValueError(f"{folder} holds no checkpoint: {_MODEL} is missing{hint}")
    if (folder / _NORMALIZATION).exists():
        env = _normalized(env, folder / _NORMALIZATION)
    model = algorithm.load(folder / _MODEL, env=env, **kwargs)
    assert model.env is not None
    if (folder / _POSITION).exists():
        restore_position(model.env, json.loads((folder / _POSITION).read_text(encoding="utf-8")))
    if isinstance(model, OffPolicyAlgorithm) and (folder / _BUFFER).exists():
        model.load_replay_buffer(folder / _BUFFER)
    if (folder / _RANDOM).exists() and not _keeps_random_states(model) and kwargs.get("seed") is None:
        restore_random_states(model, load_random_states(folder / _RANDOM))  # in the end, as loading seeds them
    return model


def _keeps_random_states(model: BaseAlgorithm) -> bool:
    """Whether the agent is one of this package's, whose zip holds them."""
    return hasattr(model, "resume_random_states")


def _normalized(env: GymEnv, path: Path) -> VecEnv:
    if not isinstance(env, VecEnv):
        env = BaseAlgorithm._wrap_env(env)
    own = unwrap_vec_normalize(env)
    if own is None:
        return VecNormalize.load(str(path), env.venv if isinstance(env, VecTransposeImage) else env)
    restore_statistics(own, path.parent)
    return env


def restore_statistics(normalizer: VecNormalize, checkpoint: Path) -> None:
    """
    :param normalizer: what is to have the statistics of a checkpoint
    :param checkpoint: the checkpoint's own folder
    """
    saved = VecNormalize.load(str(checkpoint / _NORMALIZATION), normalizer.venv)
    normalizer.obs_rms, normalizer.ret_rms = saved.obs_rms, saved.ret_rms


def get_position(env: VecEnv | None) -> dict[str, list[Any]]:
    """
    :param env: the environments of an agent
    :return: how far each is in its task sequence ("sequence"), and how many steps it has played ("elapsed_steps"), where
        there are such things: numbers, strings and lists only
    """
    position: dict[str, list[Any]] = {}
    if env is not None and has_phases(env):
        position["sequence"] = env.env_method("get_progress")
    if env is not None and ages(env):
        position["elapsed_steps"] = env.get_attr("elapsed_steps")
    return position


def restore_position(env: VecEnv, position: dict[str, list[Any]]) -> None:
    """
    Put environments where others were.

    :param env: the environments
    :param position: what :func:`get_position` returned for the others; the last one is that of any further environments
    :raises ValueError: if the environments are of another kind, or of another task sequence
    """
    if "sequence" in position:
        _check_sequence(env, position["sequence"][0])
    if "elapsed_steps" in position and not ages(env):
        raise ValueError("env must change with its steps, as the environment of the checkpoint did")
    for name, restore in (("sequence", "set_progress"), ("elapsed_steps", "set_elapsed_steps")):
        saved = position.get(name, [])
        for index in range(env.num_envs if saved else 0):
            env.env_method(restore, saved[min(index, len(saved) - 1)], indices=index)


def _check_sequence(env: VecEnv, saved: dict[str, Any]) -> None:
    if not has_phases(env):
        raise ValueError("env must be a task sequence, as the environment of the checkpoint was one")
    present = env.env_method("get_progress", indices=0)[0]
    if any(saved[name] != present[name] for name in ("tasks", "cycles")):
        raise ValueError(
            f"env: the checkpoint is of the sequence {saved['tasks']} x {saved['cycles']}, the environment is "
            f"{present['tasks']} x {present['cycles']}"
        )


class SequenceCheckpoint(BaseCallback):
    """
    Every ``save_freq`` steps, save the model with everything that it needs to continue (:func:`load_checkpoint`), and delete
    the previous checkpoint.

    Inside another callback (``EveryNTimesteps``, ``EvalCallback(callback_after_eval=...)`` or ``callback_on_new_best``) it
    saves at the other's events, if ``save_freq`` steps have passed.

    :param save_freq: environment steps between two checkpoints
    :param folder: where to write
    :param verbose: 1 prints the path
    """

    def __init__(self, save_freq: int, folder: str | os.PathLike[str], verbose: int = 0) -> None:
        super().__init__(verbose)
        self.save_freq = whole("save_freq", save_freq, 1)
        self.folder = Path(folder)

    def _init_callback(self) -> None:
        self._last = self.model.num_timesteps
        self._hears_of_rollouts = False  # not inside another callback, which hands on its events only

    def _on_training_start(self) -> None:
        self._last = self.num_timesteps
        self._warn_of_lost_position()

    def _warn_of_lost_position(self) -> None:
        """Any other agent than this package's begins its sequence anew when it is loaded in SB3's way."""
        checkpoint = self.folder / f"checkpoint_{self.num_timesteps}_steps"
        if not (checkpoint / _POSITION).exists() or not has_phases(self.training_env):
            return
        position = json.loads((checkpoint / _POSITION).read_text(encoding="utf-8"))
        if "sequence" not in position:
            return
        saved = position["sequence"][0]
        present = self.training_env.env_method("get_progress", indices=0)[0]
        if (saved["phase"], saved["sequence_over"]) != (present["phase"], present["sequence_over"]):
            warn(
                f"{checkpoint} was saved in phase {saved['phase'] + 1} of its sequence, but the environment is in phase "
                f"{present['phase'] + 1}. load_checkpoint({type(self.model).__name__}, {str(checkpoint)!r}, env) continues it"
            )

    def _on_rollout_start(self) -> None:
        # Between two rollouts the agent, its buffer and its environment are at the same step
        self._hears_of_rollouts = True
        self._save_if_due()

    def _on_step(self) -> bool:
        if not self._hears_of_rollouts:
            self._save_if_due()
        return True

    def _save_if_due(self) -> None:
        if self.num_timesteps - self._last >= self.save_freq:
            self._last = self.num_timesteps
            path = save_checkpoint(self.model, self.folder)
            if self.verbose:
                print(f"Saved {path}")
