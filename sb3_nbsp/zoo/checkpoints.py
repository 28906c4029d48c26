"""What the zoo keeps beside a saved agent so that another run can continue it, and where."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_nbsp.algorithms.model_file import gymnasium_as_gym
from sb3_nbsp.algorithms.persistence import PersistentAlgorithm
from sb3_nbsp.files import atomic_path, atomic_write
from sb3_nbsp.random_states import load_random_states, restore_random_states, save_random_states
from sb3_nbsp.tasks.checkpoint import get_position

_CHECKPOINT = re.compile(r"(?P<prefix>.+)_(?P<steps>\d+)_steps\.zip")
BUFFER, STATISTICS, POSITION, RANDOM = "replay_buffer", "vecnormalize", "position", "random_states"
# All that can be beside a model, with their extensions
_KINDS = ((BUFFER, "pkl"), (STATISTICS, "pkl"), (POSITION, "json"), (RANDOM, "pt"))
# By the names of SequenceCheckpoint's position.json
Position = dict[str, list[Any]]


def beside(model: Path, kind: str, extension: str = "pkl") -> Path:
    """
    :param model: zip of an agent: a checkpoint, the best or the last one
    :param kind: ``BUFFER``, ``STATISTICS``, ``POSITION`` or ``RANDOM``
    :param extension: extension of the file
    :return: where the agent's own file of this kind is
    """
    checkpoint = _CHECKPOINT.fullmatch(model.name)
    if checkpoint is None:
        return model.with_name(f"{model.stem}_{kind}.{extension}")
    return model.with_name(f"{checkpoint['prefix']}_{kind}_{checkpoint['steps']}_steps.{extension}")


def statistics_of(model: Path) -> tuple[Path | None, bool]:
    """
    :param model: zip of an agent
    :return: the file with the statistics of its normalization, None if there is none; and whether they are of another
        moment: where rl-zoo3 keeps those of the end of the run
    """
    own = beside(model, STATISTICS)
    if own.exists():
        return own, False
    of_the_end = sorted(model.parent.glob("*/vecnormalize.pkl"))
    if not of_the_end:
        return None, False
    return of_the_end[0], model.stem != of_the_end[0].parent.name


def load_statistics(path: Path, env: VecEnv) -> VecNormalize:
    """
    :param path: statistics of ``VecNormalize``; those that RL Zoo published, whose spaces were pickled by Gym, load, too
    :param env: the environments to normalize
    :return: the environments, normalized
    """
    with gymnasium_as_gym():
        return VecNormalize.load(str(path), env)


def position_of(agent: BaseAlgorithm) -> Position:
    """
    :param agent: the agent
    :return: where its environments are in their task sequence, and how many steps those have played that change with their
        steps; empty if there is nothing of that kind, or the agent's own zip says so
    """
    return {} if isinstance(agent, PersistentAlgorithm) else get_position(agent.env)


def read_position(model: Path) -> Position:
    """
    :param model: zip of an agent
    :return: see :func:`position_of`; empty if it is not known
    """
    path = beside(model, POSITION, "json")
    found: Position = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def saved_position(agent: BaseAlgorithm) -> Position:
    """Where a loaded agent of this package was in the sequence of its environment; empty if in none."""
    sequence: list[dict[str, Any]] | None = getattr(agent, "_sequence_progress", None)
    return {"sequence": sequence} if sequence else {}


def can_continue(position: Position, env: VecEnv | None) -> bool:
    """Whether an environment can resume from a position: it is of the same sequence, which was not over."""
    sequence = position.get("sequence")
    if env is None or not sequence or sequence[0]["sequence_over"]:
        return False
    present = env.env_method("get_progress", indices=0)[0]
    return all(sequence[0][name] == present[name] for name in ("tasks", "cycles"))


class Learner:
    """
    What rl-zoo3's ``learn`` needs of an agent. It remembers the position of the environments of SB3's agents, which cannot be
    asked any more when their processes are closed.

    :param model: the agent
    :param continues: whether it continues its count of steps
    """

    def __init__(self, model: BaseAlgorithm, continues: bool) -> None:
        self.model, self.env, self.policy, self.continues = model, model.env, model.policy, continues
        self.position: Position = {}

    def learn(self, n_timesteps: int, **kwargs: Any) -> None:
        """Train, see SB3."""
        try:
            self.model.learn(n_timesteps, reset_num_timesteps=not self.continues, **kwargs)
        finally:
            self.position = position_of(self.model)


def write_beside(agent: BaseAlgorithm, model: Path, position: Position, with_buffer: bool = False) -> None:
    """
    Save what belongs to an agent and is not in its zip.

    :param agent: the agent
    :param model: where its zip is or will be
    :param position: see :func:`position_of`
    :param with_buffer: save the replay buffer, too
    """
    model.parent.mkdir(parents=True, exist_ok=True)
    if with_buffer and isinstance(agent, OffPolicyAlgorithm):
        agent.save_replay_buffer(beside(model, BUFFER))
    normalizer = agent.get_vec_normalize_env()
    if normalizer is not None:
        normalizer.save(str(beside(model, STATISTICS)))
    write_state_beside(agent, model, position)


def write_state_beside(agent: BaseAlgorithm, model: Path, position: Position) -> None:
    """
    Save what the zips of this package's agents hold and those of SB3's do not.

    :param agent: the agent
    :param model: where its zip is or will be
    :param position: see :func:`position_of`
    """
    if isinstance(agent, PersistentAlgorithm):
        return
    save_random_states(agent, beside(model, RANDOM, "pt"))
    if position:
        atomic_write(beside(model, POSITION, "json"), json.dumps(position))


class ResumeRandomStates(BaseCallback):
    """
    Lets an agent of SB3's draw the random numbers that a saved one would have drawn next: after the environments' reset, as
    in the saved agent.

    :param model: zip of the saved agent
    """

    def __init__(self, model: Path) -> None:
        super().__init__()
        path = beside(model, RANDOM, "pt")
        self._states = load_random_states(path) if path.exists() else None

    def _on_training_start(self) -> None:
        if self._states is not None:
            restore_random_states(self.model, self._states)

    def _on_step(self) -> bool:
        return True


class WholeCheckpoint(CheckpointCallback):
    """
    SB3's checkpoints with what it takes to continue them, written ahead of the model: so a model that is there has it.

    :param of: rl-zoo3's callback, whose place it takes
    :param save_replay_buffer: save the replay buffer, too, and drop that of the checkpoint before
    """

    def __init__(self, of: CheckpointCallback, save_replay_buffer: bool) -> None:
        super().__init__(of.save_freq, of.save_path, of.name_prefix, verbose=of.verbose)
        self.with_buffer = save_replay_buffer

    def _on_step(self) -> bool:
        if self.n_calls % self.save_freq == 0:
            self._save(Path(self._checkpoint_path(extension="zip")))
        return True

    def _save(self, model: Path) -> None:
        try:
            write_beside(self.model, model, position_of(self.model), self.with_buffer)
            with atomic_path(model) as temporary:  # SB3's agents write in place, and a kill would leave half of one
                self.model.save(temporary)
        except BaseException:  # a disk that is full: half a checkpoint is of no use, and takes room
            for path in (model, *(beside(model, *kind) for kind in _KINDS)):
                path.unlink(missing_ok=True)
            raise
        newest = beside(model, BUFFER)
        for older in model.parent.glob(f"{self.name_prefix}_{BUFFER}_*_steps.pkl") if self.with_buffer else []:
            if older != newest:
                older.unlink()


class WholeBestModel(BaseCallback):
    """
    For ``EvalCallback(callback_on_new_best=...)``: what belongs to ``best_model.zip``.

    :param folder: folder of ``best_model.zip``
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.path = Path(folder) / "best_model.zip"

    def _on_step(self) -> bool:
        write_beside(self.model, self.path, position_of(self.model))
        return True
