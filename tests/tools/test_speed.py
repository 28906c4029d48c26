"""The speed command measures what it says."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from torch.utils._python_dispatch import TorchDispatchMode

from sb3_nbsp import NBSPSAC, P3O, ContinualPPO, ContinualSAC
from sb3_nbsp.algorithms.autograd_ppo import AutogradPPOGradients
from sb3_nbsp.fast import onednn
from sb3_nbsp.fast.sac_gradients import MlpGradients
from sb3_nbsp.interventions import ANCL, EWC, ClonEx, ExperienceReplay, GradientMasking, InnerDistillation
from tools.speed import __main__ as command
from tools.speed import arithmetic, discrete_sac, imports, methods, nbsp, ppo, sac, tricks
from tools.speed.turns import Row, take_turns


@pytest.mark.parametrize("cls", [SAC, ContinualSAC, NBSPSAC])
def test_models_have_full_buffers(cls: type[SAC]) -> None:
    model = sac.make(cls, [16, 16])
    assert model.replay_buffer.size() == 10_000
    assert np.std(model.replay_buffer.observations) == pytest.approx(1, abs=0.01)
    before = [parameter.detach().clone() for parameter in model.actor.parameters()]
    model.train(gradient_steps=1, batch_size=16)
    assert all((old != new).any() for old, new in zip(before, model.actor.parameters(), strict=True))


@pytest.mark.parametrize(("tasks", "protected"), [(1, [0.2, 0.2]), (50, [0.99, 1.0])])
def test_the_masked_model_has_masks_and_memory(tasks: int, protected: list[float]) -> None:
    model = sac.with_masks([20, 20], tasks)
    masks = model.all_interventions.find(GradientMasking).masks
    share = np.mean([(mask < 1).float().mean().item() for mask in masks.values()])
    assert len(masks) == 6 and protected[0] - 1e-6 <= share <= protected[1] + 1e-6
    memory = model.all_interventions.find(ExperienceReplay).memory
    assert memory is not None and len(memory.tasks) == tasks

    hooks, stepped = model.all_interventions, []
    masked_step = hooks._all[0].masked_step
    hooks._all[0].masked_step = lambda network: stepped.append(network) or masked_step(network)
    updates = model._n_updates
    assert sac.cost_of_interventions(model, 2, 4).shape == (2,)
    assert model._n_updates - updates == 2 * 3 * 4, "with and without them, and a turn to warm up"
    assert stepped == ["critic", "actor"] * 3 * 4, "with them only"
    assert model.all_interventions is hooks


@pytest.mark.parametrize("name", [methods.VANILLA, *methods.METHODS])
def test_methods_are_measured_in_their_second_phase(name: str) -> None:
    model = methods.in_second_phase(name, [8, 8])
    assert (model.phase.index, model.phase.task) == (1, "second")
    updates, before = model._n_updates, [parameter.detach().clone() for parameter in model.critic.parameters()]
    model.train(gradient_steps=2, batch_size=16)
    assert model._n_updates == updates + 2, "it is not warming up"
    assert any((old != new).any() for old, new in zip(before, model.critic.parameters(), strict=True))


def test_methods_have_something_to_keep_when_they_are_measured() -> None:
    clonex, ewc, ancl = (methods.in_second_phase(name, [8, 8]) for name in ("clonex_sac", "ewc_sac", "ancl_sac"))
    for model in (clonex, ewc, ancl):
        model.train(gradient_steps=2, batch_size=16)
    assert clonex.all_interventions.find(ClonEx)._divergence is not None
    assert ewc.all_interventions.find(EWC)._pulls
    assert ancl.all_interventions.find(ANCL)._auxiliary is not None
    assert len(methods.measure([8, 8], rounds=1, steps=1)) == len(methods.METHODS) > 15


def test_turns() -> None:
    order: list[str] = []
    seconds = take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 4, "one turn to warm up"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


@pytest.mark.parametrize(
    ("row", "measured", "wanted"),
    [
        (Row("", np.array([1.0, 1.5, 2.0]), "× SB3", 1.5), "1.50 (1.25 to 1.75) × SB3", "≥ 1.50 ✓"),
        (Row("", np.array([1.4]), "× SB3", 1.5), "1.40 × SB3", "≥ 1.50 ✗"),
        (Row("", np.array([0.021]), "%", 0.02, at_least=False), "2.1 %", "≤ 2.0 ✗"),
        (Row("", np.array([0.3]), "s", 0.3, at_least=False), "0.30 s", "≤ 0.30 ✓"),
        (Row("", np.array([3.0]), "ms"), "3.00 ms", ""),
    ],
)
def test_rows(row: Row, measured: str, wanted: str) -> None:
    assert (row.measured(), row.wanted()) == (measured, wanted)


class Multiplications(TorchDispatchMode):
    """Counts those of all matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (th.ops.aten.mm.default, th.ops.aten.addmm.default):
            left, right = args[-2:]
            self.total += left.shape[0] * left.shape[1] * right.shape[1]
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("net_arch", [[24, 16], [8], [12, 12, 12]])
def test_the_arithmetic_is_that_of_a_step(net_arch: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "_on_this_processor", lambda: False)  # whose products are not counted
    model = sac.make(ContinualSAC, net_arch)
    assert isinstance(model._make_gradients(), MlpGradients)
    with Multiplications() as counted:
        model.train(gradient_steps=1, batch_size=64)
    products = arithmetic.sac_products(net_arch, batch=64)
    # A step sends every sample back through both critics; one would do
    needless = 64 * (4 * net_arch[0] + sum(before * after for before, after in pairwise([*net_arch, 1])))
    assert counted.total == sum(n * k * m for n, k, m in products) + needless
    for run in (arithmetic.runner(products), arithmetic.runner(products, "medium")):
        run()


