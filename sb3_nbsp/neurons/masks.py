"""Hold neurons back: the mask of NBSP and the masked optimizer step."""

from collections.abc import Sequence

import torch as th
from torch import nn

from sb3_nbsp.neurons.fused_optimizers import can_step_into, step_into, take_step


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

    Adam's step is computed beside the parameters and then added to them; for other optimizers the parameters are
    kept, and the step is taken back in part.

    :param masked: pairs of a parameter and its mask: of shape (neurons,), which applies to the parameter's first
        dimension, or one that multiplies the parameter entry by entry (with as many dimensions, some of which may be 1)
    :raises ValueError: if a parameter has two masks
    """

    def __init__(self, masked: Sequence[tuple[nn.Parameter, th.Tensor]]) -> None:
        self.masked = list(masked)
        if len({id(parameter) for parameter, _ in masked}) < len(masked):
            raise ValueError("masked: a parameter has two masks; multiply them")
        self._masks: dict[th.Tensor, th.Tensor] = {parameter: _as_factor(mask, parameter) for parameter, mask in masked}
        # For each parameter either its step or what it was before the step
        self._scratch = {parameter: th.zeros_like(parameter.data) for parameter in self._masks}
        self._parameters: list[th.Tensor] = []
        self._versions = -1

    def take(self, optimizer: th.optim.Optimizer) -> None:
        """
        ``optimizer.step()``, masked. Parameters of the optimizer that have no mask take the whole step.

        :param optimizer: any
        """
        if can_step_into(optimizer):
            self._add_step(optimizer)
        else:
            self.before()
            take_step(optimizer)
            self.after()

    @th.no_grad()
    def _add_step(self, optimizer: th.optim.Optimizer) -> None:
        parameters: list[th.Tensor] = optimizer.param_groups[0]["params"]
        if parameters is not self._parameters:
            self._cover(parameters)
        if self._versions != _versions(parameters):
            # Somebody else has written to the parameters, perhaps because the last step was not finite: see step_into
            th._foreach_zero_(self._changes)
        step_into(optimizer, self._changes)
        # With a mask of 1 this is what the kernel itself would do, bit for bit; with 0 nothing
        th._foreach_addcmul_(parameters, self._changes, self._factors)
        self._versions = _versions(parameters)

    def _cover(self, parameters: list[th.Tensor]) -> None:
        """All parameters of the optimizer: those without a mask take the whole step."""
        self._parameters, self._versions = parameters, -1
        one = th.ones((), dtype=parameters[0].dtype)
        self._factors = [self._masks.get(parameter, one) for parameter in parameters]
        self._changes = [self._scratch.get(parameter, th.zeros_like(parameter.data)) for parameter in parameters]

    def before(self) -> None:
        """Keep the masked neurons' parameters as they are ahead of somebody else's step."""
        for parameter, old in self._scratch.items():
            old.copy_(parameter.data)

    def after(self) -> None:
        """Take back what the masks do not allow. Neurons with a mask of 1 are not touched; 0 is exact too."""
        for parameter, old in self._scratch.items():
            # With a weight of 1 lerp gives its second argument, bit for bit
            th.lerp(old, parameter.data, self._masks[parameter], out=parameter.data)


def take_masked_step(optimizer: th.optim.Optimizer, masked: Sequence[MaskedStep]) -> None:
    """
    ``optimizer.step()``, scaled by all masks: where several hold back the same neuron, by their product.

    :param optimizer: any
    :param masked: may be empty
    """
    if not masked:
        take_step(optimizer)
        return
    *others, last = dict.fromkeys(masked)  # one that masks two networks counts once
    for other in others:
        other.before()
    last.take(optimizer)
    for other in reversed(others):
        other.after()


def _versions(parameters: Sequence[th.Tensor]) -> int:
    """PyTorch counts how often a tensor is written to (other than by its ``data``)."""
    return sum(parameter._version for parameter in parameters)


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
