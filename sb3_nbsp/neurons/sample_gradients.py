"""Gradients of single samples: how large they are, and how much they agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch as th


def sample_gradients(
    objective: Callable[[int], th.Tensor], n_samples: int, parameters: Sequence[th.nn.Parameter]
) -> th.Tensor:
    """
    One gradient per sample. The parameters' own ``.grad`` is left alone.

    :param objective: computes the scalar to differentiate for the sample of a given index
    :param n_samples: number of samples
    :param parameters: what to differentiate by; those that a sample does not depend on count as zero
    :return: shape (samples, number of parameters in all)
    """
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    rows = []
    with th.enable_grad():
        for index in range(n_samples):
            parts = th.autograd.grad(objective(index), learning, allow_unused=True, materialize_grads=True)
            rows.append(th.cat([part.flatten() for part in parts]))
    return th.stack(rows)


def mean_gradient_norm(gradients: th.Tensor) -> float:
    """
    Mean over samples of the L2 norm of the gradient.

    :param gradients: shape (samples, parameters)
    :return: at least 0
    """
    return gradients.norm(dim=1).mean().item()


def gradient_covariance(gradients: th.Tensor) -> th.Tensor:
    r"""
    Normalized gradient covariance (Lyle et al., *Understanding Plasticity in Neural Networks*, 2023; P3O paper, figures
    28 to 30): the cosine of the angle between the gradients of two samples.

    .. math:: C_{ij} = \frac{\langle g_i, g_j \rangle}{\|g_i\| \, \|g_j\|}

    A gradient of zero has a cosine of 0 with every other, and with itself.

    :param gradients: :math:`g_i`, shape (samples, parameters)
    :return: in [-1, 1], shape (samples, samples)
    """
    norms = gradients.norm(dim=1, keepdim=True)
    directions = th.where(norms > 0, gradients / norms, th.zeros_like(gradients))
    return (directions @ directions.T).clamp(-1, 1)


def gradient_correlation(covariance: th.Tensor) -> float:
    """
    Mean absolute cosine over pairs of two different samples: 0 if all gradients are orthogonal, 1 if they share one line.

    :param covariance: what :func:`gradient_covariance` returns, shape (samples, samples)
    :return: in [0, 1]; not a number for a single sample
    """
    n_samples = len(covariance)
    different = ~th.eye(n_samples, dtype=th.bool, device=covariance.device)
    return covariance[different].abs().mean().item()
