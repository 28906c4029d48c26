"""Quadratic penalties that pull parameters to where they were, by their gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch as th
from torch import nn

# By name of a parameter
Tensors = dict[str, th.Tensor]


@dataclass
class Importance:
    """
    What is known of the parameters of one network since the end of a phase.

    :param fisher: F, by name of a parameter
    :param anchor: θ*, likewise
    """

    fisher: Tensors
    anchor: Tensors


class Pull:
    r"""
    A quadratic penalty :math:`\lambda \sum_t \sum_i F_{t,i} (\theta_i - \theta^*_{t,i})^2`, by its gradient.

    :param parameters: θ, by name
    :param importances: :math:`F_t` and :math:`\theta^*_t`; parameters that they do not know are left alone
    :param coef: λ
    :raises ValueError: if a parameter has another shape than what is known of it
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], importances: Sequence[Importance], coef: float) -> None:
        together = merged(importances)
        known = {name: parameter for name, parameter in parameters.items() if name in together.fisher}
        for name, parameter in known.items():
            if (shape := together.fisher[name].shape) != parameter.shape:
                raise ValueError(
                    f"policy: what is known of {name!r} from earlier phases has the shape {tuple(shape)}, the parameter "
                    f"{tuple(parameter.shape)}"
                )
        self._parameters: list[th.Tensor] = list(known.values())
        self._anchors = [together.anchor[name].to(parameter) for name, parameter in known.items()]
        self._slopes = [2 * coef * together.fisher[name].to(parameter) for name, parameter in known.items()]
        self._constant = coef * sum(_penalty(each.fisher, each.anchor, together.anchor) for each in importances)

    @th.no_grad()
    def add_gradients(self) -> None:
        r"""Add :math:`2 \lambda F (\theta - \theta^*)` to the gradients of the parameters that have one."""
        rows = zip(self._parameters, self._anchors, self._slopes, strict=True)
        learning = [(each.grad, each, anchor, slope) for each, anchor, slope in rows if each.grad is not None]
        if learning:
            gradients, parameters, anchors, slopes = (list(column) for column in zip(*learning, strict=True))
            th._foreach_addcmul_(gradients, slopes, th._foreach_sub(parameters, anchors))

    @th.no_grad()
    def value(self) -> float:
        """The penalty at present."""
        rows = zip(self._slopes, self._parameters, self._anchors, strict=True)
        return self._constant + sum((slope * (each - anchor).square()).sum().item() for slope, each, anchor in rows) / 2


def merged(importances: Sequence[Importance]) -> Importance:
    r"""
    Several penalties as one, up to a constant: with :math:`\bar F = \sum_t F_t`,

    .. math:: \sum_t F_t (\theta - \theta^*_t)^2 = \bar F (\theta - \bar\theta)^2 + \text{const}, \quad
        \bar\theta = \frac1{\bar F} \sum_t F_t \theta^*_t

    :param importances: :math:`F_t` and :math:`\theta^*_t`
    :return: :math:`\bar F` and :math:`\bar\theta`
    """
    if len(importances) == 1:
        return importances[0]
    fisher, anchor = {}, {}
    for name in dict.fromkeys(name for each in importances for name in each.fisher):
        known = [each for each in importances if name in each.fisher]
        weights = th.stack([each.fisher[name] for each in known])
        fisher[name] = weights.sum(0)
        shares = th.where(fisher[name] > 0, weights.double() / fisher[name], 1 / len(known))
        anchor[name] = (shares * th.stack([each.anchor[name] for each in known])).sum(0).to(weights)
    return Importance(fisher, anchor)


def _penalty(fisher: Tensors, anchor: Tensors, parameters: Tensors) -> float:
    return sum((each * (parameters[name] - anchor[name]).square()).sum().item() for name, each in fisher.items())
