"""A captured step is the step: with every batch, learning rate and mask of its phase. Real graphs need a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from tagged_tasks import Spy, differing, parameters, tagged_sequence, tiny
from torch import nn

from sb3_nbsp import EWCSAC, NBSPSAC, SBPSAC, ContinualSAC
from sb3_nbsp.algorithms import soft_actor_critic
from sb3_nbsp.fast import captured_step, masked_step
from sb3_nbsp.fast.captured_step import WARM_UP, CapturedStep, can_be_captured, capture_cuda_graph
from sb3_nbsp.interventions import ExperienceReplay

needs_cuda = pytest.mark.skipif(not th.cuda.is_available(), reason="needs a CUDA device")
# Powers of two are the same number in single precision, which a learning rate on the device has
RATE = 2.0**-9


def falling(remaining: float) -> float:
    return RATE if remaining > 0.5 else RATE / 2


class Pretended:
    """A graph that calls the function again. Like a real one, it sees what the tensors held when it was captured only."""

    def __init__(self) -> None:
        self.captured = self.replayed = 0

    def __call__(
        self, function: Callable[[], dict[str, th.Tensor]], device: th.device
    ) -> tuple[Callable[[], object], dict[str, th.Tensor]]:
        assert device == th.device("cpu")
        self.captured += 1
        results: dict[str, th.Tensor] = {}

        def replay() -> None:
            self.replayed += 1
            results.update(function())

        return replay, results


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    """Every agent that could on a GPU, and was told to, captures its steps."""
    graph = Pretended()
    monkeypatch.setattr(captured_step, "capture_cuda_graph", graph)
    monkeypatch.setattr(soft_actor_critic, "CAPTURES_ON", "cpu")
    monkeypatch.setattr(masked_step, "can_step_into", lambda optimizer: False)  # GPUs have no such way
    return graph


def batch(number: float, size: int = 4) -> ReplayBufferSamples:
    return ReplayBufferSamples(*(th.full((size, 1), number + i) for i in range(5)))


class Square:
    """A step that moves one parameter by its batch and its learning rate."""

    def __init__(self) -> None:
        self.parameter = nn.Parameter(th.zeros(()))
        self.optimizer = th.optim.Adam([self.parameter], lr=RATE, fused=True)
        self.given: list[Any] = []

    def __call__(self, data: ReplayBufferSamples, update_targets: bool) -> dict[str, th.Tensor]:
        self.given.append((data, update_targets, self.optimizer.param_groups[0]["lr"]))
        self.parameter.grad = data.rewards.mean()
        self.optimizer.step()
        return {"loss": data.rewards.sum()}


def test_a_graph_works_on_one_place_that_holds_the_latest_batch() -> None:
    step, graph = Square(), Pretended()
    run = CapturedStep(step, [step.optimizer], graph)
    losses = [run(batch(float(i)), True)["loss"] for i in range(WARM_UP + 4)]
    assert [loss.item() for loss in losses] == [4 * (i + 4.0) for i in range(WARM_UP + 4)], "each has its own"
    assert (graph.captured, graph.replayed) == (1, 4)
    assert len({id(data) for data, _, _ in step.given}) == WARM_UP + 1
    assert len({data.rewards.data_ptr() for data, _, _ in step.given[WARM_UP:]}) == 1


def test_kinds_have_their_own_graphs() -> None:
    step, graph = Square(), Pretended()
    run = CapturedStep(step, [step.optimizer], graph)
    for i in range(8):
        for size, update_targets in ((4, True), (4, False), (2, True)):
            assert run(batch(float(i), size), update_targets)["loss"].item() == size * (i + 4.0)
            assert step.given[-1][1] == update_targets and len(step.given[-1][0].rewards) == size
    assert (graph.captured, graph.replayed) == (3, 3 * (8 - WARM_UP))


def test_a_graph_follows_the_learning_rate() -> None:
    step, plain, graph = Square(), Square(), Pretended()
    run = CapturedStep(step, [step.optimizer], graph)
    for i in range(10):
        for each in (step, plain):
            each.optimizer.param_groups[0]["lr"] = RATE / 2 ** (i // 2)
        run(batch(float(i)), True)
        plain(batch(float(i)), True)
        assert th.equal(step.parameter, plain.parameter)
        assert step.optimizer.param_groups[0]["lr"] == RATE / 2 ** (i // 2), "a number again"
    assert all(isinstance(rate, th.Tensor) for _, _, rate in step.given)
    assert len({id(rate) for _, _, rate in step.given}) == 1


def test_an_optimizer_that_takes_no_part_is_told_apart() -> None:
    parameter = nn.Parameter(th.zeros(()))
    assert can_be_captured([th.optim.Adam([parameter]), th.optim.AdamW([parameter])])
    for other in (th.optim.SGD, th.optim.RMSprop):  # no capturable kernel; none that is fused
        assert not can_be_captured([th.optim.Adam([parameter]), other([parameter])])


# Agents

RUNS: dict[str, dict[str, Any]] = {
    "plain": {"cls": ContinualSAC},
    "NBSP": {},
    "resets at a phase start": {"reset_ent_coef": True, "reset_optimizers": True},
    "target critics move now and then": {"target_update_interval": 2, "gradient_steps": 3},
    "falling learning rate": {"learning_rate": falling, "qf_learning_rate": RATE},
    "fixed coefficient, gradient masks": {"ent_coef": 0.25, "mask_target": "gradient"},
    "EWC": {"cls": EWCSAC, "ewc_critic_coef": 0.1, "accumulate": "separate"},
}


def learned(cls: type = NBSPSAC, **kwargs: Any) -> Any:
    agent = tiny(cls, tagged_sequence(), **{"learning_rate": RATE, "cuda_graph": True, **kwargs})
    agent.learn(110)
    agent.learn(1000, reset_num_timesteps=False)
    return agent


@pytest.mark.parametrize("name", RUNS)
def test_captured_runs_are_the_runs(name: str, pretended: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    captured = learned(**RUNS[name])
    assert pretended.replayed > 0.6 * captured._n_updates
    assert pretended.captured >= 5, "in every phase anew, and in every learn()"
    monkeypatch.setattr(soft_actor_critic, "CAPTURES_ON", "cuda")
    plain = learned(**RUNS[name])
    assert differing(parameters(captured), parameters(plain)) == []


@pytest.mark.parametrize(
    "options",
    [
        {"cuda_graph": False},
        {"fused": False},
        {"use_sde": True},
        {"policy_kwargs": {"net_arch": [8], "optimizer_class": th.optim.SGD}},
        {"interventions": [Spy()]},
        {"cls": SBPSAC},
    ],
    ids=["nobody asked for it", "not fused", "gSDE", "SGD", "an intervention that does not say it can", "SBP"],
)
def test_what_cannot_be_captured_is_not(options: dict[str, Any], pretended: Pretended) -> None:
    agent = tiny(options.pop("cls", ContinualSAC), tagged_sequence(), **{"cuda_graph": True, **options})
    agent.learn(70)
    assert agent._n_updates > 30 and pretended.captured == 0


class Subclass(ExperienceReplay):
    pass


@pytest.mark.parametrize(("intervention", "captures"), [(ExperienceReplay, True), (Subclass, False)])
def test_a_subclass_has_to_say_that_it_can(intervention: Any, captures: bool, pretended: Pretended) -> None:
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[intervention(memory_size=100)], cuda_graph=True)
    agent.learn(50)
    assert (pretended.captured > 0) == captures


@pytest.mark.parametrize("name", ["gamma", "tau", "target_entropy", "parameter"])
def test_what_a_graph_holds_on_to_is_watched(name: str, pretended: Pretended) -> None:
    agent = tiny(ContinualSAC, tagged_sequence(), cuda_graph=True)
    agent.learn(40)
    assert pretended.captured == 1
    agent.train(1, 16)
    assert pretended.captured == 1
    if name == "parameter":
        agent.actor.mu.weight.data = agent.actor.mu.weight.data.clone()
    else:
        setattr(agent, name, getattr(agent, name) / 2)
    agent.train(WARM_UP + 1, 16)
    assert pretended.captured == 2


def test_the_masks_of_an_ended_phase_are_captured_anew(pretended: Pretended) -> None:
    """Where the next task is known, nothing else is reset at its start."""
    agent = tiny(NBSPSAC, tagged_sequence(), cuda_graph=True)
    agent.learn(40)
    assert pretended.captured == 1
    agent._end_phase()
    agent.train(WARM_UP + 1, 16)
    assert pretended.captured == 2


def test_new_parameters_are_captured_anew(pretended: Pretended, tmp_path: Any) -> None:
    agent = tiny(ContinualSAC, tagged_sequence(), cuda_graph=True)
    agent.learn(40)
    agent.save(tmp_path / "model")
    assert pretended.captured == 1
    agent.set_parameters(tmp_path / "model")
    agent.train(WARM_UP, 16)
    assert pretended.captured == 1
    agent.train(1, 16)
    assert pretended.captured == 2
    assert ContinualSAC.load(tmp_path / "model")._captured is None


# On a GPU


@needs_cuda
def test_a_real_graph() -> None:
    values = th.zeros(3, device="cuda")
    replay, results = capture_cuda_graph(lambda: {"sum": values.add_(1).sum()}, values.device)
    assert values.tolist() == [0, 0, 0]
    replay()
    replay()
    assert values.tolist() == [2, 2, 2] and results["sum"].item() == 6


@needs_cuda
@pytest.mark.parametrize("name", RUNS)
def test_real_captured_runs_are_the_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = RUNS[name]
    captured = learned(device="cuda", **options)
    monkeypatch.setattr(soft_actor_critic, "CAPTURES_ON", "nothing")
    plain = learned(device="cuda", **options)
    for name_, tensor in parameters(plain).items():
        assert th.allclose(parameters(captured)[name_], tensor, rtol=1e-2, atol=1e-3), name_
