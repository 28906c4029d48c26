"""What classes that name a method's interventions share."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod

from sb3_nbsp.interventions import Intervention
from sb3_nbsp.interventions.base import AnyIntervention


class Method(ABC):
    """
    Stands in front of an algorithm in a class's bases. The class keeps the options of its interventions as attributes of the
    same names, and calls :meth:`_own_interventions` before anything is built, so that a wrong option is an early error.
    """

    @abstractmethod
    def _own_interventions(self) -> list[Intervention]:
        """The interventions that make up the method, in order; those of the user act after them."""

    def _make_interventions(self) -> list[Intervention]:
        return self._own_interventions() + super()._make_interventions()  # type: ignore[misc]

    def _with_options(self, kind: type[AnyIntervention]) -> AnyIntervention:
        """An intervention whose options are the attributes of the same names."""
        return kind(**{name: getattr(self, name) for name in inspect.signature(kind).parameters})
