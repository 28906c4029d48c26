"""rl-zoo3's experiment manager, which also knows task sequences."""

from __future__ import annotations

import copy
import shutil
from collections import OrderedDict
from pathlib import Path
from pydoc import locate
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_nbsp.algorithms.options import constructor_parameters
from sb3_nbsp.algorithms.persistence import PersistentAlgorithm
from sb3_nbsp.extras import needs
from sb3_nbsp.messages import warn
from sb3_nbsp.tasks import SequenceEvaluation
from sb3_nbsp.tasks.boundaries import steps_left
from sb3_nbsp.tasks.checkpoint import restore_position
from sb3_nbsp.tasks.recognize import ages, has_phases
from sb3_nbsp.tasks.registration import is_sequence
from sb3_nbsp.zoo.algos import PLAIN, hyperparams_file, warn_of_missing_entry, with_schedules
from sb3_nbsp.zoo.arguments import check_arguments, is_given
from sb3_nbsp.zoo.checkpoints import (
    BUFFER,
    Learner,
    Position,
    ResumeRandomStates,
    WholeCheckpoint,
    beside,
    can_continue,
    load_statistics,
    position_of,
    read_position,
    saved_position,
    statistics_of,
    write_state_beside,
)
from sb3_nbsp.zoo.evaluation import EVALUATION_SEED, FollowTraining, keep_whole_best_model, spread_tasks
from sb3_nbsp.zoo.options import (
    ZOO_OPTIONS,
    check_env_kwargs,
    check_names,
    check_values,
    read_sections,
    warn_of_skipped_frames,
)
from sb3_nbsp.zoo.samplers import BUDGET
from sb3_nbsp.zoo.studies import parameters_of_trial

with needs("zoo", "sb3_nbsp.zoo"):
    import optuna
    from rl_zoo3.exp_manager import ExperimentManager
    from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER
    from rl_zoo3.utils import ALGOS as ZOO_ALGOS


def is_own(env_id: str) -> bool:
    """Whether RL Zoo has no hyperparameters for an id because it is this package's or of shimmy's DeepMind Control Suite."""
    return str(gym.spec(env_id).entry_point).startswith("sb3_nbsp.") or env_id.startswith("dm_control/")


