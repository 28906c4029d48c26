"""The student by hand learns what the student with autograd learns; what it cannot do is left to autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch as th
from test_inner_distillation import ACTIONS, NEVER, SMALL, DrawTask, distillation_of, p3o, renew
from torch import nn

from sb3_nbsp import P3O, SBPSAC
from sb3_nbsp.interventions import inner_distillation
from sb3_nbsp.interventions.networks import actor_of
from sb3_nbsp.interventions.students import AutogradStudent, MlpStudent, make_student


def agent_for(actions: str, net_arch: Any, activation_fn: type[nn.Module] = nn.Tanh) -> P3O:
    policy_kwargs = {"net_arch": net_arch, "activation_fn": activation_fn, "log_std_init": -0.4}
    if actions == "discrete":
        del policy_kwargs["log_std_init"]
    return P3O("MlpPolicy", DrawTask(ACTIONS[actions]), reset_frequency=NEVER, policy_kwargs=policy_kwargs, **SMALL)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("actions", ["continuous", "discrete"])
@pytest.mark.parametrize("activation_fn", [nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("net_arch", [[7], [8, 7, 6], {"pi": [9], "vf": [6, 7]}])
def test_gradients_are_those_of_autograd(net_arch: Any, activation_fn: type[nn.Module], actions: str, alpha: float) -> None:
    agent, states = agent_for(actions, net_arch, activation_fn), th.randn(20, 3)
    network = actor_of(agent)
    students = [make_student(agent, network), AutogradStudent(network)]
    assert isinstance(students[0], MlpStudent)
    with th.no_grad():
        teacher = students[1].act(states)
        for parameter in network.parameters:
            parameter += 0.3 * th.randn_like(parameter)
    results = []
    for student in students:
        agent.policy.zero_grad()
        student.set_gradients(states, teacher, alpha)
        found = {name: parameter.grad for name, parameter in agent.policy.named_parameters()}
        results.append({name: grad.clone() for name, grad in found.items() if grad is not None})
    ours, theirs = results
    assert len(theirs) == len(network.parameters)
    assert ours.keys() == theirs.keys()
    for name, grad in theirs.items():
        assert grad.abs().max() > 0
        assert (ours[name] - grad).abs().max() <= 1e-10 * grad.abs().max(), name


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("actions", ["continuous", "discrete"])
def test_whole_distillations_agree(actions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for make in (make_student, lambda agent, network: AutogradStudent(network)):
        monkeypatch.setattr(inner_distillation, "make_student", make)
        agent = p3o(actions, distill_threshold=0.0, max_distill_epochs=3)
        for parameter in agent.policy.parameters():
            assert parameter.dtype == th.float64
        renew(agent)
        assert distillation_of(agent).epochs == 3
        ends.append((agent.policy.state_dict(), agent.logger.values("distillation/loss")[0]))
    (ours, our_loss), (theirs, their_loss) = ends
    assert our_loss == pytest.approx(their_loss, rel=1e-8)
    for name, value in theirs.items():
        th.testing.assert_close(ours[name], value, rtol=1e-7, atol=1e-9)


def test_what_is_left_to_autograd() -> None:
    for actions in ("multi-discrete", "multi-binary"):
        agent = p3o(actions)
        assert isinstance(make_student(agent, actor_of(agent)), AutogradStudent)
    agent = agent_for("continuous", [8])
    agent.policy.log_std.requires_grad_(False)
    assert isinstance(make_student(agent, actor_of(agent)), AutogradStudent)
    noisy = P3O("MlpPolicy", DrawTask(ACTIONS["continuous"]), use_sde=True, **SMALL)
    assert isinstance(make_student(noisy, actor_of(noisy)), AutogradStudent)
    sac = SBPSAC("MlpPolicy", "Pendulum-v1", buffer_size=10)
    assert isinstance(make_student(sac, actor_of(sac)), AutogradStudent)
