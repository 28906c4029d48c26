"""What a class that names a method is: a base agent and interventions whose options are its own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv

from sb3_nbsp.algorithms.options import parameter_texts
from sb3_nbsp.checks import check_option
from sb3_nbsp.interventions import Intervention


class Method:
    """
    Stands in front of an agent in a class's bases. The options of its interventions, written and documented there, become
    options of the class: attributes, keyword arguments, and lines of its signature and its docstring.
    """

    # The interventions that make up the method, in order; those of the user act after them
    parts: ClassVar[tuple[type[Intervention], ...]] = ()
    # Options that switch a part off, True by default, with what help() says of them
    switches: ClassVar[Mapping[str, tuple[type[Intervention], str]]] = {}
    # Options whose default is another one than the intervention's, or than that of the class it derives from
    defaults: ClassVar[Mapping[str, Any]] = {}
    # Entries of policy_kwargs that make up the method
    own_policy_kwargs: ClassVar[Mapping[str, Any]] = {}
    # All options with their defaults: made from the above
    options: ClassVar[Mapping[str, inspect.Parameter]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        cls.options = _options(cls)
        super().__init_subclass__(**kwargs)

    def __init__(self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any, **kwargs: Any) -> None:
        for name, option in self.options.items():
            setattr(self, name, kwargs.pop(name, option.default))
        for name in self.switches:
            check_option(name, getattr(self, name), (True, False))
        self._make_parts()  # complains of a wrong option before anything is built
        super().__init__(policy, env, *args, **kwargs)  # type: ignore[call-arg]

    def _setup_model(self) -> None:
        for name, value in self.own_policy_kwargs.items():
            given = self.policy_kwargs.get(name, value)  # type: ignore[has-type]
            if given != value:
                raise ValueError(f"policy_kwargs: {name} of {type(self).__name__} is {value!r}, not {given!r}")
        self.policy_kwargs = {**self.policy_kwargs, **self.own_policy_kwargs}  # type: ignore[has-type]
        super()._setup_model()  # type: ignore[misc]

    @classmethod
    def option_texts(cls) -> dict[str, str]:
        """
        :return: what the options mean, by name
        """
        texts = {name: text for name, (_, text) in cls.switches.items()}
        for part in reversed(cls.parts):
            texts |= parameter_texts(part)
        return texts

    def _make_parts(self) -> list[Intervention]:
        """All of them, with the options that are attributes of the same names."""
        return [part(**{name: getattr(self, name) for name in inspect.signature(part).parameters}) for part in self.parts]

    def _switched_off(self) -> list[str]:
        return [part.__name__ for name, (part, _) in self.switches.items() if not getattr(self, name)]

    def _make_interventions(self) -> list[Intervention]:
        off = self._switched_off()
        own = [part for part in self._make_parts() if type(part).__name__ not in off]
        return own + super()._make_interventions()  # type: ignore[misc]


def on(agent: type[BaseAlgorithm], method: type[Method]) -> type[Method]:
    """
    :param agent: another base agent
    :param method: a method on :class:`ContinualSAC`, named ``...SAC``
    :return: the same on the other agent, named after both
    """
    name = method.__name__.removesuffix("SAC") + agent.__name__.removeprefix("Continual")
    bases = *(base for base in method.__bases__ if not issubclass(base, BaseAlgorithm)), agent
    own = {
        each: value for each, value in vars(method).items() if each in ("parts", "switches", "defaults", "own_policy_kwargs")
    }
    where = "PPO" if issubclass(agent, OnPolicyAlgorithm) else "SAC for discrete actions"
    return type(
        name,
        bases,
        {**own, "__doc__": f"The method of :class:`{method.__name__}` on {where}.", "__module__": method.__module__},
    )


class StartsAnew:
    """
    Stands in front of a method of SAC that begins each new task with critics of its own.

    :param reset_optimizers: clear the optimizers' moments when a new task starts
    :param reset_critics: initialize the critics and their targets again, and forget their optimizer's moments, when a new
        task starts
    :param reset_ent_coef: set a learned entropy coefficient back to its initial value when a new task starts
    """

    def __init__(
        self,
        *args: Any,
        reset_optimizers: bool = True,
        reset_critics: bool = True,
        reset_ent_coef: bool = True,
        **kwargs: Any,
    ) -> None:
        resets = {"reset_optimizers": reset_optimizers, "reset_critics": reset_critics, "reset_ent_coef": reset_ent_coef}
        super().__init__(*args, **resets, **kwargs)


class KeepsReplayBuffer:
    """
    Stands in front of a method of SAC that never empties D.

    :param clear_replay_buffer: must be False, as the method keeps all transitions
    """

    def __init__(self, *args: Any, clear_replay_buffer: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, clear_replay_buffer=clear_replay_buffer, **kwargs)  # type: ignore[call-arg]

    def _check_options(self) -> None:
        super()._check_options()  # type: ignore[misc]
        if self.clear_replay_buffer:  # type: ignore[attr-defined]
            raise ValueError(
                f"clear_replay_buffer=True empties D, in which {type(self).__name__} keeps all transitions: leave it False"
            )


def _options(cls: type[Method]) -> dict[str, inspect.Parameter]:
    given = {
        name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=True, annotation=bool) for name in cls.switches
    }
    for part in cls.parts:
        given |= {
            name: option.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, option in inspect.signature(part, eval_str=False).parameters.items()
        }
    unknown = vars(cls).get("defaults", {}).keys() - given.keys()
    if unknown:
        raise TypeError(f"{cls.__name__}: defaults of {sorted(unknown)}, which none of its parts has as an option")
    defaults: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        defaults |= vars(base).get("defaults", {})
    return {name: option.replace(default=defaults.get(name, option.default)) for name, option in given.items()}