class SequenceExperimentManager(ExperimentManager):
    """
    What rl-zoo3 does, and:

    - without ``-conf``, hyperparameters of this package's algorithms and environments come from its own folder;
    - the dictionaries that shimmy's ``dm_control/...`` observe are flattened;
    - the zoo's periodic evaluation on Cycle Friction has the friction that training has;
    - on a task sequence, all tasks are evaluated after each phase (``success_matrix.csv``), and the zoo's periodic
      evaluation plays the tasks in turn;
    - the periodic evaluation has the environment of training, with the arguments of a YAML file, too; those that are given
      for it alone come on top. Its episodes start from another seed than those of training;
    - an unknown hyperparameter, and an unknown argument of an environment that says what it takes, is an error at once; after
      one that is found later, such as a wrong value, no folder of the run is left behind;
    - checkpoints and ``best_model.zip`` keep the statistics of ``VecNormalize`` and the place in the task sequence;
      ``--save-replay-buffer`` also saves the replay buffer with each checkpoint, in place of the previous one. ``-i`` finds
      all that;
    - ``-i`` continues an agent at its step and its phase: every agent of this package, on a task sequence and on Cycle
      Friction SB3's own, too. All continue with the random numbers of the model's run;
    - the samplers of ``-optimize`` know how many steps a trial has, and a warning tells if those are less than a phase;
      ``--trial-id 0`` is a trial.
    """

    def __init__(self, args: Any, algo: str, env_id: str, *other: Any, **kwargs: Any) -> None:
        check_arguments(args)
        super().__init__(args, algo, env_id, *other, **kwargs)
        own = hyperparams_file(algo, env_id)
        self.is_sequence = is_sequence(env_id)
        self.position: Position = {}  # of a plain SB3 agent's environments, at the end
        if kwargs.get("config") is None and own is not None and (algo not in PLAIN or is_own(env_id)):
            self.config = str(own)

    def setup_experiment(self) -> tuple[BaseAlgorithm, dict[str, Any]] | None:
        """Make all that a run needs, see rl-zoo3. If that fails, because a value is wrong, no folder is left behind."""
        self._made: list[Path] = []
        made = None
        try:
            made = super().setup_experiment()
        finally:
            if made is None:  # it has failed, or it is a search, whose trials have no folder
                self._remove_folders()
        return made

    def create_log_folder(self) -> None:
        """Make the run's folder, see rl-zoo3; where another run has just taken its number, that with the next one."""
        while not self._made:
            folder = Path(self.save_path)
            missing = [each for each in (folder, *folder.parents) if not each.exists()]
            try:
                folder.mkdir(parents=True)
                self._made = missing
            except FileExistsError:
                if not folder.exists():  # a link to nowhere is in its way
                    raise
                name, _, number = self.save_path.rpartition("_")
                self.save_path = f"{name}_{int(number) + 1}"
                self.params_path = f"{self.save_path}/{self.env_name}"
        super().create_log_folder()

    def _remove_folders(self) -> None:
        """Remove the run's folder, which nobody else has, and those around it that were made for it alone."""
        for folder in self._made[:1]:
            shutil.rmtree(folder, ignore_errors=True)
        for folder in self._made[1:]:
            if any(folder.iterdir()):
                break
            folder.rmdir()

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read hyperparameters, see rl-zoo3; the wrapper that flattens is saved with them, so that enjoy has it too."""
        self._check_trial_id()
        sections = read_sections(self.config)
        given, self.env_kwargs = self.env_kwargs, {}  # rl-zoo3 would drop those of the file
        hyperparams, _ = super().read_hyperparameters()
        self.env_kwargs = given
        if self.trial_id == 0:  # which rl-zoo3 takes for none
            assert self.storage is not None and self.study_name is not None
            found = self.load_trial(self.storage, self.study_name, self.trial_id)
            hyperparams.update({**found, **(self.custom_hyperparams or {})})
            print(f"With those of trial 0: {found}")
        if given and "env_kwargs" in hyperparams:
            hyperparams["env_kwargs"] = {**hyperparams["env_kwargs"], **given}
        if self.env_name.gym_id.startswith("dm_control/") and hyperparams.get("policy") == "MlpPolicy":
            hyperparams.setdefault("env_wrapper", "gymnasium.wrappers.FlattenObservation")
        known = constructor_parameters(ZOO_ALGOS[self.algo]).keys() | ZOO_OPTIONS
        check_names(self.algo, hyperparams, known, "hyperparameter")
        check_values(hyperparams)
        if sections:
            warn_of_missing_entry(sections, self.env_name.gym_id, self.config)
        env_kwargs = hyperparams.get("env_kwargs", given)
        warn_of_skipped_frames(self.env_name.gym_id, env_kwargs, hyperparams.get("env_wrapper"))
        return hyperparams, OrderedDict(sorted(hyperparams.items()))

    def load_trial(self, storage: str, study_name: str, trial_id: int | None = None, convert: bool = True) -> dict[str, Any]:
        """Hyperparameters of a trial, see rl-zoo3."""
        assert trial_id is not None and convert
        try:
            return HYPERPARAMS_CONVERTER[self.algo](parameters_of_trial(storage, study_name, trial_id))
        except KeyError as missing:
            raise ValueError(
                f"trial {trial_id} of study {study_name!r} is of another algorithm than {self.algo}: it has no {missing}"
            ) from missing

    def _check_trial_id(self) -> None:
        if self.trial_id is not None and not (self.storage and self.study_name):
            raise ValueError("--trial-id needs --storage and --study-name, where the trial is kept")
        if (self.trial_id or 0) < 0:
            raise ValueError(f"--trial-id must be the number of a trial, from 0, not {self.trial_id}")

    def _preprocess_hyperparams(self, hyperparams: dict[str, Any]) -> Any:
        buffer = hyperparams.get("replay_buffer_class")
        if isinstance(buffer, str) and (found := locate(buffer)) is not None:  # otherwise rl-zoo3 evaluates it
            hyperparams["replay_buffer_class"] = found
        processed = super()._preprocess_hyperparams(hyperparams)
        self.eval_env_kwargs = {**self.env_kwargs, **(self._eval_env_kwargs_args or {})}
        for env_kwargs in (self.env_kwargs, self.eval_env_kwargs):
            check_env_kwargs(self.env_name.gym_id, env_kwargs)
        return processed

    @staticmethod
    def _preprocess_schedules(hyperparams: dict[str, Any]) -> dict[str, Any]:
        checked = with_schedules(hyperparams)  # rl-zoo3 takes every word for "lin", and does not know every name
        hyperparams.update({name: checked[name] for name in checked.keys() & {"qf_learning_rate"}})
        return ExperimentManager._preprocess_schedules(hyperparams)

    def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:
        """Create environments, see rl-zoo3; those for evaluation have other seeds and play a sequence's tasks in turn."""
        if not eval_env:
            return super().create_envs(n_envs, eval_env, no_log)
        evaluation = copy.copy(self)  # a search with --n-jobs makes other environments meanwhile
        evaluation.seed = (self.seed + EVALUATION_SEED) % 2**32
        if self.is_sequence:
            evaluation.eval_env_kwargs = {"rotate": True, **self.eval_env_kwargs}
        env = super(SequenceExperimentManager, evaluation).create_envs(n_envs, eval_env, no_log)
        if self.is_sequence:
            spread_tasks(env)
        return env

    def _maybe_normalize(self, env: VecEnv, eval_env: bool) -> VecEnv:
        path, is_of_the_end = statistics_of(Path(self.trained_agent)) if self.continue_training else (None, False)
        if path is None and not self.normalize:
            return env
        if not eval_env:
            self._say_where_statistics_come_from(path, is_of_the_end)
        self.normalize = True  # so that this run saves them, too
        normalized = VecNormalize(env, **self.normalize_kwargs) if path is None else load_statistics(path, env)
        if eval_env:
            normalized.training, normalized.norm_reward = False, False
        return normalized

    def _say_where_statistics_come_from(self, path: Path | None, is_of_the_end: bool) -> None:
        model = Path(self.trained_agent).name
        if path is not None:
            print(f"Loading the statistics of VecNormalize from {path.name}")
        if path is None and self.continue_training:
            warn(
                f"No statistics of VecNormalize are saved with {model}: new ones start, and the policy sees other "
                "observations than it has learned on"
            )
        elif is_of_the_end:
            warn(f"vecnormalize.pkl is of the end of that run, not of {model}: its policy has learned on other observations")

    def _save_config(self, saved_hyperparams: dict[str, Any]) -> None:
        """What enjoy and others read: arguments of the environment and normalization are those that the run really has."""
        if self.env_kwargs:
            self.args.env_kwargs = self.env_kwargs
        if self.normalize:
            saved_hyperparams.setdefault("normalize", True)
        super()._save_config(saved_hyperparams)

    def create_callbacks(self) -> None:
        """Create callbacks, see rl-zoo3, and the evaluation after each phase of a sequence."""
        super().create_callbacks()
        callbacks: list[BaseCallback] = []
        for each in self.callbacks:
            if isinstance(each, EvalCallback):
                callbacks += [FollowTraining(each)] if ages(each.eval_env) else []
                keep_whole_best_model(each)
            is_plain = type(each) is CheckpointCallback
            callbacks.append(WholeCheckpoint(each, self.save_replay_buffer) if is_plain else each)  # type: ignore[arg-type]
        self.callbacks = callbacks
        if self.is_sequence and not self.optimize_hyperparameters:
            options: dict[str, Any] = {"progress_bar": self.show_progress, "verbose": self.verbose}
            if is_given("--eval-episodes"):  # rl-zoo3's default is for the periodic evaluation
                options["n_eval_episodes"] = self.n_eval_episodes
            self.callbacks.append(SequenceEvaluation(self.save_path, **options))

    def hyperparameters_optimization(self) -> None:
        """Search hyperparameters, see rl-zoo3; a warning tells of trials that are too short for what acts between phases."""
        needed = 0
        if self.is_sequence:
            env = self.create_envs(1, no_log=True)
            needed = env.get_attr("steps_per_task", indices=0)[0] * self.n_envs if has_phases(env) else 0
            env.close()
        if self.n_timesteps < needed:
            warn(
                f"A trial of n_timesteps={self.n_timesteps} ends before the first phase does, which has up to {needed} steps: "
                "unless the task is mastered before, nothing acts that acts at the end or the start of a phase, and all tasks "
                f"but the first are evaluated untrained. Give more steps (-n {2 * needed}, or more), or less to each task "
                "(--env-kwargs steps_per_task:...)"
            )
        super().hyperparameters_optimization()

    def objective(self, trial: optuna.Trial) -> float:
        """Train with sampled hyperparameters, see rl-zoo3; the samplers see for how many steps."""
        trial.set_user_attr(BUDGET, self.n_timesteps)
        return super().objective(trial)

    def learn(self, model: BaseAlgorithm) -> None:
        """Train, see rl-zoo3; a continued agent keeps counting its steps, SB3's own where its environment has a position."""
        if self.is_sequence:
            self._warn_of_early_end(model)
        is_resumable = isinstance(model, PersistentAlgorithm) or bool(position_of(model))
        learner: Any = Learner(model, continues=self.continue_training and is_resumable)
        super().learn(learner)
        self.position = learner.position

    def save_trained_model(self, model: BaseAlgorithm) -> None:
        """Save the agent, see rl-zoo3, with what it takes to continue it."""
        write_state_beside(model, Path(self.save_path) / f"{self.env_name}.zip", self.position)
        super().save_trained_model(model)

    def _warn_of_early_end(self, model: BaseAlgorithm) -> None:
        env = model.env
        assert env is not None
        saved = saved_position(model)
        left = steps_left(env, saved["sequence"][0] if can_continue(saved, env) else None)
        if self.n_timesteps < left:
            n_phases, steps_per_task = (env.get_attr(name, indices=0)[0] for name in ("n_phases", "steps_per_task"))
            warn(
                f"n_timesteps={self.n_timesteps} may end training before the sequence is over: its phases are {n_phases} of "
                f"up to {steps_per_task} steps in each of {env.num_envs} environments, and what their last episodes take "
                f"beyond (-n {left}, or more: training ends with the sequence)"
            )

    def _load_pretrained_agent(self, hyperparams: dict[str, Any], env: VecEnv) -> BaseAlgorithm:
        path, given = Path(self.trained_agent), {}
        if "policy_kwargs" in (self.custom_hyperparams or {}):
            given = dict(hyperparams["policy_kwargs"])  # rl-zoo3 drops them
        model = super()._load_pretrained_agent(hyperparams, env)
        if changed := [name for name, value in given.items() if model.policy_kwargs.get(name) != value]:
            raise ValueError(
                f"-params policy_kwargs: {path.name} keeps the networks that it was made with, and {', '.join(changed)} "
                "would have no effect; leave it out"
            )
        if isinstance(model, PersistentAlgorithm):
            model.resume_random_states(path)  # rl-zoo3 gives a seed, always
        else:
            self.callbacks.append(ResumeRandomStates(path))  # the last one, as others may draw when training starts
        if isinstance(model, OffPolicyAlgorithm):
            self._load_buffer_of(path, model)
        self._continue_position(path, model)
        if self.is_sequence:
            self._continue_history(path.parent)
        return model

    def _continue_position(self, path: Path, model: BaseAlgorithm) -> None:
        """Put a plain SB3 agent's environments where they were; those of this package's agents are put there by the agents."""
        assert model.env is not None
        is_own = isinstance(model, PersistentAlgorithm)
        position = saved_position(model) if is_own else read_position(path)
        if self.is_sequence and not can_continue(position, model.env):
            warn(
                "The agent's sequence is over, or was another one: this one starts at its first phase. To continue an earlier "
                "one, give its --env-kwargs again"
                if "sequence" in position
                else f"How far {path.name} was in its sequence is not known: it starts at its first phase"
            )
            return
        if is_own:
            return
        here = position_of(model)
        if "elapsed_steps" in here.keys() - position:
            warn(f"How many steps the environment of {path.name} had played is not known: it begins with its first one")
        restore_position(model.env, {name: position[name] for name in here if name in position})

    def _load_buffer_of(self, path: Path, model: OffPolicyAlgorithm) -> None:
        """Load a checkpoint's own replay buffer; rl-zoo3 knows only the one of the end of the run."""
        buffer = beside(path, BUFFER)
        if buffer.exists():
            print(f"Loading replay buffer {buffer.name}")
            model.load_replay_buffer(buffer, truncate_last_traj=self.truncate_last_trajectory)
        elif model.replay_buffer is not None and model.replay_buffer.size() == 0:
            warn(
                f"No replay buffer is saved with {path.name}: what the agent remembers, of earlier tasks too, starts empty. "
                "Train with --save-replay-buffer to keep it"
            )
        elif path.stem != self.env_name:
            warn(f"replay_buffer.pkl is of the end of that run, not of {path.name}: the agent remembers what comes after it")

    def _continue_history(self, earlier: Path) -> None:
        """Take the success matrix of the run that is continued into the new run's folder."""
        for name in ("success_matrix.csv", "training.csv"):
            if (earlier / name).exists() and earlier.resolve() != Path(self.save_path).resolve():
                shutil.copy(earlier / name, Path(self.save_path) / name)
