"""A renewed row gets what a new optimizer holds for it, whatever the optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from torch import nn

from sb3_nbsp import ContinualPPO
from sb3_nbsp.interventions import CycleReset
from sb3_nbsp.neurons import find_neuron_layers
from sb3_nbsp.neurons.renewal import clear_incoming_moments, clear_outgoing_moments

Make = Callable[[Any], th.optim.Optimizer]


class CountsFromFive(th.optim.Optimizer):
    """Somebody's own, with a state that begins at 5 and with the parameter."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["sum"] = th.full_like(parameter, 5.0)
                    state["slow"] = parameter.detach().clone()
                state["sum"] += parameter.grad.abs()
                parameter.data -= group["lr"] * parameter.grad / state["sum"]


# What a new one holds, as its documentation says
NEW: dict[str, tuple[Make, dict[str, Any]]] = {
    "Adam": (lambda p: th.optim.Adam(p, amsgrad=True), {"exp_avg": 0, "exp_avg_sq": 0, "max_exp_avg_sq": 0}),
    "Adamax": (th.optim.Adamax, {"exp_avg": 0, "exp_inf": 0}),
    "SGD": (lambda p: th.optim.SGD(p, 0.1, momentum=0.9), {"momentum_buffer": 0}),
    "RMSprop": (lambda p: th.optim.RMSprop(p, momentum=0.9), {"square_avg": 0, "momentum_buffer": 0}),
    "RMSpropTFLike": (lambda p: RMSpropTFLike(p, momentum=0.9), {"square_avg": 1, "momentum_buffer": 0}),
    "Adadelta": (th.optim.Adadelta, {"square_avg": 0, "acc_delta": 0}),
    "Rprop": (lambda p: th.optim.Rprop(p, lr=0.03), {"step_size": 0.03, "prev": 0}),
    "Adagrad": (lambda p: th.optim.Adagrad(p, initial_accumulator_value=0.7), {"sum": 0.7}),
    "Adagrad, fused": (lambda p: th.optim.Adagrad(p, initial_accumulator_value=0.7, fused=True), {"sum": 0.7}),
    "ASGD": (lambda p: th.optim.ASGD(p, t0=0), {"ax": "parameter"}),
    "own": (lambda p: CountsFromFive(p, 0.1), {"sum": 5, "slow": "parameter"}),
}


@pytest.mark.parametrize("name", NEW)
def test_cleared_rows_and_columns_hold_what_a_new_optimizer_holds(name: str) -> None:
    make, new = NEW[name]
    th.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = make(net.parameters())
    for _ in range(4):
        for parameter in net.parameters():
            parameter.grad = 0.1 + th.rand_like(parameter)
        optimizer.step()
    held = {name: value.clone() for name, value in optimizer.state[net[0].weight].items() if isinstance(value, th.Tensor)}
    random_state = th.get_rng_state()
    (layer,) = find_neuron_layers([("net", net)])
    clear_incoming_moments(optimizer, layer, th.tensor([1, 3]))
    clear_outgoing_moments(optimizer, layer, th.tensor([2]))
    assert th.equal(th.get_rng_state(), random_state)
    assert new.keys() == {name for name, value in held.items() if value.dim() > 0}
    for key, value in new.items():
        for parameter, cleared in ((net[0].weight, [1, 3]), (net[0].bias, [1, 3]), (net[2].weight.T, [2])):
            owner = net[2].weight if parameter.shape == net[2].weight.T.shape else parameter
            state = optimizer.state[owner][key]
            state = state.T if owner is not parameter else state
            expected = parameter[cleared] if value == "parameter" else th.full_like(parameter[cleared], value)
            th.testing.assert_close(state[cleared], expected, rtol=1e-6, atol=0)
        others = [0, 2, 4, 5]
        assert th.equal(optimizer.state[net[0].weight][key][others], held[key][others])
        assert value == "parameter" or (held[key] != value).all(), key
    for key in held.keys() - new.keys():
        assert th.equal(optimizer.state[net[0].weight][key], held[key])  # counts of steps


def test_an_optimizer_that_cannot_be_made_anew_is_refused_when_the_agent_is_made() -> None:
    class Closed(th.optim.SGD):
        def step(self, closure: Any) -> None:  # type: ignore[override]
            super().step(closure)

    arguments: dict[str, Any] = {"policy_kwargs": {"optimizer_class": Closed}, "interventions": [CycleReset()]}
    with pytest.raises(ValueError, match=r"new Closed holds cannot be found out.*clear_moments=False"):
        ContinualPPO("MlpPolicy", "Pendulum-v1", **arguments)
    arguments["interventions"] = [CycleReset(clear_moments=False)]
    ContinualPPO("MlpPolicy", "Pendulum-v1", **arguments)
