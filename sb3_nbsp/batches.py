"""
Batches whose rows are states, transitions or steps: tensors or arrays or, of dictionary observations, dictionaries of these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch as th

# Observations as NumPy arrays; those as tensors are SB3's PyTorchObs
ArrayObs = np.ndarray | dict[str, np.ndarray]
Batch = TypeVar("Batch")


def apply(function: Callable[..., Any], *batches: Any) -> Any:
    """
    :param function: of as many tensors or arrays as there are batches
    :param batches: all of them dictionaries with the same keys, or none
    :return: what it returns; of dictionaries, by key
    """
    if isinstance(batches[0], dict):
        return {key: function(*(batch[key] for batch in batches)) for key in batches[0]}
    return function(*batches)


def n_rows(batch: Any) -> int:
    """
    :param batch: a batch
    :return: number of its rows
    """
    return len(next(iter(batch.values())) if isinstance(batch, dict) else batch)


def take(batch: Batch, index: Any) -> Batch:
    """
    :param batch: a batch
    :param index: which rows: indices, a mask or a slice; or a tuple of indices into the first dimensions
    :return: these rows
    """
    result: Batch = apply(lambda part: part[index], batch)
    return result


def split(batch: Batch, size: int) -> list[Batch]:
    """
    :param batch: a batch
    :param size: number of rows of a part; the last one may have fewer
    :return: its parts, at least one
    """
    return [take(batch, slice(start, start + size)) for start in range(0, max(n_rows(batch), 1), size)]


def concatenate(batches: Sequence[Batch]) -> Batch:
    """
    :param batches: at least one batch, of arrays or of tensors
    :return: the rows of all of them
    """
    joined: Batch = apply(lambda *parts: th.cat(parts) if isinstance(parts[0], th.Tensor) else np.concatenate(parts), *batches)
    return joined
