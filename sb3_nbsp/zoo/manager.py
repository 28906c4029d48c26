"""rl-zoo3's experiment manager, which also knows task sequences."""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import optuna
from rl_zoo3.exp_manager import ExperimentManager
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_nbsp.algorithms import ContinualSAC
from sb3_nbsp.algorithms.persistence import PersistentAlgorithm
from sb3_nbsp.tasks import SequenceEvaluation
from sb3_nbsp.tasks.recognize import ages
from sb3_nbsp.tasks.registration import is_sequence
from sb3_nbsp.zoo.algos import PLAIN, hyperparams_file
from sb3_nbsp.zoo.registration import BUDGET

_CHECKPOINT = re.compile(r"(?P<prefix>.+)_(?P<steps>\d+)_steps\.zip")


def is_own(env_id: str) -> bool:
    """
    :param env_id: a registered environment id
    :return: whether RL Zoo has no hyperparameters for it because it is this package's or of shimmy's DeepMind Control Suite
    """
    return str(gym.spec(env_id).entry_point).startswith("sb3_nbsp.") or env_id.startswith("dm_control/")


def _saved_position(model: BaseAlgorithm) -> dict[str, Any] | None:
    """Where a loaded agent will continue in the sequence of its environment; None if at its start."""
    env, saved = model.env, getattr(model, "_sequence_progress", None)
    if env is None or not saved or saved[0]["sequence_over"]:
        return None
    present = env.env_method("get_progress", indices=0)[0]
    position: dict[str, Any] = saved[0]
    return position if all(position[name] == present[name] for name in ("tasks", "cycles")) else None


class CheckpointWithBuffer(CheckpointCallback):
    """SB3's checkpoints with the last one's replay buffer, written ahead of its model so that a model has its buffer."""

    def _on_step(self) -> bool:
        if self.n_calls % self.save_freq == 0 and isinstance(self.model, OffPolicyAlgorithm):
            buffer = Path(self._checkpoint_path("replay_buffer_", "pkl"))
            self.model.save_replay_buffer(buffer)
            super()._on_step()
            for older in buffer.parent.glob(f"{self.name_prefix}_replay_buffer_*_steps.pkl"):
                if older != buffer:
                    older.unlink()
            return True
        return super()._on_step()


class FollowTraining(BaseCallback):
    """Ahead of ``EvalCallback``: puts its environment, which changes with its steps, where that of training is."""

    def __init__(self, evaluation: EvalCallback) -> None:
        super().__init__()
        self.evaluation = evaluation

    def _on_step(self) -> bool:
        if self.n_calls % self.evaluation.eval_freq == 0:
            age = self.training_env.get_attr("elapsed_steps", indices=0)[0]
            self.evaluation.eval_env.env_method("set_elapsed_steps", age)
        return True


