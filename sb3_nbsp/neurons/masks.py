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
        self.parameters = [parameter for parameter, _ in masked]
        self.masks = [mask.to(parameter).view(-1, *[1] * (parameter.dim() - 1)).clone() for parameter, mask in masked]
        self._old = [th.empty_like(parameter.data) for parameter in self.parameters]

    def before(self) -> None:
        """Keep the parameters as they are ahead of the optimizer's step."""
        for old, parameter in zip(self._old, self.parameters, strict=True):
            old.copy_(parameter.data)

    def after(self) -> None:
        """Take back what the mask does not allow. Exact where the mask is 0 or 1."""
        for old, parameter, mask in zip(self._old, self.parameters, self.masks, strict=True):
            th.lerp(old, parameter.data, mask, out=parameter.data)


def mask_gradients(masked: Sequence[tuple[nn.Parameter, th.Tensor]]) -> None:
    """
    Multiply gradients by masks in place: the literal reading of equation 6 (an ablation; see :class:`MaskedStep`).

    :param masked: pairs of a parameter and its mask of shape (neurons,)
    """
    for parameter, mask in masked:
        if parameter.grad is not None:
            parameter.grad.mul_(mask.to(parameter.grad).view(-1, *[1] * (parameter.dim() - 1)))
