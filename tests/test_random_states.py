"""Random numbers for a purpose of their own leave all streams that an agent draws from where they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch as th

from sb3_nbsp.random_states import drawing_from


def test_the_processors_stream_is_put_back() -> None:
    before = th.get_rng_state()
    with drawing_from(5, th.device("cpu")):
        drawn = th.rand(3)
    assert th.equal(th.get_rng_state(), before)
    assert th.equal(drawn, th.rand(3, generator=th.Generator().manual_seed(5)))


@pytest.mark.parametrize(("device", "expected"), [("cpu", []), ("cuda:1", [th.device("cuda:1")])])
def test_the_devices_stream_is_put_back(device: str, expected: list[th.device], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    fork = th.random.fork_rng

    def recording(devices: Any) -> Any:
        asked.append(devices)
        return fork(devices=[])

    monkeypatch.setattr(th.random, "fork_rng", recording)
    with drawing_from(5, th.device(device)):
        pass
    assert asked == [expected]
