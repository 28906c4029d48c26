"""How far two policies are apart: the α-weighted double KL divergence of P3O."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch as th
from torch.distributions import Bernoulli, Categorical, Distribution, Normal, kl_divergence

_PARAMETERS: dict[type[Distribution], tuple[str, ...]] = {
    Normal: ("loc", "scale"),
    Categorical: ("logits",),
    Bernoulli: ("logits",),
}


def alpha_dkl(teacher: Sequence[Distribution], student: Sequence[Distribution], alpha: float) -> th.Tensor:
    r"""
    P3O paper, equation 4, in closed form.

    .. math:: \alpha \, D_{KL}(\pi_{tem} \parallel \pi_{\theta'}) + (1 - \alpha) \, D_{KL}(\pi_{\theta'} \parallel \pi_{tem})

    A tanh that squashes the actions of both policies leaves it as it is.

    :param teacher: :math:`\pi_{tem}`, distributions of the parts of the action; their entries are the states
    :param student: :math:`\pi_{\theta'}`, likewise
    :param alpha: weight of the forward divergence, in [0, 1]
    :return: summed over the dimensions of the action, shape (states,)
    """
    parts = [_divergence(old, new, alpha) for old, new in zip(teacher, student, strict=True)]
    return parts[0] if len(parts) == 1 else th.stack(parts).sum(0)


def _divergence(old: Distribution, new: Distribution, alpha: float) -> th.Tensor:
    if isinstance(old, Normal) and isinstance(new, Normal):
        return _normal_divergence(old, new, alpha)
    return alpha * _per_state(kl_divergence(old, new)) + (1 - alpha) * _per_state(kl_divergence(new, old))


def _normal_divergence(old: Normal, new: Normal, alpha: float) -> th.Tensor:
    r"""
    Both KLs of Gaussians at once, in fewer operations:

    .. math::
        (2 \alpha - 1) \ln \frac{\sigma'}{\sigma} - \frac12
        + \alpha \frac{\sigma^2 + (\mu - \mu')^2}{2 \sigma'^2}
        + (1 - \alpha) \frac{\sigma'^2 + (\mu - \mu')^2}{2 \sigma^2}
    """
    ratio, distance = new.scale / old.scale, (new.loc - old.loc) / old.scale
    square, distance = ratio.square(), distance.square()
    forward, backward = (1 + distance) / square, square + distance
    summands = (2 * alpha - 1) * ratio.log() + (alpha / 2) * forward + ((1 - alpha) / 2) * backward
    return (summands - 0.5).sum(1)


def _per_state(divergence: th.Tensor) -> th.Tensor:
    return divergence.flatten(1).sum(1) if divergence.dim() > 1 else divergence


def at_states(distributions: Sequence[Distribution], states: th.Tensor) -> list[Distribution]:
    """
    :param distributions: of the parts of the action; their entries are the states
    :param states: indices of states
    :return: the same distributions for these states only, without gradients
    :raises ValueError: if a distribution is of an unknown kind
    """
    return [_combine([each], lambda tensors: tensors[0][states]) for each in distributions]


def joined(batches: Sequence[Sequence[Distribution]]) -> list[Distribution]:
    """
    Put the distributions of several batches of states together.

    :param batches: for each batch the distributions of the parts of the action
    :return: the distributions for all states, without gradients
    :raises ValueError: if a distribution is of an unknown kind
    """
    return [_combine(parts, th.cat) for parts in zip(*batches, strict=True)]


def _combine(distributions: Sequence[Distribution], combine: Callable[[list[th.Tensor]], th.Tensor]) -> Distribution:
    """A distribution of the same kind, whose parameters are made from those of the given ones."""
    kind = type(distributions[0])
    if kind not in _PARAMETERS:
        raise ValueError(f"action_space: policies whose actions follow {kind.__name__} cannot be distilled")
    parameters = {name: combine([getattr(each, name).detach() for each in distributions]) for name in _PARAMETERS[kind]}
    return kind(**parameters, validate_args=False)  # type: ignore[arg-type]