class SequenceExperimentManager(ExperimentManager):
    """
    What rl-zoo3 does, and:

    - without ``-conf``, hyperparameters of this package's algorithms and environments come from its own folder;
    - the dictionaries that shimmy's ``dm_control/...`` observe are flattened;
    - the zoo's periodic evaluation on Cycle Friction has the friction that training has;
    - on a task sequence, all tasks are evaluated after each phase (``success_matrix.csv``), and the zoo's periodic
      evaluation plays the tasks in turn;
    - ``--save-freq`` with ``--save-replay-buffer`` saves the replay buffer with each checkpoint, in place of the
      previous one, and ``-i`` finds it there;
    - ``-i`` continues an agent of this package at its step and its phase.
    """

    def __init__(self, args: Any, algo: str, env_id: str, *other: Any, **kwargs: Any) -> None:
        super().__init__(args, algo, env_id, *other, **kwargs)
        own = hyperparams_file(algo)
        self.is_sequence = is_sequence(env_id)
        if kwargs.get("config") is None and own is not None and (algo not in PLAIN or is_own(env_id)):
            self.config = str(own)

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read hyperparameters, see rl-zoo3; the wrapper that flattens is saved with them, so that enjoy has it too."""
        hyperparams, saved = super().read_hyperparameters()
        if self.env_name.gym_id.startswith("dm_control/") and hyperparams.get("policy") == "MlpPolicy":
            for each in (hyperparams, saved):
                each.setdefault("env_wrapper", "gymnasium.wrappers.FlattenObservation")
        return hyperparams, saved

    def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:
        """Create environments, see rl-zoo3; those for evaluation play the tasks of a sequence in turn."""
        if not (eval_env and self.is_sequence):
            return super().create_envs(n_envs, eval_env, no_log)
        given = self.eval_env_kwargs
        self.eval_env_kwargs = {"rotate": True, **given}
        try:
            return super().create_envs(n_envs, eval_env, no_log)
        finally:
            self.eval_env_kwargs = given

    def create_callbacks(self) -> None:
        """Create callbacks, see rl-zoo3, and the evaluation after each phase of a sequence."""
        super().create_callbacks()
        if self.save_replay_buffer:
            self.callbacks = [
                CheckpointWithBuffer(each.save_freq, each.save_path, each.name_prefix, verbose=each.verbose)
                if isinstance(each, CheckpointCallback)
                else each
                for each in self.callbacks
            ]
        for index, each in enumerate(self.callbacks):
            if isinstance(each, EvalCallback) and ages(each.eval_env):
                self.callbacks.insert(index, FollowTraining(each))
                break
        if self.is_sequence and not self.optimize_hyperparameters:
            self.callbacks.append(SequenceEvaluation(self.save_path, progress_bar=self.show_progress, verbose=self.verbose))

    def objective(self, trial: optuna.Trial) -> float:
        """Train with sampled hyperparameters, see rl-zoo3; the samplers see for how many steps."""
        trial.set_user_attr(BUDGET, self.n_timesteps)
        return super().objective(trial)

    def learn(self, model: BaseAlgorithm) -> None:
        """Train, see rl-zoo3; a continued agent of this package keeps counting its steps."""
        if self.continue_training and isinstance(model, PersistentAlgorithm):
            model.keep_counting()
        if self.is_sequence:
            self._warn_of_early_end(model)
        super().learn(model)

    def _warn_of_early_end(self, model: BaseAlgorithm) -> None:
        env = model.env
        assert env is not None
        n_phases, steps_per_task = (env.get_attr(name, indices=0)[0] for name in ("n_phases", "steps_per_task"))
        position = _saved_position(model) or {}
        left = (n_phases - position.get("phase", 0)) * steps_per_task - position.get("phase_steps", 0)
        if self.n_timesteps < left * env.num_envs:
            warnings.warn(
                f"n_timesteps={self.n_timesteps} may end training before the sequence is over: its phases are {n_phases} of "
                f"up to {steps_per_task} steps in each of {env.num_envs} environments (-n {left * env.num_envs})",
                stacklevel=2,
            )

    def _load_pretrained_agent(self, hyperparams: dict[str, Any], env: VecEnv) -> BaseAlgorithm:
        model = super()._load_pretrained_agent(hyperparams, env)
        path = Path(self.trained_agent)
        if isinstance(model, OffPolicyAlgorithm):
            self._load_buffer_of(path, model)
        if self.is_sequence and isinstance(model, ContinualSAC) and _saved_position(model) is None:
            warnings.warn(
                "The agent's sequence is over, or was another one: this one starts at its first phase. To continue an earlier "
                "one, give its --env-kwargs again",
                stacklevel=2,
            )
        self._continue_history(path.parent)
        return model

    def _load_buffer_of(self, path: Path, model: OffPolicyAlgorithm) -> None:
        """Load a checkpoint's own replay buffer; rl-zoo3 knows only the one of the end of the run."""
        checkpoint = _CHECKPOINT.fullmatch(path.name)
        if checkpoint is not None:
            buffer = path.with_name(f"{checkpoint['prefix']}_replay_buffer_{checkpoint['steps']}_steps.pkl")
            if buffer.exists():
                print(f"Loading replay buffer {buffer.name}")
                model.load_replay_buffer(buffer)
                return
        if model.replay_buffer is not None and model.replay_buffer.size() == 0:
            warnings.warn(
                f"No replay buffer is saved with {path.name}: what the agent remembers, of earlier tasks too, starts empty. "
                "Train with --save-replay-buffer to keep it",
                stacklevel=2,
            )
        elif path.stem != self.env_name:
            warnings.warn(
                f"replay_buffer.pkl is of the end of that run, not of {path.name}: the agent remembers what comes after it",
                stacklevel=2,
            )

    def _continue_history(self, earlier: Path) -> None:
        """Take the success matrix of the run that is continued into the new run's folder."""
        for name in ("success_matrix.csv", "training.csv"):
            if self.is_sequence and (earlier / name).exists() and earlier.resolve() != Path(self.save_path).resolve():
                shutil.copy(earlier / name, Path(self.save_path) / name)
