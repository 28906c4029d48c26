"""The arithmetic that a SAC gradient step cannot do without: its matrix products, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch as th

from sb3_nbsp.fast.matmul_precision import LARGE, MatmulPrecision
from sb3_nbsp.fast.onednn import WIDE, _linear, onednn_is_faster

# Rows, inner size, columns of a product
Shape = tuple[int, int, int]


def sac_products(
    net_arch: Sequence[int], observations: int = 39, actions: int = 4, batch: int = 256, critics: int = 2
) -> list[Shape]:
    """
    The matrix products of one gradient step of SAC for MLPs: the actor acts on observations and next observations; the target
    critics rate the latter; the critics rate the batch's actions and the actor's, and learn; the actor learns
    through the critic that gives a sample its minimum.

    :param net_arch: sizes of the hidden layers, of actor and critics
    :param observations: size of the observations
    :param actions: size of the actions
    :param batch: transitions
    :param critics: number of critics
    :return: their shapes
    """
    actor = [observations, *net_arch, 2 * actions]
    critic = [observations + actions, *net_arch, 1]
    rated = critics * _forward(critic, batch)
    products = 2 * _forward(actor, batch)
    products += 3 * rated
    products += critics * (_weights(critic, batch) + _inputs(critic, batch)[1:])
    products += [(batch, net_arch[0] if net_arch else 1, actions), *_inputs(critic, batch)[1:]]
    return products + _weights(actor, batch) + _inputs(actor, batch)[1:]


def runner(shapes: Sequence[Shape], precision: MatmulPrecision = "highest") -> Callable[[], None]:
    """
    :param shapes: of matrix products
    :param precision: "medium": of the large ones in bfloat16
    :return: computes all of them, as the gradient step does
    """
    by_onednn = precision == "highest" and onednn_is_faster(th.device("cpu"))
    products = [
        tuple(each.to(_dtype(shape, precision)) for each in (th.randn(n, k), th.randn(k, m), th.empty(n, m)))
        for shape in shapes
        for n, k, m in [shape]
    ]

    def run() -> None:
        for left, right, result in products:
            if by_onednn and min(left.shape[1], right.shape[1]) >= WIDE:
                _linear(left, right.t())
            else:
                th.mm(left, right, out=result)

    return run


def _dtype(shape: Shape, precision: MatmulPrecision) -> th.dtype:
    return th.bfloat16 if precision == "medium" and min(shape) >= LARGE else th.float32


def _forward(sizes: Sequence[int], batch: int) -> list[Shape]:
    return [(batch, before, after) for before, after in pairwise(sizes)]


def _weights(sizes: Sequence[int], batch: int) -> list[Shape]:
    """Gradients of the weights."""
    return [(after, batch, before) for before, after in pairwise(sizes)]


def _inputs(sizes: Sequence[int], batch: int) -> list[Shape]:
    """Gradients of each layer's inputs."""
    return [(batch, after, before) for before, after in pairwise(sizes)]
