"""The options of a method are those of its interventions: in its signature, its help and what type checkers see."""

from __future__ import annotations

import inspect
import pydoc
import re
from typing import Any

import pytest

from sb3_nbsp import NBSPSAC, P3O, SBPSAC, ContinualSAC
from sb3_nbsp.algorithms import methods
from sb3_nbsp.algorithms.method import Method
from sb3_nbsp.algorithms.options import parameter_texts
from sb3_nbsp.interventions import CycleReset, GradientMasking
from tools import stubs

METHODS = [each for each in vars(methods).values() if inspect.isclass(each) and each.__module__ == methods.__name__]


@pytest.mark.parametrize("cls", METHODS)
def test_every_option_has_a_type_a_default_and_a_text(cls: type[Any]) -> None:
    parameters, page = inspect.signature(cls).parameters, pydoc.plain(pydoc.render_doc(cls))
    page = " ".join(re.sub(r"^ \|", "", page, flags=re.MULTILINE).split())
    names = [name for part in cls.parts for name in inspect.signature(part).parameters]
    assert (cls.parts or cls.own_policy_kwargs) and set(names) <= set(cls.options)
    for part in cls.parts:
        texts = parameter_texts(part)
        for name, option in inspect.signature(part).parameters.items():
            shown = parameters[name]
            assert shown.kind is shown.KEYWORD_ONLY and shown.annotation == option.annotation != shown.empty
            assert shown.default == cls.defaults.get(name, option.default)
            assert texts[name] and f":param {name}: {texts[name]}" in page
    for name in ("policy", "env", "learning_rate", "gamma", "interventions", "fused", "matmul_precision"):
        assert name in parameters, "those of the agent and of SB3"


def test_defaults_of_a_class_are_its_own() -> None:
    assert P3O("MlpPolicy", "Pendulum-v1").reset_frequency == 50_000  # type: ignore[attr-defined, unused-ignore]
    assert inspect.signature(SBPSAC).parameters["reset_frequency"].default == 10_000
    with pytest.raises(TypeError, match=r"defaults of \['reset_frequenzy'\]"):
        type("Own", (Method, ContinualSAC), {"parts": (CycleReset,), "defaults": {"reset_frequenzy": 1}})


def test_defaults_come_on_top_of_those_of_the_base() -> None:
    class Faster(SBPSAC):
        defaults = {"reset_rate": 0.05}  # noqa: RUF012

    class Fastest(Faster):
        defaults = {"reset_frequency": 100}  # noqa: RUF012

    class ResetOnly(Fastest):
        parts = (CycleReset,)

    names = ("reset_rate", "reset_frequency", "distill_alpha")
    assert [Faster.options[name].default for name in names] == [0.05, 10_000, 0.8]
    assert [Fastest.options[name].default for name in names] == [0.05, 100, 0.8]
    assert {name: option.default for name, option in ResetOnly.options.items() if name in names} == {
        "reset_rate": 0.05,
        "reset_frequency": 100,
    }


def test_a_method_of_ones_own() -> None:
    class Own(NBSPSAC):
        """NBSP that moves skill neurons not at all."""

        defaults = {"mask_alpha": 0.0}  # noqa: RUF012

    agent = Own("MlpPolicy", "Pendulum-v1", 1e-3, replay=False, skill_proportion=0.5)
    (masking,) = agent.all_interventions
    assert isinstance(masking, GradientMasking) and (masking.mask_alpha, masking.skill_proportion) == (0.0, 0.5)
    assert agent.learning_rate == 1e-3
    assert ":param mask_alpha: α of equation 7" in (Own.__doc__ or "")

    class Extended(NBSPSAC):
        """One more option."""

        def __init__(self, *args: Any, mine: int = 1, **kwargs: Any) -> None:
            self.mine = mine
            super().__init__(*args, **kwargs)

    assert {"mine", "mask_alpha", "gamma"} <= inspect.signature(Extended).parameters.keys()
    with pytest.raises(AttributeError, match="mask_alpha of Extended is fixed"):
        Extended("MlpPolicy", "Pendulum-v1").mask_alpha = 0.3


def test_every_method_is_exported() -> None:
    assert methods.__all__ == [each.__name__ for each in METHODS], "__all__ must come after all classes"


def test_type_checkers_see_the_same() -> None:
    assert stubs.PATH.read_text(encoding="utf-8") == stubs.stub(), "run python -m tools.stubs"
