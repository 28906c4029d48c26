"""Hold neurons back: the mask of NBSP and the masked optimizer step."""

from collections.abc import Sequence

import torch as th
from torch import nn


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
    Scale an optimizer's step for single neurons: NBSP, equation 6.

    .. math:: \theta \leftarrow \theta + mask \odot \Delta

    with :math:`\Delta` the change that the optimizer makes on its own. Algorithm 2 writes plain
    gradient descent, where scaling the gradient is the same. Under Adam it is not: Adam divides by
    the gradient's running magnitude, in which a constant factor cancels, and its momentum moves a
    weight whose gradient is zero. So the step is scaled, whatever the optimizer: call :meth:`before` before it steps and
    :meth:`after` afterwards.

    :param masked: pairs of a parameter and its mask: of shape (neurons,), which applies to the parameter's first
        dimension, or one that multiplies the parameter entry by entry (with as many dimensions, some of which may be 1)
    :raises ValueError: if a parameter has two masks
    """

    def __init__(self, masked: Sequence[tuple[nn.Parameter, th.Tensor]]) -> None:
        self.masked = list(masked)
        if len({id(parameter) for parameter, _ in masked}) < len(masked):
            raise ValueError("masked: a parameter has two masks; multiply them")
        # By parameter, in a shape that multiplies it
        self.factors: dict[th.Tensor, th.Tensor] = {parameter: _as_factor(mask, parameter) for parameter, mask in masked}
        self._old: dict[th.Tensor, th.Tensor] = {}

    def before(self) -> None:
        """Keep the masked neurons' parameters as they are ahead of a step."""
        for parameter in self.factors:
            if parameter not in self._old:
                self._old[parameter] = th.empty_like(parameter.data)
            self._old[parameter].copy_(parameter.data)

    def after(self) -> None:
        """Take back what the masks do not allow. Neurons with a mask of 1 are not touched; 0 is exact too."""
        for parameter, factor in self.factors.items():
            # With a weight of 1 lerp gives its second argument, bit for bit
            th.lerp(self._old[parameter], parameter.data, factor, out=parameter.data)


def _as_factor(mask: th.Tensor, parameter: th.Tensor) -> th.Tensor:
    """A mask of shape (neurons,) in a shape that multiplies the parameter's first dimension; others as they are."""
    mask = mask.to(parameter)
    return mask.view(-1, *[1] * (parameter.dim() - 1)) if mask.dim() == 1 else mask


def mask_gradients(masked: Sequence[tuple[nn.Parameter, th.Tensor]]) -> None:
    """
    Multiply gradients by masks in place: the literal reading of equation 6 (an ablation; see :class:`MaskedStep`).

    :param masked: pairs of a parameter and its mask, see :class:`MaskedStep`
    """
    for parameter, mask in masked:
        if parameter.grad is not None:
            parameter.grad.mul_(_as_factor(mask, parameter.grad))
