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


def normal_gradient(old: Normal, new: Normal, alpha: float) -> tuple[th.Tensor, th.Tensor]:
    r"""
    Gradient of :func:`alpha_dkl` for Gaussians. With :math:`r = \sigma' / \sigma` and :math:`d = (\mu' - \mu) / \sigma`, a
    dimension of the action has

    .. math::
        L = (2 \alpha - 1) \ln r - \tfrac12 + \tfrac\alpha2 \, \frac{1 + d^2}{r^2} + \tfrac{1 - \alpha}2 (r^2 + d^2)

    so that

    .. math::
        \frac{\partial L}{\partial \mu'} = \frac d\sigma \left( \frac{\alpha}{r^2} + 1 - \alpha \right), \quad
        \frac{\partial L}{\partial \ln \sigma'} = 2 \alpha - 1 - \alpha \, \frac{1 + d^2}{r^2} + (1 - \alpha) \, r^2

    :param old: the teacher, :math:`\mu` and :math:`\sigma`, shape (states, actions)
    :param new: the student, :math:`\mu'` and :math:`\sigma'`, shape (states, actions)
    :param alpha: weight of the forward divergence
    :return: with respect to :math:`\mu'` and :math:`\ln \sigma'`, each of shape (states, actions)
    """
    distance, square = (new.loc - old.loc) / old.scale, (new.scale / old.scale).square()
    forward = alpha / square
    mean_gradient = distance * (forward + (1 - alpha)) / old.scale
    log_std_gradient = (2 * alpha - 1) - forward * (1 + distance.square()) + (1 - alpha) * square
    return mean_gradient, log_std_gradient


def categorical_gradient(old: Categorical, new: Categorical, alpha: float) -> th.Tensor:
    r"""
    Gradient of :func:`alpha_dkl` for categorical distributions: of probabilities p and, for logits l, p':

    .. math::
        \frac{\partial L}{\partial l_k} = \alpha (p'_k - p_k)
        + (1 - \alpha) \, p'_k \left( \ln \frac{p'_k}{p_k} - D_{KL}(p' \parallel p) \right)

    :param old: the teacher, p, shape (states, actions)
    :param new: the student, p', shape (states, actions)
    :param alpha: weight of the forward divergence
    :return: shape (states, actions)
    """
    log_ratio = new.logits - old.logits  # both are normalized
    divergence = (new.probs * log_ratio).sum(1, keepdim=True)
    return alpha * (new.probs - old.probs) + (1 - alpha) * new.probs * (log_ratio - divergence)


def _per_state(divergence: th.Tensor) -> th.Tensor:
    return divergence.flatten(1).sum(1) if divergence.dim() > 1 else divergence


def at_states(distributions: Sequence[Distribution], states: th.Tensor) -> list[Distribution]:
    """
    :param distributions: distributions of the parts of the action; their entries are the states
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


def parameters_of(distribution: Distribution) -> dict[str, th.Tensor]:
    """
    :param distribution: of actions
    :return: by name, what makes another one like it, without gradients
    :raises ValueError: if the distribution is of an unknown kind
    """
    kind = type(distribution)
    if kind not in _PARAMETERS:
        raise ValueError(f"action_space: policies whose actions follow {kind.__name__} cannot be distilled")
    return {name: getattr(distribution, name).detach() for name in _PARAMETERS[kind]}


def of_parameters(kind: type[Distribution], parameters: dict[str, th.Tensor]) -> Distribution:
    """
    :param kind: a class of distributions
    :param parameters: by name, see :func:`parameters_of`
    :return: a distribution, whose parameters are not checked
    """
    return kind(**parameters, validate_args=False)  # type: ignore[arg-type]


def _combine(distributions: Sequence[Distribution], combine: Callable[[list[th.Tensor]], th.Tensor]) -> Distribution:
    """A distribution of the same kind, whose parameters are made from those of the given ones."""
    parts = [parameters_of(each) for each in distributions]
    parameters = {name: combine([part[name] for part in parts]) for name in parts[0]}
    return of_parameters(type(distributions[0]), parameters)
