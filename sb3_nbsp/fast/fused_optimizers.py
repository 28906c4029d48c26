"""PyTorch's fused kernels in the optimizers of an agent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch as th
from torch.optim import optimizer as torch_optimizer

from sb3_nbsp.neurons.young_moments import before_step, correct_young_moments, update_hook

# What the fused kernel would need further arguments for
_OPTIONS = ("amsgrad", "maximize", "capturable", "differentiable", "decoupled_weight_decay")


def set_fused(optimizers: Iterable[th.optim.Optimizer], fused: bool) -> None:
    """
    Switch the fused kernels on or off where the optimizer has one, whatever a loaded state dict says.

    :param optimizers: the agent's optimizers
    :param fused: True for the fused kernel, False for what the optimizer was made with
    """
    for optimizer in optimizers:
        if "fused" not in optimizer.defaults:
            continue
        own = optimizer.defaults["fused"], optimizer.defaults["foreach"]
        for group in optimizer.param_groups:
            group["fused"], group["foreach"] = (True, False) if fused else own
        for parameter, state in optimizer.state.items():
            if fused and "step" in state:  # the fused kernel wants it beside the parameter
                state["step"] = state["step"].to(parameter.device, th.float32)


def take_step(optimizer: th.optim.Optimizer) -> None:
    """
    ``optimizer.step()``, bit for bit, unless moments were cleared: see :mod:`~sb3_nbsp.neurons.young_moments`. Adam's fused
    kernel is called directly where nothing else can be meant: for small networks on a CPU, PyTorch's way to the kernel is
    5 % of a gradient step.

    :param optimizer: any
    """
    update_hook(optimizer)
    if _is_plain_fused_adam(optimizer):
        correct_young_moments(optimizer)
        (group,) = optimizer.param_groups
        _call_kernel(th._fused_adam_, optimizer, group["params"], group["weight_decay"])
    else:
        optimizer.step()


def can_step_into(optimizer: th.optim.Optimizer) -> bool:
    """
    :param optimizer: any
    :return: whether :func:`step_into` knows how: for steps in single precision that do not depend on the parameters
    """
    if not _is_plain_fused_adam(optimizer):
        return False
    (group,) = optimizer.param_groups
    return group["weight_decay"] == 0 and group["lr"] > 0 and group["params"][0].dtype == th.float32


def step_into(optimizer: th.optim.Optimizer, changes: list[th.Tensor]) -> None:
    """
    What :func:`take_step` would add to the parameters, which stay as they are.

    The kernel adds its step to what it is given. That of AdamW multiplies this with 1 - learning rate · weight decay
    first: with a decay of one over the learning rate, no more than a rounding error (1e-16) is left of what was there,
    which saves setting it to zero.

    :param optimizer: one of which :func:`can_step_into` is true
    :param changes: get the changes, in the order of the parameters; what they hold before has to be about as small as a step
    """
    correct_young_moments(optimizer)
    (group,) = optimizer.param_groups
    _call_kernel(th._fused_adamw_, optimizer, changes, weight_decay=1 / group["lr"])


@th.no_grad()
def _call_kernel(
    kernel: Callable[..., None], optimizer: th.optim.Optimizer, targets: list[th.Tensor], weight_decay: float
) -> None:
    (group,) = optimizer.param_groups
    parameters: list[th.Tensor] = group["params"]
    states = [optimizer.state[parameter] for parameter in parameters]
    steps, means, squares = ([state[name] for state in states] for name in ("step", "exp_avg", "exp_avg_sq"))
    th._foreach_add_(steps, th.ones((), device="cpu"))
    beta1, beta2 = group["betas"]
    kernel(
        targets,
        [parameter.grad for parameter in parameters if parameter.grad is not None],  # none is None
        means,
        squares,
        [],
        steps,
        lr=group["lr"],
        beta1=beta1,
        beta2=beta2,
        weight_decay=weight_decay,
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
    )


def _is_plain_fused_adam(optimizer: Any) -> bool:
    """On a CPU, and nobody else has hooked into the step."""
    if type(optimizer) is not th.optim.Adam or len(optimizer.param_groups) != 1:
        return False
    (group,) = optimizer.param_groups
    return (
        group["fused"] is True
        and not any(group[option] for option in _OPTIONS)
        and all(type(number) is float for number in (group["lr"], *group["betas"]))
        and "step" not in vars(optimizer)  # a scheduler of PyTorch's replaces it
        and all(hook is before_step for hook in optimizer._optimizer_step_pre_hooks.values())
        and not optimizer._optimizer_step_post_hooks
        and not torch_optimizer._global_optimizer_pre_hooks
        and not torch_optimizer._global_optimizer_post_hooks
        and all(_can_step(parameter, optimizer.state) for parameter in group["params"])
        and len({parameter.dtype for parameter in group["params"]}) == 1
    )


def _can_step(parameter: th.Tensor, state: Any) -> bool:
    """It has a gradient to step along, and has stepped before."""
    return parameter.grad is not None and parameter.device.type == "cpu" and bool(state.get(parameter))
