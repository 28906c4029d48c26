"""What tests of several folders need."""

from collections.abc import Iterator

import pytest
import torch as th
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn


@pytest.fixture
def double_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SB3 hands observations over in single precision."""

    def forward(self: FlattenExtractor, observations: th.Tensor) -> th.Tensor:
        return self.flatten(observations).to(th.get_default_dtype())

    convolve = nn.Conv2d.forward

    before = th.get_default_dtype()
    th.set_default_dtype(th.float64)
    monkeypatch.setattr(FlattenExtractor, "forward", forward)
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, images: convolve(self, images.to(self.weight.dtype)))
    try:
        yield
    finally:
        th.set_default_dtype(before)
