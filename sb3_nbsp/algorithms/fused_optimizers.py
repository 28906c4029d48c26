"""PyTorch's fused kernels in the optimizers of an agent."""

from __future__ import annotations

from collections.abc import Iterable

import torch as th


def set_fused(optimizers: Iterable[th.optim.Optimizer], fused: bool) -> None:
    """
    Switch the fused kernels on or off where the optimizer has one, whatever a loaded state dict says.

    :param optimizers: of an agent
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
