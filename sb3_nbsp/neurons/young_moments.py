r"""
Adam's bias correction for entries of a parameter whose moments were cleared while those of the others stayed.

Adam divides its moments by :math:`1 - \beta^T`, because averages that begin at zero are too small at first. It counts the
steps T of a whole tensor, and after a few thousand the division does nothing any more: the first step of an entry that is
then cleared is 3 times as long as it should be. So such an entry gets the correction of its own age t, the number of steps
since it was cleared, for as long as the second moment averages over:

.. math:: \Delta = -\eta \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon}, \quad
    \hat m_t = \frac{m_t}{1 - \beta_1^t}, \quad \hat v_t = \frac{v_t}{1 - \beta_2^t}

PyTorch's kernels know T alone, and stay as they are: just before a step, what the optimizer holds for a young entry is
written so that the kernel arrives at :math:`(1 - \beta^T) \hat m_t`, which it then divides by :math:`1 - \beta^T`. What the
optimizer holds is then free of bias: nothing jumps when an entry's youth ends, or when plain SB3 resumes a saved model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch as th

# In the state of a parameter: {"rows": {row: count of steps when it was cleared}, "columns": the same}. Numbers alone, so
# that they are saved and loaded with the optimizer
CLEARED_AT = "cleared_at"
_CORRECTS_BIAS = (th.optim.Adam, th.optim.Adamax, th.optim.NAdam, th.optim.RAdam)  # AdamW is an Adam
# The place of its decay rate in "betas", and the power of the gradient of which it is the average
_MOMENTS = {"exp_avg": (0, 1), "exp_avg_sq": (1, 2)}


def note_cleared(optimizer: th.optim.Optimizer, parameter: th.Tensor, indices: th.Tensor, dim: int) -> None:
    """
    Remember that the moments of some rows or columns have just been cleared. Does nothing if the optimizer corrects no bias.

    :param optimizer: any
    :param parameter: one of its parameters
    :param indices: indices of the rows or columns, shape (k,)
    :param dim: 0 for rows, 1 for columns
    """
    state = optimizer.state.get(parameter)
    if not state or not isinstance(optimizer, _CORRECTS_BIAS):
        return
    noted = {name: dict(state.get(CLEARED_AT, {}).get(name, {})) for name in ("rows", "columns")}
    noted["columns" if dim else "rows"].update(dict.fromkeys(indices.tolist(), int(state["step"])))
    state[CLEARED_AT] = noted  # a new object, by which correct_young_moments() knows that something has changed
    update_hook(optimizer)


def has_young(optimizer: th.optim.Optimizer) -> bool:
    """
    :param optimizer: any
    :return: whether some entries need a correction of their own
    """
    return any(CLEARED_AT in state for state in optimizer.state.values())


def before_step(optimizer: th.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """
    A hook that PyTorch calls at the beginning of ``optimizer.step()``.

    :param optimizer: has the gradients
    :param args: not used
    :param kwargs: not used
    """
    correct_young_moments(optimizer)


def update_hook(optimizer: th.optim.Optimizer) -> None:
    """
    Register :func:`before_step` if there are young entries (a loaded optimizer has no hooks), and remove it if there are none.

    :param optimizer: any
    """
    hooks = optimizer._optimizer_step_pre_hooks
    registered = [key for key, hook in hooks.items() if hook is before_step]
    if has_young(optimizer):
        if not registered:
            optimizer.register_step_pre_hook(before_step)
    else:
        for key in registered:
            del hooks[key]


@th.no_grad()
def correct_young_moments(optimizer: th.optim.Optimizer) -> None:
    """
    Prepare the moments of young entries for the step that follows, once, however often it is called ahead of it. Without young
    entries, it costs a microsecond.

    :param optimizer: has the gradients
    """
    if not has_young(optimizer):
        return
    for group in optimizer.param_groups:
        by_count: dict[int, list[th.Tensor]] = {}  # nearly always there is one count
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            if CLEARED_AT in state and parameter.grad is not None:
                by_count.setdefault(int(state["step"]) + 1, []).append(parameter)
        for count, parameters in by_count.items():
            youth = _youth_of(optimizer, parameters, count - _lifetime(group))
            if youth.parameters and youth.corrected != count:
                youth.correct(group, count)
                youth.corrected = count


def _lifetime(group: dict[str, Any]) -> int:
    """Steps over which the slower of the two moments averages: 1000 with PyTorch's defaults."""
    return round(1 / (1 - max(float(beta) for beta in group["betas"])))


