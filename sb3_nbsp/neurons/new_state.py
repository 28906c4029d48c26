"""What a new optimizer holds for a parameter. Mostly zeros, but not always: Rprop's step sizes, Adagrad's initial sum."""

from __future__ import annotations

import inspect
from typing import Any

import torch as th
from torch import nn

from sb3_nbsp.neurons.young_moments import note_cleared

# Whose state begins with zeros
_BEGIN_AT_ZERO = {
    *(th.optim.Adadelta, th.optim.Adam, th.optim.Adamax, th.optim.AdamW, th.optim.NAdam, th.optim.RAdam, th.optim.RMSprop),
    th.optim.SGD,
}


def check_renewable(optimizer: th.optim.Optimizer) -> None:
    """
    :param optimizer: any
    :raises ValueError: if :func:`renew_state` could not renew its state
    """
    if type(optimizer) not in _BEGIN_AT_ZERO:
        new_state(optimizer, optimizer.param_groups[0]["params"][0])


@th.no_grad()
def renew_state(optimizer: th.optim.Optimizer, parameter: th.Tensor, indices: th.Tensor, dim: int) -> None:
    """
    Give some rows or columns of what an optimizer holds, in the shape of a parameter, the values that a new optimizer has.

    :param optimizer: any
    :param parameter: the parameter, with its present values
    :param indices: indices of the rows or columns, shape (k,)
    :param dim: 0 for rows, 1 for columns
    :raises ValueError: if an optimizer of this class cannot be made anew
    """
    held = {name: value for name, value in optimizer.state.get(parameter, {}).items() if _has_shape_of(value, parameter)}
    if not held or len(indices) == 0:
        return
    new = {} if type(optimizer) in _BEGIN_AT_ZERO else new_state(optimizer, parameter)
    for name, value in held.items():
        if name in new and _has_shape_of(new[name], parameter):
            value.index_copy_(dim, indices, new[name].index_select(dim, indices))
        else:
            value.index_fill_(dim, indices, 0.0)
    note_cleared(optimizer, parameter, indices, dim)


def new_state(optimizer: th.optim.Optimizer, parameter: th.Tensor) -> dict[str, Any]:
    """
    What a new optimizer of the same class, with the same options, begins with: of what its first step assigns, the first
    values. An average of the parameters (:class:`torch.optim.ASGD`) begins with the parameters.

    :param optimizer: any
    :param parameter: one of its parameters
    :return: its state for that parameter, by name
    :raises ValueError: if it cannot be made from its options, or does not step without further arguments
    """
    group = next(group for group in optimizer.param_groups if any(each is parameter for each in group["params"]))
    copied = nn.Parameter(parameter.detach().clone())
    copied.grad = th.zeros_like(copied)
    options = {name: value for name, value in group.items() if name in inspect.signature(type(optimizer)).parameters}
    options.pop("params", None)
    try:
        new: Any = type(optimizer)([copied], **options)
        new.state[copied] = state = _FirstValues(new.state[copied])
        with th.random.fork_rng(devices=[]):
            new.step()
    except Exception as error:
        raise ValueError(
            f"clear_moments: what a new {type(optimizer).__name__} holds cannot be found out ({error}); "
            "use clear_moments=False"
        ) from error
    if isinstance(optimizer, th.optim.ASGD):
        state.first["ax"] = parameter.detach().clone()
    return {**state, **state.first}


class _FirstValues(dict[str, Any]):
    """A dictionary that keeps a copy of the first value of each name."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.first = {name: _copy(value) for name, value in self.items()}

    def __setitem__(self, name: str, value: Any) -> None:
        self.first.setdefault(name, _copy(value))
        super().__setitem__(name, value)


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, th.Tensor) else value


def _has_shape_of(value: Any, parameter: th.Tensor) -> bool:
    return isinstance(value, th.Tensor) and value.shape == parameter.shape
