"""What is replayed has the entropy coefficient of its own task."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from replay_checks import empty_memory, memory_of, replaying, transitions
from tagged_tasks import Spy, parameters, tagged_sequence, tiny

from sb3_nbsp import NBSPSAC, ContinualSAC
from sb3_nbsp.interventions import ExperienceReplay


def test_every_transition_has_the_smallest_coefficient_of_its_task() -> None:
    memory = empty_memory(90)
    memory.gives_ent_coefs = True
    memory.store("red", transitions(1, 0, 7), 0.5)  # fewer than its share
    memory.store("blue", transitions(2, 0, 200), 0.25)
    memory.store("green", transitions(3, 0, 200), 0.125)
    memory.store("blue", transitions(2, 500, 10), 2.0)  # it comes back, in a phase that did not get far
    memory.store("red", transitions(1, 500, 10), 0.25)  # it comes back, and is learned further: old and new have that
    batch = memory.sample(2000)
    assert batch.ent_coefs.shape == (2000, 1) and batch.ent_coefs.dtype == th.float32
    expected = {1.0: 0.25, 2.0: 0.25, 3.0: 0.125}
    assert {*batch.observations[:, 0].tolist()} == {*expected}
    assert batch.ent_coefs[:, 0].tolist() == [expected[tag] for tag in batch.observations[:, 0].tolist()]


def test_a_memory_gives_coefficients_only_if_told_to() -> None:
    memory = empty_memory(90)
    memory.store("red", transitions(1, 0, 7), 0.5)
    assert memory.sample(10).ent_coefs is None


def seen_coefficients(agent: Any) -> list[tuple[bool, Any]]:
    """For every gradient step: whether it draws from the memory, and the coefficient of its target value."""
    seen: list[tuple[bool, Any]] = []
    source, make = agent.all_interventions.replay_source, agent._make_gradients

    def made() -> Any:
        gradients = make()
        next_values = gradients.next_values
        gradients.next_values = lambda data, ent_coef: (
            seen.append((source(agent._n_updates + 1) is not None, ent_coef.clone())) or next_values(data, ent_coef)
        )
        return gradients

    agent._make_gradients = made
    return seen


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("reset_ent_coef", [True, False])
def test_replayed_batches_have_the_coefficient_with_which_their_task_ended(fused: bool, reset_ent_coef: bool) -> None:
    spy = Spy()
    options = {"replay_ent_coef": "own", "reset_ent_coef": reset_ent_coef}
    agent = replaying(tagged_sequence(), 3, spy=spy, learning_rate=0.05, fused=fused, **options)
    seen = seen_coefficients(agent)
    agent.learn(175)  # into the third phase
    red, blue = (np.exp(end["log_ent_coef"]) for end in spy.ends[:2])
    second, third = ([c for is_replay, c in seen[a:b] if is_replay] for a, b in ((39, 78), (78, len(seen))))
    assert len(second) == 13 and len(third) > 5
    for coefficients in second:
        np.testing.assert_allclose(coefficients.numpy(), np.full((16, 1), red), rtol=1e-5)
    assert abs(red - blue) > 1e-2
    values = {round(float(value), 5) for coefficients in third for value in coefficients.flatten()}
    assert values == {round(float(value), 5) for value in (red, blue)}
    # The other batches have the current one
    assert all(coefficient.numel() == 1 for is_replay, coefficient in seen if not is_replay)


@pytest.mark.parametrize("choice", ["own", "current"])
def test_who_learns_the_coefficient(choice: str) -> None:
    """With "own", batches from the memory leave the current coefficient alone."""
    replay = ExperienceReplay(memory_size=100, replay_interval=1, replay_ent_coef=choice)
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[replay], reset_ent_coef=True)
    seen = seen_coefficients(agent)
    agent.learn(110)
    assert agent._n_updates > 60
    assert (agent.log_ent_coef.item() == 0.0) == (choice == "own")
    assert (agent.actor.optimizer.state[agent.actor.mu.bias]["step"] == agent._n_updates).all()
    assert [coefficient.numel() for is_replay, coefficient in seen if is_replay] == [16 if choice == "own" else 1] * 30


def test_a_fixed_coefficient_is_the_same_either_way() -> None:
    def run(choice: str) -> Any:
        replay = ExperienceReplay(memory_size=100, replay_interval=2, replay_ent_coef=choice)
        agent = tiny(ContinualSAC, tagged_sequence(), interventions=[replay], ent_coef=0.3)
        agent.learn(130)
        return parameters(agent)

    own, current = run("own"), run("current")
    assert [name for name in own if not th.allclose(own[name], current[name], atol=1e-5)] == []


def test_a_short_phase_does_not_overwrite_what_a_longer_one_learned() -> None:
    """With a reset coefficient, a task that comes back for a few steps ends with one near 1."""
    spy, env = Spy(), tagged_sequence()
    agent = replaying(env, 3, spy=spy, learning_rate=0.05, reset_ent_coef=True)
    agent.learn(145)
    env.next_phase()  # a few updates into the third phase, which is red again
    agent.learn(1, reset_num_timesteps=False)
    first, blue, third = (np.exp(end["log_ent_coef"]) for end in spy.ends)
    assert first < 0.2 < 0.7 < third
    assert memory_of(agent).ent_coefs == {"red": pytest.approx(first), "blue": pytest.approx(blue)}


@pytest.mark.parametrize(
    ("choice", "reset", "expected"),
    [("auto", True, 16), ("auto", False, 1), ("own", False, 16), ("current", True, 1)],
)
def test_auto_is_own_where_the_coefficient_is_reset(choice: str, reset: bool, expected: int) -> None:
    agent = replaying(tagged_sequence(), 3, replay_ent_coef=choice, reset_ent_coef=reset)
    seen = seen_coefficients(agent)
    agent.learn(90)
    assert {coefficients.numel() for is_replay, coefficients in seen if is_replay} == {expected}


def test_coefficients_are_saved(tmp_path: Any) -> None:
    agent = replaying(tagged_sequence(), k=3, replay_ent_coef="own")
    agent.learn(130)
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    loaded = ContinualSAC.load(tmp_path / "model", env=tagged_sequence())
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert memory_of(loaded).ent_coefs == memory_of(agent).ent_coefs and len(memory_of(agent).ent_coefs) == 2
    assert th.equal(memory_of(loaded).sample(50).ent_coefs, memory_of(agent).sample(50).ent_coefs)


@pytest.mark.parametrize(("saved", "loaded"), [("current", "own"), ("own", "current"), ("own", "own")])
def test_the_option_may_change_when_a_model_is_loaded(tmp_path: Any, saved: str, loaded: str) -> None:
    agent = tiny(NBSPSAC, tagged_sequence(), masking=False, replay_ent_coef=saved, replay_interval=2)
    agent.learn(90)
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    other = NBSPSAC.load(tmp_path / "model", env=tagged_sequence(), replay_ent_coef=loaded)
    other.load_replay_buffer(tmp_path / "buffer")
    memory = other.all_interventions.find(ExperienceReplay).memory
    # They are kept whether they are used or not
    assert memory.ent_coefs == agent.all_interventions.find(ExperienceReplay).memory.ent_coefs and set(memory.ent_coefs) == {
        "red"
    }
    assert (memory.sample(5).ent_coefs is None) == (loaded == "current")
    other.learn(110, reset_num_timesteps=False)
    assert set(memory.tasks) == {"red", "blue"} == set(memory.ent_coefs)


def test_a_memory_saved_without_coefficients_gets_the_current_one_with_a_warning() -> None:
    agent = replaying(tagged_sequence(), 3, replay_ent_coef="own")
    agent.learn(90)
    state = agent.interventions[0].memory_state()
    state["ent_coefs"] = {}
    with pytest.warns(UserWarning, match=r"\['red'\] were learned.*replay_ent_coef='current'"):
        agent.interventions[0].load_memory_state(state)
    assert memory_of(agent).ent_coefs == {"red": pytest.approx(agent.log_ent_coef.exp().item())}
