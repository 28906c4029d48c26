"""Hold neurons back: the mask of NBSP and the masked optimizer step."""

from collections.abc import Sequence

import torch as th
from torch import nn

# Share of masked rows from which on a parameter is masked as a whole (measured: the two ways are then equally fast)
_MANY = 0.4


def skill_mask(scores: th.Tensor, selected: th.Tensor, alpha: float = 0.2, hard: bool = False) -> th.Tensor:
    r"""
    Mask of NBSP, equation 7.

    .. math:: mask(N) = \alpha (1 - Score(N)) \text{ for skill neurons, } 1 \text{ for the others}

    :param scores: Score(N) in [0.5, 1], shape (neurons,)
    :param selected: boolean, True for the skill neurons, shape (neurons,)
    :param alpha: degree of restriction
    :param hard: 0 for skill neurons ("hard gradient masking" of table 2)
    :return: mask in [0, 1], shape (neurons,)
    """
    protected = th.zeros_like(scores) if hard else alpha * (1 - scores)
    return th.where(selected, protected, th.ones_like(scores))


class MaskedStep:
    r"""
    Scale what an optimizer does to single neurons: NBSP, equation 6.

    .. math:: \theta \leftarrow \theta + mask \odot \Delta

    with :math:`\Delta` the change that the optimizer makes on its own. Algorithm 2 writes plain
    gradient descent, where scaling the gradient is the same. Under Adam it is not: Adam divides by
    the gradient's running magnitude, in which a constant factor cancels, and its momentum moves a
    weight whose gradient is zero. So the step is scaled, whatever the optimizer.

    Call :meth:`before` ahead of ``optimizer.step()`` and :meth:`after` behind it.

    :param masked: pairs of a parameter and its mask, of shape (neurons,), which applies to the
        parameter's first dimension
    """

    def __init__(self, masked: Sequence[tuple[nn.Parameter, th.Tensor]]) -> None:
        self.masked = list(masked)
        self._parts: list[_MaskedRows | _MaskedWhole] = [
            _MaskedRows(parameter, mask) if (mask < 1).float().mean() < _MANY else _MaskedWhole(parameter, mask)
            for parameter, mask in masked
        ]

    def before(self) -> None:
        """Keep the masked neurons' parameters as they are ahead of the optimizer's step."""
        for part in self._parts:
            part.keep()

    def after(self) -> None:
        """Take back what the masks do not allow. Neurons with a mask of 1 are not touched; 0 is exact too."""
        for part in self._parts:
            part.take_back()


class _MaskedWhole:
    """One parameter of which many rows have a mask below 1: to go through all of it is then faster than to pick rows."""

    def __init__(self, parameter: nn.Parameter, mask: th.Tensor) -> None:
        self._parameter = parameter
        self._mask = _as_factor(mask, parameter)
        self._old = parameter.data.clone()

    def keep(self) -> None:
        self._old.copy_(self._parameter.data)

    def take_back(self) -> None:
        # With a weight of 1 lerp gives its second argument, bit for bit
        th.lerp(self._old, self._parameter.data, self._mask, out=self._parameter.data)


class _MaskedRows:
    """The rows of one parameter whose mask is below 1: the others cost nothing."""

    def __init__(self, parameter: nn.Parameter, mask: th.Tensor) -> None:
        self._parameter = parameter
        self._rows = th.nonzero(mask < 1).flatten().to(parameter.device)
        self._mask = _as_factor(mask, parameter)[self._rows]
        self._old = parameter.data[self._rows]

    def keep(self) -> None:
        th.index_select(self._parameter.data, 0, self._rows, out=self._old)

    def take_back(self) -> None:
        new = self._parameter.data.index_select(0, self._rows)
        self._parameter.data.index_copy_(0, self._rows, self._old.lerp_(new, self._mask))


def _as_factor(mask: th.Tensor, parameter: th.Tensor) -> th.Tensor:
    """A mask of shape (neurons,) in a shape that multiplies the parameter's first dimension."""
    return mask.to(parameter).view(-1, *[1] * (parameter.dim() - 1))


def mask_gradients(masked: Sequence[tuple[nn.Parameter, th.Tensor]]) -> None:
    """
    Multiply gradients by masks in place: the literal reading of equation 6 (an ablation; see :class:`MaskedStep`).

    :param masked: pairs of a parameter and its mask of shape (neurons,)
    """
    for parameter, mask in masked:
        if parameter.grad is not None:
            parameter.grad.mul_(_as_factor(mask, parameter.grad))
