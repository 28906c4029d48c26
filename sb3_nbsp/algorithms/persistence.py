"""Save and load an agent with the state of its interventions."""

from __future__ import annotations

import copy
import io
import pathlib
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.save_util import open_path
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, TensorDict

from sb3_nbsp.algorithms.model_file import (
    File,
    can_read,
    first_unreadable,
    other_policy,
    read_attributes,
    read_member,
    space_of,
    substitutes,
    with_suffix,
    write_members,
)
from sb3_nbsp.algorithms.options import check_names
from sb3_nbsp.files import atomic_path
from sb3_nbsp.interventions import Intervention, Interventions
from sb3_nbsp.interventions.container import check_interventions
from sb3_nbsp.messages import warn
from sb3_nbsp.random_states import random_states, restore_random_states
from sb3_nbsp.tasks.recognize import ages

Self = TypeVar("Self", bound="PersistentAlgorithm")
# Members of a model's zip
STATE, RANDOM = "interventions", "random_states"


class PersistentAlgorithm(BaseAlgorithm):
    """
    An algorithm whose interventions' state travels inside the model's zip. Files of plain SB3 load too, and plain SB3
    loads these files.

    A loaded agent that continues (``learn(reset_num_timesteps=False)``) draws the random numbers that the saved one would have
    drawn next. To act, and with ``learn(reset_num_timesteps=True)``, it begins with the seed, as SB3's agents do.

    Where an environment changes with its steps (it has ``elapsed_steps``, ``set_elapsed_steps()`` and a true
    ``sb3_nbsp_ages``, as :class:`~sb3_nbsp.tasks.CycleFriction` has), a loaded agent that continues puts a new one where
    that of the saved agent was. No environment is ever put
    back: ``learn(reset_num_timesteps=True)`` begins the agent's count anew, but continues in the environment as it is.
    """

    sb3_class: ClassVar[type[BaseAlgorithm]]  # SB3's, whose arguments these agents take and whose files they load
    interventions: tuple[Intervention, ...]  # what is added to it later would not act
    all_interventions: Interventions  # the method's own, then those given as interventions
    _learns_normalized: bool | None = None  # are its observations normalized? None before it has learned
    _env_lead = 0  # steps by which the environments are older than the agent's count: their start_step, other agents' steps
    _is_loading = False
    _random_states: dict[str, Any] | None = None  # of a saved model, until learn() is called

    def _attach_interventions(self) -> None:
        check_interventions(self.interventions)
        vars(self)["interventions"] = tuple(self.interventions)  # load() may have been given others, and files hold lists
        self.all_interventions = Interventions(self._make_interventions(), self._switched_off())
        self.all_interventions.attach(self)

    def _make_interventions(self) -> list[Intervention]:
        """The interventions that act on this agent, in order; subclasses add those that make up a method."""
        return list(self.interventions)

    def _switched_off(self) -> Sequence[str]:
        """Names of classes of interventions that options of this agent have switched off."""
        return ()

    def _setup_learn(
        self, total_timesteps: int, callback: MaybeCallback = None, reset_num_timesteps: bool = True, *args: Any, **kwargs: Any
    ) -> Any:
        assert self.env is not None, "set_env() must be called before learn()"
        if ages(self.env):
            self._age_environments(reset_num_timesteps)  # before they are reset
        self._warn_of_other_observations()
        result = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args, **kwargs)
        saved, self._random_states = self._random_states, None
        if saved is not None and not reset_num_timesteps:
            restore_random_states(self, saved)  # after the reset: the saved agent's came first, too
        return result

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

    def _keep_age_of_environments(self, n_before: int) -> None:
        """Continue at the age of each of the saved agent's environments, whatever their number is now."""
        self._env_lead += self.num_timesteps // n_before - self.num_timesteps // self.n_envs

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        """
        SB3's share of the training that is left, which schedules depend on, but never below 0: the last rollout goes past the
        total unless that is a multiple of its length, and a linear schedule would become negative.
        """
        super()._update_current_progress_remaining(num_timesteps, total_timesteps)
        self._current_progress_remaining = max(0.0, self._current_progress_remaining)

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        was_replaced = "train" in vars(self)
        initialized = super()._init_callback(callback, progress_bar)
        if "train" in vars(self) and not was_replaced and list(self.all_interventions):
            warn(
                f"A callback has replaced train() of this {type(self).__name__}: what its interventions do to gradient steps "
                "does not act while it trains"
            )
        return initialized

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed the random generators, see SB3. The saved states of a loaded model are then ignored."""
        if seed is not None:
            self._random_states = None
        super().set_random_seed(seed)

    @contextmanager
    def _as_the_saved_agent(self) -> Iterator[None]:
        """
        What a loaded agent draws inside the block before ``learn()``, the saved one would have drawn next; ``learn()`` goes on
        from there. To act, the agent begins with the seed all the same.
        """
        if self._random_states is None:
            yield
            return
        present = random_states(self)
        restore_random_states(self, self._random_states)
        try:
            yield
            self._random_states = random_states(self)
        finally:
            restore_random_states(self, present)

    def resume_random_states(self, path: File) -> None:
        """
        Let the next ``learn(reset_num_timesteps=False)`` draw the random numbers that a saved model would have drawn next.
        :meth:`load` does the same, unless it is given a ``seed``.

        :param path: the model's zip
        """
        self._random_states = read_member(path, RANDOM, "cpu")

    def save(self, path: File, exclude: Any = None, include: Any = None) -> None:
        """
        Save the model, as SB3 does, but under a temporary name that is then renamed.

        :param path: where to save; ".zip" is appended if it has no suffix
        :param exclude: see SB3
        :param include: see SB3
        """
        with self.all_interventions.all_parameters():
            self._save(path, exclude, include)

    def _save(self, path: File, exclude: Any, include: Any) -> None:
        members = {STATE: self.all_interventions.checked_state_dict(), RANDOM: self._random_states or random_states(self)}
        if isinstance(path, (str, pathlib.Path)):
            with atomic_path(with_suffix(path, "zip")) as temporary:
                super().save(temporary, exclude, include)
                write_members(temporary, members)
        else:
            open_path(path, "w")  # complains of what cannot be written to
            whole = io.BytesIO()
            super().save(whole, exclude, include)
            write_members(whole, members)
            path.write(whole.getvalue())

    @classmethod
    def load(
        cls: type[Self],
        path: File,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Self:
        """
        Load a model, see SB3. A zip of the plain SB3 algorithm loads as well; interventions then start without state. So do
        the models that RL Zoo has published, whose spaces were pickled by Gym.

        :param path: the zip file
        :param env: see SB3
        :param device: see SB3
        :param custom_objects: see SB3; ``{"interventions": []}`` drops interventions that cannot be imported
        :param print_system_info: see SB3
        :param force_reset: see SB3
        :param kwargs: attributes to replace. If this switches interventions off, their state is dropped, with a warning
        :return: the model
        :raises ValueError: if the file is corrupt or contains another kind of model
        :raises TypeError: if ``kwargs`` has a name that is neither an option nor an attribute
        """
        attributes = read_attributes(path)
        fresh = vars(cls("MlpPolicy", None, device="cpu", _init_setup_model=False))  # type: ignore[call-arg]
        check_names(cls, kwargs, {*fresh, *attributes, *dir(cls)})
        if custom_objects is not None and not isinstance(custom_objects, dict):
            raise ValueError(f"custom_objects must be a dictionary, not {custom_objects!r}")
        replaced = substitutes(attributes, fresh, {*kwargs, *(custom_objects or ())})
        for name in ("observation_space", "action_space"):
            if name in replaced and env is not None and not isinstance(env, str):
                replaced[name] = space_of(getattr(env, name), replaced[name])
        given_anew = {name: value for name, value in kwargs.items() if not can_read(attributes, name)}
        custom_objects = {**replaced, **given_anew, **(custom_objects or {})}
        try:
            model = super().load(path, env, device, custom_objects, print_system_info, force_reset, **kwargs, _is_loading=True)
            model._end_loading(path, device, {*kwargs, *custom_objects})
        except ImportError as error:
            unreadable = first_unreadable({key: value for key, value in attributes.items() if key not in custom_objects})
            raise ValueError(
                f"{path}: {unreadable} needs what cannot be imported here: {error}. Give another with "
                f"custom_objects={{{unreadable!r}: ...}}{' ([] to act without)' if unreadable == 'interventions' else ''}"
            ) from error
        except (AttributeError, KeyError, TypeError, AssertionError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            if isinstance(error, RuntimeError) and "state_dict" not in str(error):  # of PyTorch, but not of other networks
                raise
            # SB3 answers a ValueError of set_parameters() with a KeyError of its own
            own = error.__context__ if isinstance(error, KeyError) and error.__context__ else error
            reason = other_policy(attributes, cls.sb3_class.policy_aliases["MlpPolicy"]) or own
            options = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
            with_options = f" with {options}, which may be what it is not made for" if kwargs else ""
            raise ValueError(f"{path} does not hold a model that {cls.__name__} can load{with_options}: {reason}") from error
        return model

    def _end_loading(self, path: File, device: th.device | str, replaced: set[str]) -> None:
        """
        The parameters are there: the interventions' state follows.

        :param replaced: names of attributes that are not the file's
        """
        del self._is_loading
        self._keep_age_of_environments(read_attributes(path).get("n_envs", self.n_envs))
        state = read_member(path, STATE, device)
        if state is None:
            state = {}
            self._warn_of_lost_state(path)
        if "interventions" in replaced:
            self.all_interventions.switched_off.update(name.split()[0] for name in state)
        self.all_interventions.load_state_dict(state)
        self.all_interventions.on_load()
        if "seed" not in replaced:
            self.resume_random_states(path)

    def _warn_of_lost_state(self, path: File) -> None:
        """Plain SB3 hands our attributes on, but not the interventions' state: the file looks like one of this agent's."""
        lost = [type(each).__name__ for each in self.all_interventions if each.overrides("state_dict")]
        if lost and "interventions" in read_attributes(path):
            warn(
                f"{path} was saved by plain SB3, which has dropped the state of {', '.join(lost)}: they start afresh, in the "
                f"phase in which this {type(self).__name__} was saved last. Load that file to continue with their state"
            )

    def get_parameters(self) -> dict[str, dict[str, Any]]:
        """
        The parameters of networks and optimizers, see SB3: also those that a task-aware method has put aside to play an
        earlier task; of such a method, copies.

        :return: names of networks and optimizers, to their states
        """
        with self.all_interventions.all_parameters():
            parameters = super().get_parameters()
            is_whole = not any(each.overrides("all_parameters") for each in self.all_interventions)
            return parameters if is_whole else copy.deepcopy(parameters)

    def set_parameters(
        self, load_path_or_dict: str | TensorDict, exact_match: bool = True, device: th.device | str = "auto"
    ) -> None:
        """
        Load parameters, see SB3. A file's state of the interventions is loaded with them. If something does not fit, the agent
        stays as it was; SB3's would have a part of them.

        :param load_path_or_dict: a file or :meth:`get_parameters`'s result
        :param exact_match: see SB3
        :param device: see SB3
        """
        if self._is_loading:
            super().set_parameters(load_path_or_dict, exact_match, device)
            return
        if isinstance(load_path_or_dict, dict):
            # PyTorch's optimizers take the tensors as they are: the moments would be those of the agent that gave them, too
            load_path_or_dict = copy.deepcopy(load_path_or_dict)
        with self.all_interventions.all_parameters():
            self._exchange_parameters(load_path_or_dict, exact_match, device)
        self.all_interventions.on_load()

    def _exchange_parameters(self, load_path_or_dict: str | TensorDict, exact_match: bool, device: th.device | str) -> None:
        before = copy.deepcopy((self.get_parameters(), self.all_interventions.state_dict()))
        try:
            super().set_parameters(load_path_or_dict, exact_match, device)
            if not isinstance(load_path_or_dict, dict):
                self.all_interventions.load_state_dict(read_member(load_path_or_dict, STATE, device) or {}, strict=exact_match)
        except Exception:
            super().set_parameters(before[0], device=device)  # type: ignore[arg-type]
            self.all_interventions.load_state_dict(before[1])
            raise

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles, in which the interventions are made anew: see :meth:`__setstate__`."""
        state = vars(self).copy()
        acting = state.pop("all_interventions", None)
        if acting is not None:
            state["_of_interventions"] = acting.switched_off, acting.state_dict(), acting.memory_state()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        of_interventions = state.pop("_of_interventions", None)
        vars(self).update(state)
        if of_interventions is not None:
            self._attach_interventions()
            self.all_interventions.switched_off, found, remembered = of_interventions
            self.all_interventions.load_state_dict(found)
            self.all_interventions.load_memory_state(remembered)
            self.all_interventions.on_load()

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "all_interventions", "_is_loading", "_random_states"]
