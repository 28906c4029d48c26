"""
A gradient step of SAC as one CUDA graph. A step is some hundred small kernels, and on a GPU it takes longer to
launch them one by one than to run them; a graph launches them all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch as th
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from sb3_nbsp.neurons.young_moments import has_young

# A step: batch and whether the target critics move, to what is to be recorded
Step = Callable[[ReplayBufferSamples, bool], dict[str, th.Tensor]]
# Makes a graph of what a function does to tensors of a device: a function that does it again, and the tensors with its results
Capture = Callable[[Callable[[], dict[str, th.Tensor]], th.device], tuple[Callable[[], object], dict[str, th.Tensor]]]

# Steps of each kind before it is captured: libraries and optimizers allocate what they need in the first ones
WARM_UP = 3


class CapturedStep:
    """
    Runs a step as it is for the first :data:`WARM_UP` batches of a kind, then captures it, and from then on replays the
    graph on each batch. Steps of another kind (target critics move or stay, another size of the batch) have their own graph.

    The graph holds the addresses of everything that the step reads and writes. If one of these tensors is replaced,
    rather than its contents, a new object has to be made.

    :param step: operations on tensors of one device, which never wait for their values
    :param optimizers: the optimizers that take part, see :func:`can_be_captured`
    :param capture: see :func:`capture_cuda_graph`
    """

    def __init__(self, step: Step, optimizers: Sequence[th.optim.Optimizer], capture: Capture | None = None) -> None:
        self._step = step
        self._capture = capture_cuda_graph if capture is None else capture
        self._rates = _LearningRates(optimizers)
        self._seen: dict[Any, int] = {}
        self._graphs: dict[Any, tuple[ReplayBufferSamples, Callable[[], object], dict[str, th.Tensor]]] = {}

    def __call__(self, data: ReplayBufferSamples, update_targets: bool) -> dict[str, th.Tensor]:
        """
        One step.

        :param data: the batch
        :param update_targets: whether the target critics move
        :return: what to record; tensors of its own
        """
        kind = update_targets, tuple((name, tensor.shape, tensor.dtype) for name, tensor in _tensors(data).items())
        self._seen[kind] = self._seen.get(kind, 0) + 1
        self._rates.update()
        if self._seen[kind] <= WARM_UP:
            return self._run(data, update_targets)
        if kind not in self._graphs:
            place = _copy(data)
            self._graphs[kind] = (place, *self._capture(lambda: self._run(place, update_targets), data.rewards.device))
        place, replay, results = self._graphs[kind]
        for name, tensor in _tensors(data).items():
            getattr(place, name).copy_(tensor)
        replay()
        return {name: value.clone() for name, value in results.items()}

    def _run(self, data: ReplayBufferSamples, update_targets: bool) -> dict[str, th.Tensor]:
        with self._rates:
            return self._step(data, update_targets)


class _LearningRates:
    """Learning rates as tensors, which a graph reads anew every time. The optimizers see them within the context only."""

    def __init__(self, optimizers: Sequence[th.optim.Optimizer]) -> None:
        self._groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self._numbers = [float("nan")] * len(self._groups)
        # The fused kernel reads a rate in single precision
        self._tensors = [th.zeros((), device=group["params"][0].device, dtype=th.float32) for group in self._groups]
        self._capturable = [group["capturable"] for group in self._groups]

    def update(self) -> None:
        for i, group in enumerate(self._groups):
            if group["lr"] != self._numbers[i]:
                self._numbers[i] = float(group["lr"])
                self._tensors[i].fill_(self._numbers[i])

    def __enter__(self) -> None:
        for group, tensor in zip(self._groups, self._tensors, strict=True):
            group["lr"], group["capturable"] = tensor, True

    def __exit__(self, *_: object) -> None:
        for group, number, capturable in zip(self._groups, self._numbers, self._capturable, strict=True):
            group["lr"], group["capturable"] = number, capturable


def capture_cuda_graph(
    function: Callable[[], dict[str, th.Tensor]], device: th.device
) -> tuple[Callable[[], object], dict[str, th.Tensor]]:
    """
    Capture what a function does on a CUDA device. Capturing does nothing else: the work is done by each replay.

    :param function: launches kernels and returns tensors
    :param device: where it does so
    :return: replays the kernels; the tensors into which they write
    """
    graph = th.cuda.CUDAGraph()
    with th.cuda.graph(graph, stream=_stream(device)):
        results = function()
    return graph.replay, results


@cache
def _stream(device: th.device) -> th.cuda.Stream:
    """PyTorch's own stream for captures is on the device that was current when it first needed one."""
    return th.cuda.Stream(device)


def can_be_captured(optimizers: Sequence[th.optim.Optimizer]) -> bool:
    """
    :param optimizers: the agent's optimizers
    :return: whether each has a fused kernel that takes its learning rate and count of steps from the device, and no
        moments whose correction changes with every step
    """
    return all({"capturable", "fused"} <= each.defaults.keys() and not has_young(each) for each in optimizers)


def _tensors(data: ReplayBufferSamples) -> dict[str, th.Tensor]:
    """The fields of a batch that are there, with those that subclasses add."""
    fields = {**data._asdict(), **getattr(data, "__dict__", {})}
    return {name: value for name, value in fields.items() if value is not None}


def _copy(data: ReplayBufferSamples) -> ReplayBufferSamples:
    copied = data._replace(**{name: value.clone() for name, value in data._asdict().items() if value is not None})
    for name, value in getattr(data, "__dict__", {}).items():
        setattr(copied, name, value.clone())
    return copied