def test_the_parts_of_an_iteration() -> None:
    seconds = ppo.measure_parts("Pendulum-v1", [8], 256, 2)
    for name in ("SB3", "P3O", "medium"):
        rollout, update, iteration, epoch = (
            seconds[f"{name}, {part}"] for part in ("rollout", "update", "iteration", "epoch")
        )
        assert (rollout > 0).all() and (update > 0).all()
        assert np.allclose(iteration, rollout + update) and np.allclose(epoch, update / 10)
    assert all((seconds[f"{name}, distillation epoch"] > 0).all() for name in ("P3O", "medium"))


def test_ppo_learns_and_distils() -> None:
    kwargs: dict[str, Any] = {"reset_frequency": 10**9, "distill_threshold": 0}
    model: Any = ppo.make(P3O, "Pendulum-v1", [8], 256, min_distill_epochs=3, max_distill_epochs=3, **kwargs)
    ppo.collect(model)
    assert model.rollout_buffer.full
    ppo.distil(model)
    assert model.all_interventions.find(InnerDistillation).epochs == 3


def test_the_memory_takes_what_it_holds() -> None:
    row = nbsp.memory(20_000)
    assert 1 <= row.values[0] < 1.05


def test_identification_is_timed() -> None:
    row = nbsp.identification([16, 16], 2)
    assert row.values.shape == (2,) and (row.values > 0).all()


def test_imports_are_timed() -> None:
    assert 0 < imports.measure(1).values[0] < 60


def test_the_command_prints_medians_and_goals(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(th, "set_num_threads", lambda number: None)
    monkeypatch.delattr(command.os, "sched_setaffinity", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    options = ["--net-arch", "16", "--rounds", "2", "--steps", "1", "--ppo-env", "Pendulum-v1"]
    command.main([*options, "--ppo-net-arch", "8", "--ppo-steps", "256", "--parts", "sac", "ppo"])
    output = capsys.readouterr().out
    for name in (
        "SB3",
        "ContinualSAC",
        'ContinualSAC, "medium"',
        "its matrix products alone",
        "masks and replay after 50 tasks",
    ):
        assert re.search(rf"SAC step, 16: {name} .*\d\.\d", output)
    for name in ("rollout", "update", "iteration"):
        assert re.search(rf"P3O without a reset: {name} .*× SB3", output)
    assert re.search(r"iteration .*≥ 1\.35 [✓✗]", output)
    assert "2 rounds." in output and "stable_baselines3 2." in output


@pytest.mark.parametrize("name", tricks.sac_without())
def test_sac_without_a_trick(name: str) -> None:
    model, plain = (sac.make(ContinualSAC, [16, 16], seed=1) for _ in range(2))
    tricks.sac_without()[name](model)
    for each in (model, plain):
        th.manual_seed(0)
        np.random.seed(0)
        each.train(2, 16)
    assert all(th.allclose(a, b, atol=1e-5) for a, b in zip(model.policy.parameters(), plain.policy.parameters(), strict=True))
    gradients = model._make_gradients()
    assert isinstance(gradients, MlpGradients) == (name != "gradients by hand")
    assert bool(model.actor.optimizer.param_groups[0]["fused"]) == (name != "fused Adam")


@pytest.mark.parametrize("name", tricks.ppo_without())
def test_ppo_without_a_trick(name: str) -> None:
    model: Any = ppo.make(ContinualPPO, "Pendulum-v1", [8], 256)
    tricks.ppo_without()[name](model)
    ppo.collect(model)
    model.train()
    assert isinstance(model._make_gradients(), AutogradPPOGradients) == (name == "gradients by hand")
    assert bool(model.policy.optimizer.param_groups[0]["fused"]) == (name != "fused Adam")


def test_tricks_are_measured() -> None:
    rows = [*tricks.measure_sac([8], 2, 1), *tricks.measure_ppo("Pendulum-v1", [8], 256, 2)]
    assert [row.what.split(" without ")[1] for row in rows] == [*tricks.sac_without(), *tricks.ppo_without()]
    assert all((row.values > 0).all() and row.values.shape == (2,) for row in rows)


def test_unknown_part(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--parts", "sack"])
    assert "invalid choice: 'sack'" in capsys.readouterr().err


def test_discrete_sac_is_measured_against_the_plain_structure() -> None:
    rows = discrete_sac.measure(rounds=1, steps=1, width=8)
    assert [row.unit for row in rows] == ["ms", "× CleanRL", "× CleanRL"] * 2
    assert all(row.values.shape == (1,) and row.values > 0 for row in rows)