class _Youth:
    """
    The young entries of parameters that have taken equally many steps.

    :param parameters: the parameters
    :param states: what the optimizer holds for each
    """

    def __init__(self, parameters: Sequence[th.Tensor], states: Sequence[dict[str, Any]]) -> None:
        self.parameters, self.states = parameters, states
        self.corrected = 0  # the count of steps for which it was done last: an optimizer's step() may call that of its base
        self.noted = [state[CLEARED_AT] for state in states]
        found = [_entries(parameter, noted) for parameter, noted in zip(parameters, self.noted, strict=True)]
        self._indices = [indices for indices, _ in found]
        self._sizes = [len(indices) for indices in self._indices]
        if found:
            occasions, which = th.unique(th.cat([cleared_at for _, cleared_at in found]), return_inverse=True)
            self._cleared_at: list[int] = occasions.tolist()
            self._which = which.to(parameters[0].device)
            self.oldest = self._cleared_at[0]

    def correct(self, group: dict[str, Any], count: int) -> None:
        """
        :param group: the optimizer's options
        :param count: T of the step that follows
        """
        gradients = self._gather([parameter.grad for parameter in self.parameters])  # type: ignore[misc]
        if group["weight_decay"] != 0 and not group.get("decoupled_weight_decay", False):
            decay = self._gather(self.parameters) * group["weight_decay"]
            gradients = decay - gradients if group.get("maximize", False) else decay + gradients
        elif group.get("maximize", False):
            gradients = -gradients
        for name, (place, power) in _MOMENTS.items():
            beta = float(group["betas"][place])
            if beta > 0 and all(name in state for state in self.states):
                keep, add = self._weights(beta, count)
                self._scale(name, keep, add, gradients**power)
                if power == 2 and all("max_exp_avg_sq" in state for state in self.states):  # amsgrad: a maximum of the second
                    self._scale("max_exp_avg_sq", keep)

    def _weights(self, beta: float, count: int) -> tuple[th.Tensor, th.Tensor]:
        r"""
        What the kernel makes of x is :math:`\beta x + (1 - \beta) g`. Before the step the optimizer holds
        :math:`(1 - \beta^{T-1}) \hat m_{t-1}`. The kernel arrives at :math:`(1 - \beta^T) \hat m_t` if

        .. math:: x = \frac{1 - \beta^T}{1 - \beta^{T-1}} \, \frac{1 - \beta^{t-1}}{1 - \beta^t} (1 - \beta^{T-1}) \hat m_{t-1}
            + \frac{1 - \beta}{\beta} \left(\frac{1 - \beta^T}{1 - \beta^t} - 1\right) g

        :param beta: β
        :param count: T
        :return: the factors of what it holds, and of g, for every entry
        """
        all_, all_before = 1 - beta**count, 1 - beta ** (count - 1)
        own = [1 - beta ** (count - at) for at in self._cleared_at]
        before = [1 - beta ** (count - 1 - at) for at in self._cleared_at]
        keep = [all_ / all_before * young / old for young, old in zip(before, own, strict=True)]
        add = [(1 - beta) / beta * (all_ / each - 1) for each in own]
        weights = self.parameters[0].new_tensor([keep, add])
        return weights[0].index_select(0, self._which), weights[1].index_select(0, self._which)

    def _gather(self, tensors: Sequence[th.Tensor]) -> th.Tensor:
        return th.cat([_take(tensor, indices) for tensor, indices in zip(tensors, self._indices, strict=True)])

    def _scale(self, name: str, keep: th.Tensor, add: th.Tensor | None = None, values: th.Tensor | None = None) -> None:
        """Multiply a moment by ``keep``, and add ``add`` times ``values``."""
        moments = [state[name] for state in self.states]
        scaled = keep * self._gather(moments)
        if add is not None and values is not None:
            scaled.addcmul_(add, values)
        for moment, indices, part in zip(moments, self._indices, scaled.split(self._sizes), strict=True):
            _put(moment, indices, part)


# By the identity of the first of their parameters
_YOUTHS: WeakKeyDictionary[th.optim.Optimizer, dict[int, _Youth]] = WeakKeyDictionary()


def _youth_of(optimizer: th.optim.Optimizer, parameters: list[th.Tensor], since: int) -> _Youth:
    """
    :param optimizer: the optimizer
    :param parameters: some that have young entries
    :param since: what was cleared before this count of steps is young no more, and forgotten
    :return: the entries; those of the last call, if nothing has changed
    """
    states = [optimizer.state[parameter] for parameter in parameters]
    youths = _YOUTHS.setdefault(optimizer, {})
    last = youths.get(id(parameters[0]))
    if last is not None and len(last.noted) == len(states) and last.oldest >= since:
        if all(noted is state[CLEARED_AT] for noted, state in zip(last.noted, states, strict=True)):
            return last
    for state in states:
        noted = {name: {i: at for i, at in cleared.items() if at >= since} for name, cleared in state[CLEARED_AT].items()}
        if any(noted.values()):
            state[CLEARED_AT] = noted
        else:
            del state[CLEARED_AT]
    left = [parameter for parameter in parameters if CLEARED_AT in optimizer.state[parameter]]
    youth = _Youth(left, [optimizer.state[parameter] for parameter in left])
    if left:
        youths[id(left[0])] = youth
    return youth


def _entries(parameter: th.Tensor, noted: dict[str, dict[int, int]]) -> tuple[th.Tensor, th.Tensor]:
    """Positions of the young entries in the flattened parameter, and when each was cleared last (on the CPU)."""
    cleared_at = th.full(parameter.shape, -1)
    for row, at in noted["rows"].items():
        cleared_at[row] = at
    for column, at in noted["columns"].items():
        cleared_at[:, column].clamp_(min=at)
    indices = th.nonzero(cleared_at.flatten() >= 0).flatten()
    return indices.to(parameter.device), cleared_at.flatten()[indices]


def _take(tensor: th.Tensor, indices: th.Tensor) -> th.Tensor:
    """``tensor.take(indices)``, in less time for the usual kind of tensor."""
    return tensor.view(-1).index_select(0, indices) if tensor.is_contiguous() else tensor.take(indices)


def _put(tensor: th.Tensor, indices: th.Tensor, values: th.Tensor) -> None:
    """``tensor.put_(indices, values)``, in less time for the usual kind of tensor."""
    if tensor.is_contiguous():
        tensor.view(-1).scatter_(0, indices, values)
    else:
        tensor.put_(indices, values)
