"""Follow the phases of a task sequence, whatever the agent learns from."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, TensorDict
from stable_baselines3.common.vec_env import VecEnv

from sb3_nbsp.algorithms.idle import idle_parts
from sb3_nbsp.algorithms.model_file import File
from sb3_nbsp.algorithms.options import GuardedOptions
from sb3_nbsp.algorithms.persistence import PersistentAlgorithm
from sb3_nbsp.interventions import Phase
from sb3_nbsp.messages import warn
from sb3_nbsp.tasks.boundaries import ended_phases
from sb3_nbsp.tasks.callback_tree import describe_progress
from sb3_nbsp.tasks.recognize import has_phases
from sb3_nbsp.tasks.told_evaluation import tell_evaluations

# Attributes that are rebuilt when a model is loaded
_NOT_SAVED = [
    "_crossed",
    "_sequence_over",
    "_shown",
    "_last_progress",
    "_steps_then",
    "_asked",
    "_warned",
    "_is_untold",
    "_is_told_otherwise",
    "_told",
    "show_progress",
]


class PhasedAlgorithm(GuardedOptions, PersistentAlgorithm):
    """
    An algorithm that follows the phases of a :class:`~sb3_nbsp.tasks.TaskSequence` and tells its interventions of them. On any
    other environment there is one phase, whatever words its infos use, unless :meth:`start_phase` says that another begins.
    """

    # Options that act at the start of a phase only, with their defaults
    phase_options: ClassVar[dict[str, Any]] = {}

    show_progress = False
    _shown: Phase | None = None  # in front of the progress bar
    _is_told_otherwise = False  # is it at another task than its phase's, for an evaluation by SB3's EvalCallback?
    _told: str | None = None  # the task that it is at, if it was told one since it learned or was loaded
    _is_untold = False  # does it act by a method that is told the task, has been loaded and not been told any?

    def _init_phases(self) -> None:
        self.phase = Phase(0, "")
        self.phase_steps = 0  # transitions of this phase
        self._phase_over = False
        self._env_phase: int | None = None  # phase of the environment's own count
        self._sequence_progress: list[dict[str, Any]] | None = None  # of a saved model, until learn() is called
        # When this phase's first rollout began, or learn() last returned; and phase_steps then
        self._last_progress: list[dict[str, Any]] | None = None
        self._steps_then = 0
        self._sequence_over = False
        self._crossed = np.zeros(0, dtype=bool)  # by environment: has it left the current phase?
        self._asked: tuple[VecEnv | None, bool] = (None, False)  # an environment, and whether it has phases
        self._warned: list[str] = []  # of what

    def start_phase(self, task: str) -> None:
        """
        Announce that another task begins, if tasks are changed by hand (``set_env()``, ``learn()``). With a task sequence this
        is not needed. Before the first call of ``learn()``, it names the task of the first phase.

        :param task: name of the task; the same name means the same task
        :raises ValueError: if the environment is a task sequence, or is missing and has normalized the observations
        """
        if self._has_phases():
            raise ValueError("start_phase() is for tasks that are changed by hand: this environment is a task sequence")
        self._deliver()
        if self.phase_steps == 0 and self.phase.index == 0:
            self.phase = Phase(0, task)
            return
        if self.env is None and self._learns_normalized:
            raise ValueError("start_phase() looks at normalized observations, and the environment normalizes: first set_env()")
        if not hasattr(self, "_logger"):  # it was loaded: learn() will make one, but interventions record here
            self._logger = Logger(None, [])
        with self._as_the_saved_agent():
            if not self._phase_over:
                self._end_phase()
            self._start_phase(Phase(self.phase.index + 1, task))

    def set_task(self, task: str) -> None:
        """
        Tell task-aware methods on which task the agent is to act next; all others ignore it.
        :class:`~sb3_nbsp.tasks.SequenceEvaluation` does this for every task that it plays, and training at every phase start.

        :param task: name of the task
        """
        self.all_interventions.on_task(task)
        self._told, self._is_untold = task, False

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        initialized = super()._init_callback(callback, progress_bar)
        if self._is_told_tasks():
            tell_evaluations(initialized, self._play_for_evaluation)
        return initialized

    def _is_told_tasks(self) -> bool:
        return any(each.overrides("on_task") for each in self.all_interventions)

    def _play_for_evaluation(self, task: str) -> None:
        self._is_told_otherwise = True
        self.set_task(task)

    def _play_own_task(self) -> None:
        if self._is_told_otherwise:
            self._is_told_otherwise, self._told = False, None
            self.all_interventions.on_task(self.phase.task)

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray | None = None) -> None:
        """SB3 calls this after every step, when all callbacks have been called."""
        self._play_own_task()
        super()._update_info_buffer(infos, dones)

    def predict(self, *args: Any, **kwargs: Any) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Act, see SB3. A task-aware agent that was loaded, or given parameters, and not told its task since plays as on its last
        one, with a warning.
        """
        if self._is_untold:
            self._is_untold = False
            warn(
                f"{type(self).__name__} has to be told which task it plays: it acts as on its last one, {self.phase.task!r}, "
                "until set_task(task) says otherwise"
            )
        return super().predict(*args, **kwargs)

    def set_parameters(
        self, load_path_or_dict: str | TensorDict, exact_match: bool = True, device: th.device | str = "auto"
    ) -> None:
        """Load parameters, see :meth:`PersistentAlgorithm.set_parameters`."""
        super().set_parameters(load_path_or_dict, exact_match, device)
        if not self._is_loading:
            self._told, self._is_untold = None, self.phase.index > 0 and self._is_told_tasks()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self._told is not None:
            self.all_interventions.on_task(self._told)

    def _end_loading(self, path: File, device: th.device | str, replaced: set[str]) -> None:
        super()._end_loading(path, device, replaced)
        self._is_untold = self.phase.index > 0 and self._is_told_tasks()

    @property
    def n_finished_phases(self) -> int:
        """Number of phases of the agent's life that have ended."""
        return self.phase.index + int(self._phase_over)

    def _has_phases(self) -> bool:
        """Whether the environment is a task sequence; each is asked once, as its processes may be closed later."""
        if self._asked[0] is not self.env:
            self._asked = self.env, has_phases(self.env)
        return self._asked[1]

    def save(self, path: File, exclude: Any = None, include: Any = None) -> None:
        """Save the model and the position of its environment in the task sequence; see :meth:`PersistentAlgorithm.save`."""
        loaded = self._sequence_progress
        self._sequence_progress = loaded or self._get_progress()
        try:
            super().save(path, exclude, include)
        finally:
            self._sequence_progress = loaded

    def _get_progress(self) -> list[dict[str, Any]] | None:
        """How far each environment is in the task sequence; None if there is no sequence."""
        if self.env is None or not self._has_phases():
            return None
        if getattr(self.env.unwrapped, "waiting", False):  # learn() was interrupted: the next answer is that to its last step
            return self._estimated_progress()
        try:
            progress: list[dict[str, Any]] = self.env.env_method("get_progress")
        except (OSError, EOFError):  # the environments' processes have been closed
            return self._estimated_progress()
        if self._crossed.any():
            # A loaded model starts new episodes: no need to wait for those that are still in the old phase
            ahead = progress[int(self._crossed.argmax())]
            progress = [own if crossed else ahead for own, crossed in zip(progress, self._crossed, strict=True)]
        return progress

    def _keep_progress(self) -> None:
        """Ask the environments now how far they are: their processes may not be there any more when the agent is saved."""
        self._last_progress, self._steps_then = self._get_progress(), self.phase_steps

    def _estimated_progress(self) -> list[dict[str, Any]] | None:
        """What was kept, and the steps that the agent has counted since."""
        steps = (self.phase_steps - self._steps_then) // self.n_envs
        kept = self._last_progress
        return None if kept is None else [{**each, "phase_steps": each["phase_steps"] + steps} for each in kept]

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Exchange the environment, see SB3."""
        before = self.env
        super().set_env(env, force_reset)
        if self.env is not before:
            self._crossed = np.zeros(self.n_envs, dtype=bool)

    def _excluded_save_params(self) -> list[str]:
        return super()._excluded_save_params() + _NOT_SAVED

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> Any:
        assert self.env is not None, "set_env() must be called before learn()"
        self.show_progress = progress_bar
        self._deliver()
        if self._has_phases():
            if all(self.env.get_attr("sequence_over")):
                self.env.env_method("restart")
                self._last_obs = None
            if self._sequence_progress is not None:
                self._restore_sequence(self._sequence_progress)
        reset = reset_num_timesteps or self._last_obs is None
        self._sequence_progress = None
        result = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        self._sequence_over, self._told, self._is_untold, self._shown = False, None, False, None
        if len(self._crossed) != self.n_envs:
            self._crossed = np.zeros(self.n_envs, dtype=bool)
        if not self._has_phases():
            self._env_phase = None  # that of a sequence in which the agent has learned before
        if self._has_phases() and self._env_phase is None and self.phase_steps == 0:
            self._env_phase, task = self._here()  # the first phase gets its task's name
            self.phase = Phase(self.phase.index, task)
        self.all_interventions.on_learn_start(reset)
        if self._has_phases():
            self._catch_up_with_environment()
        self.warn_of_what_is_idle()
        return result

    def warn_of_what_is_idle(self, total_timesteps: int | None = None) -> None:
        """
        Warn, once, of everything that was asked for and will not act. ``learn()`` does it by itself.

        :param total_timesteps: step at which ``learn()`` is going to end; None for the call that has begun
        """
        if total_timesteps is not None:
            self._total_timesteps = total_timesteps
        for name, message in idle_parts(self, self._has_phases(), self.phase_options).items():
            if name not in self._warned:
                self._warned.append(name)
                warn(message)

    def _restore_sequence(self, saved: list[dict[str, Any]]) -> None:
        """Put new environments where those of the saved model were; a sequence that was over begins again."""
        assert self.env is not None
        present = self.env.env_method("get_progress", indices=0)[0]
        if any(saved[0][name] != present[name] for name in ("tasks", "cycles")):
            warn(
                f"The saved model was in the sequence {saved[0]['tasks']} x {saved[0]['cycles']}, the environment is "
                f"{present['tasks']} x {present['cycles']}: it starts at its first phase, as a further phase of the agent"
            )
        for index in range(self.n_envs):
            progress = saved[min(index, len(saved) - 1)]
            if not progress["sequence_over"]:
                self.env.env_method("set_progress", progress, indices=index)

    def _here(self) -> tuple[int, str]:
        """Phase of the environment's own count, and its task."""
        assert self.env is not None
        return self.env.get_attr("phase", indices=0)[0], self.env.get_attr("task", indices=0)[0]

    def _catch_up_with_environment(self) -> None:
        """
        An environment that was exchanged or begins again is a new phase; the reset of an episode under way can end one, too.
        """
        here = self._here()
        self._crossed = self._have_left()
        if self._phase_over or self._crossed.all():
            self._crossed[:] = False
            if not self._phase_over:
                self._end_phase()
            self._sequence_over = self._is_over()
            if not self._sequence_over:
                self._enter(here)
        elif self._crossed.any():
            self._ask_the_others()

    def _have_left(self) -> np.ndarray:
        """Which environments are in another phase than the agent, shape (n_envs,)."""
        assert self.env is not None
        places = zip(*(self.env.get_attr(name) for name in ("sequence_over", "phase", "task")), strict=True)
        return np.array([place != (False, self._env_phase, self.phase.task) for place in places])

    def _is_over(self) -> bool:
        assert self.env is not None
        return bool(self.env.get_attr("sequence_over", indices=0)[0])

    def _ask_the_others(self) -> None:
        """Parallel environments end a phase together."""
        assert self.env is not None
        self.env.env_method("next_phase", indices=np.flatnonzero(~self._crossed).tolist())

    def _follow_boundaries(self, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """Parallel environments can be in different phases for a step or two: the next phase starts when all are there."""
        assert self.env is not None
        waiting_before = bool(self._crossed.any())
        self._crossed |= ended_phases(self.env, dones, infos)
        if self._crossed.all():
            self._crossed[:] = False
            self._sequence_over = self._is_over()
            self._on_boundary(None if self._sequence_over else self._here())
        elif self._crossed.any() and not waiting_before:
            self._ask_the_others()

    def _on_boundary(self, following: tuple[int, str] | None) -> None:
        """
        All environments have left the phase.

        :param following: where they are now; None if the sequence is over
        """
        self._end_phase()
        if following is not None:
            self._enter(following)

    def _show_phase(self, callback: BaseCallback) -> None:
        """Called before every rollout: at the first of a phase, the progress bar says which phase it is, and of which task."""
        if self._shown is self.phase:
            return
        self._keep_progress()
        self._shown, number, total = self.phase, self.phase.index + 1, ""
        if self._env_phase is not None:
            assert self.env is not None
            number, total = self._env_phase + 1, f" of {self.env.get_attr('n_phases', indices=0)[0]}"
        if self.phase.task:
            describe_progress(callback, f"phase {number}{total}: {self.phase.task}")

    def _deliver(self) -> None:
        """What an agent that learns from rollouts has yet to tell its interventions."""

    def _enter(self, here: tuple[int, str]) -> None:
        assert self.env is not None
        # An environment may have met a task only to fail, and the task report successes only
        for task in set().union(*self.env.get_attr("report_success")):
            self.env.env_method("expect_success", task)
        self._env_phase = here[0]
        self._start_phase(Phase(self.phase.index + 1, here[1]))

    def _end_phase(self) -> None:
        self._phase_over = True
        try:
            self.all_interventions.on_phase_end(self.phase)
        except BaseException:  # interrupted, as by Ctrl-C: the next learn() ends the phase
            self._phase_over = False
            raise
        if hasattr(self, "_logger") and self.logger.name_to_value:
            self.logger.dump(self.num_timesteps)

    def _start_phase(self, phase: Phase) -> None:
        """A phase starts: the counters begin anew."""
        self.phase, self._phase_over, self.phase_steps, self._told = phase, False, 0, None
        self.all_interventions.on_phase_start(phase)
