"""Training under autocast goes autograd's way: it is what fused=False does, and every method learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch as th

from sb3_nbsp import CBPPPO, CBPSAC, NBSPSAC, P3O, SBPSAC, ContinualPPO, ContinualSAC, ReDoPPO
from sb3_nbsp.algorithms.autograd_sac import AutogradGradients
from sb3_nbsp.fast.sac_gradients import MlpGradients
from sb3_nbsp.interventions import RecoveryTraining

ON_POLICY: dict[str, Any] = {"n_steps": 32, "batch_size": 16, "n_epochs": 1}
OFF_POLICY: dict[str, Any] = {"learning_starts": 20, "batch_size": 16, "buffer_size": 200}
RESETS: dict[str, Any] = {"reset_frequency": 64, "reset_rate": 0.3}
DISTILLED: dict[str, Any] = {**RESETS, "max_distill_epochs": 2, "distill_threshold": 0.0}


def half(cls: type[Any]) -> type[Any]:
    """The same agent, whose updates are under autocast."""

    class Half(cls):  # type: ignore[misc]
        def train(self, *args: Any, **kwargs: Any) -> None:
            with th.autocast("cpu", dtype=th.bfloat16):
                super().train(*args, **kwargs)

    return Half


def run(cls: type[Any], **kwargs: Any) -> th.Tensor:
    if "interventions" in kwargs:
        kwargs["interventions"] = [kwargs["interventions"]()]
    small = ON_POLICY if issubclass(cls, ContinualPPO) else OFF_POLICY
    agent = cls("MlpPolicy", "Pendulum-v1", seed=0, device="cpu", policy_kwargs={"net_arch": [16, 16]}, **{**small, **kwargs})
    agent.learn(70)
    return th.cat([parameter.detach().flatten() for parameter in agent.policy.parameters()])


CASES: list[tuple[type[Any], dict[str, Any]]] = [
    (ContinualPPO, {}),
    (P3O, DISTILLED),
    (ReDoPPO, RESETS),
    (CBPPPO, {}),
    (ContinualPPO, {"interventions": RecoveryTraining}),
    (ContinualSAC, {}),
    (SBPSAC, DISTILLED),
    (CBPSAC, {}),
]


@pytest.mark.filterwarnings("ignore:RecoveryTraining")
@pytest.mark.parametrize(("cls", "kwargs"), CASES, ids=lambda each: getattr(each, "__name__", ""))
def test_autocast_is_left_to_autograd(cls: type[Any], kwargs: dict[str, Any]) -> None:
    fused, plain = (run(half(cls), **kwargs, fused=fused) for fused in (True, False))
    assert fused.dtype == th.float32 and th.isfinite(fused).all()
    # Apart from the kernel of the optimizer, they are the same; in single precision, they are not
    assert (fused - plain).abs().max() < 0.02
    if cls is ContinualPPO:
        assert (run(cls, **kwargs, fused=True) - fused).abs().max() > 0


def test_gradients_by_hand_come_back_without_autocast() -> None:
    agent = NBSPSAC("MlpPolicy", "Pendulum-v1", **OFF_POLICY)
    assert isinstance(agent._make_gradients(), MlpGradients)
    with th.autocast("cpu", dtype=th.bfloat16):
        assert isinstance(agent._make_gradients(), AutogradGradients)
    with th.autograd.set_detect_anomaly(True):
        assert isinstance(agent._make_gradients(), AutogradGradients)
    with th.autocast("cuda", dtype=th.bfloat16, enabled=th.cuda.is_available()):
        assert isinstance(agent._make_gradients(), MlpGradients)
